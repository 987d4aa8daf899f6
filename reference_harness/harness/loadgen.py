"""One LoadGen test."""

from __future__ import annotations

from pathlib import Path

import mlperf_loadgen as lg

from harness import dataset, engine
from harness.constants import Scenario, TestMode
from harness.log import LOG
from harness.settings import RunSettings
from harness.sut import SampleLibrary, ServingSystem

_ONLY_MLPERF_CONF = 0


def test_settings(settings: RunSettings, mode: TestMode) -> lg.TestSettings:
    """Return LoadGen's settings: its built-in mlperf.conf (seeds, percentiles), then the run's own."""
    test = lg.TestSettings()
    test.FromConfig("", settings.benchmark.value, settings.scenario.value, _ONLY_MLPERF_CONF)
    test.scenario = getattr(lg.TestScenario, settings.scenario.value)
    test.mode = getattr(lg.TestMode, mode.value)
    test.min_duration_ms = settings.min_duration_ms
    test.min_query_count = settings.min_query_count
    if settings.scenario is Scenario.Offline:
        test.offline_expected_qps = settings.expected_qps
    elif settings.scenario is Scenario.Server:
        test.server_target_qps = settings.target_qps
        test.server_target_latency_ns = settings.target_latency_ns
    else:
        test.single_stream_expected_latency_ns = settings.expected_latency_ns
    return test


def run(settings: RunSettings, mode: TestMode, folder: Path) -> None:
    """Run LoadGen; its logs go to the folder."""
    images, labels = dataset.load_preprocessed()
    library = SampleLibrary(images)
    session = engine.load(settings)
    with ServingSystem(session, library, settings.batch_size) as system:
        system.warm_up()
        issue = system.issue_and_wait if settings.scenario is Scenario.SingleStream else system.issue
        sut = lg.ConstructSUT(issue, system.flush)
        qsl = lg.ConstructQSL(len(labels), len(labels), library.load, library.unload)
        LOG.info("Running LoadGen: %s, %s, at least %d ms.", settings.config_name, mode.value, settings.min_duration_ms)
        lg.StartTestWithLogSettings(sut, qsl, test_settings(settings, mode), _log_settings(folder))
        lg.DestroyQSL(qsl)
        lg.DestroySUT(sut)


def _log_settings(folder: Path) -> lg.LogSettings:
    settings = lg.LogSettings()
    settings.log_output.outdir = str(folder)
    settings.log_output.copy_summary_to_stdout = False
    settings.enable_trace = False
    return settings
