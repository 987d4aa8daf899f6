"""One LoadGen test. With audit.config in the working folder LoadGen takes that into account by itself."""

from __future__ import annotations

from pathlib import Path

import mlperf_loadgen as lg

from standin.names import Benchmark, Scenario
from standin.request import Measurement
from standin.sut import ServingSystem

SAMPLES = {Benchmark.BERT: 10833, Benchmark.UNET3D: 43}
SERVER_LATENCY_NS = 130_000_000
UNET3D_TEST_RUN_QUERIES = 129


def settings(measurement: Measurement) -> lg.TestSettings:
    """Return LoadGen's settings."""
    test = lg.TestSettings()
    test.scenario = getattr(lg.TestScenario, measurement.scenario.value)
    test.mode = getattr(lg.TestMode, measurement.mode)
    test.min_duration_ms = measurement.min_duration_ms
    fields = measurement.fields
    test.min_query_count = int(fields.get("min_query_count") or _min_query_count(measurement))
    if measurement.scenario is Scenario.Offline:
        test.offline_expected_qps = float(fields["offline_expected_qps"])
        test.min_query_count = 1
    elif measurement.scenario is Scenario.Server:
        test.server_target_qps = float(fields["server_target_qps"])
        test.server_target_latency_ns = SERVER_LATENCY_NS
    else:
        test.single_stream_expected_latency_ns = int(fields["single_stream_expected_latency_ns"])
    return test


def _min_query_count(measurement: Measurement) -> int:
    if measurement.test_run and measurement.benchmark is Benchmark.UNET3D:
        return UNET3D_TEST_RUN_QUERIES
    return 100


def run(measurement: Measurement, folder: Path) -> None:
    """Run LoadGen; its logs go to the folder."""
    log = lg.LogSettings()
    log.log_output.outdir = str(folder)
    log.log_output.copy_summary_to_stdout = False
    log.enable_trace = False
    count = SAMPLES[measurement.benchmark]
    with ServingSystem(measurement) as system:
        sut = lg.ConstructSUT(system.issue, lambda: None)
        qsl = lg.ConstructQSL(count, count, lambda _: None, lambda _: None)
        lg.StartTestWithLogSettings(sut, qsl, settings(measurement), log)
        lg.DestroyQSL(qsl)
        lg.DestroySUT(sut)
