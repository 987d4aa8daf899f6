"""What one run does: the config's values, completed with defaults and with the command line's."""

from __future__ import annotations

from dataclasses import dataclass

from harness.constants import Benchmark, Scenario, WorkloadSetting
from harness.registry import RegisteredConfig

RULE_MIN_DURATION_MS = 600_000
"""MLPerf's ten minutes (mlperf.conf, *.*.min_duration)."""

RULE_MIN_QUERIES = {Scenario.Offline: 600, Scenario.Server: 100, Scenario.SingleStream: 100}
"""LoadGen's own minimum for latency scenarios; for Offline the data set, which is below 24,576 (mlperf.conf)."""

TEST_MIN_DURATION_MS = {Scenario.Offline: 1_000, Scenario.Server: 2_000, Scenario.SingleStream: 2_000}
TEST_MIN_QUERIES = {Scenario.Offline: 600, Scenario.Server: 900, Scenario.SingleStream: 128}
"""Early stopping can still hold: at p99 it needs 459 queries with none over the bound, 662 with one, 838 with two; at
p90 it needs 64 (LoadGen's early_stopping.cc)."""

DEFAULT_LATENCY_BOUND_NS = 1_000_000_000
DEFAULT_BATCH_SIZE = {Scenario.Offline: 32, Scenario.Server: 32, Scenario.SingleStream: 1}


@dataclass(frozen=True)
class CommandLine:
    """Values of RUN_ARGS that win over the config's.

    Attributes:
        test_run: The short run.
        min_duration: Milliseconds.
        min_query_count: Queries; samples for Offline.
    """

    test_run: bool = False
    min_duration: int | None = None
    min_query_count: int | None = None


@dataclass(frozen=True)
class RunSettings:
    """Everything that one run needs to know; rates in samples a second."""

    benchmark: Benchmark
    scenario: Scenario
    system_id: str
    setting: WorkloadSetting
    min_duration_ms: int
    min_query_count: int
    batch_size: int
    threads: int
    quantize_bits: int
    expected_qps: float | None
    target_qps: float | None
    target_latency_ns: int
    expected_latency_ns: int | None

    @property
    def system_name(self) -> str:
        """Name of the system with its inference runtime, as in result folders."""
        return f"{self.system_id}_ORT"

    @property
    def config_name(self) -> str:
        """Name of the config as in metadata.json."""
        return f"{self.system_name}-{self.setting.shortname()}-{self.scenario.value}"


def run_settings(config: RegisteredConfig, command_line: CommandLine) -> RunSettings:
    """Complete a config. The command line wins, then a test run's shortness, then the config, then the rules."""
    scenario, values = config.scenario, config.values
    duration = int(values.get("min_duration", RULE_MIN_DURATION_MS))
    queries = int(values.get("min_query_count", RULE_MIN_QUERIES[scenario]))
    if command_line.test_run:
        duration, queries = TEST_MIN_DURATION_MS[scenario], TEST_MIN_QUERIES[scenario]
    return RunSettings(
        benchmark=config.benchmark,
        scenario=scenario,
        system_id=config.system.system_id,
        setting=config.setting,
        min_duration_ms=duration if command_line.min_duration is None else command_line.min_duration,
        min_query_count=queries if command_line.min_query_count is None else command_line.min_query_count,
        batch_size=int(values.get("batch_size", DEFAULT_BATCH_SIZE[scenario])),
        threads=int(values.get("threads", 1)),
        quantize_bits=int(values.get("quantize_bits", 32)),
        expected_qps=values.get("offline_expected_qps"),
        target_qps=values.get("server_target_qps"),
        target_latency_ns=int(values.get("server_target_latency_ns", DEFAULT_LATENCY_BOUND_NS)),
        expected_latency_ns=_optional_int(values.get("single_stream_expected_latency_ns")),
    )


def _optional_int(value: float | None) -> int | None:
    return None if value is None else int(value)
