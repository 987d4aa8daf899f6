"""What RUN_ARGS ask for."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from standin.names import AccuracyTarget, Benchmark, HarnessType, PowerSetting, Scenario, WorkloadSetting, full_name

TREE = Path.cwd()
BUILD = TREE / "build"
TEST_RUN_MS = 60_000
RULE_MS = 600_000


def parse(argv: list[str]) -> argparse.Namespace:
    """Parse the command line. What is not known is dropped without a word."""
    parser = argparse.ArgumentParser(prog="code.main", allow_abbrev=False)
    parser.add_argument("--action", required=True)
    parser.add_argument("--benchmarks", default=",".join(item.value for item in Benchmark))
    parser.add_argument("--scenarios", default=",".join(item.value for item in Scenario))
    parser.add_argument("--config_ver", default="default")
    parser.add_argument("--test_mode", default="PerformanceOnly")
    parser.add_argument("--test_run", action="store_true")
    parser.add_argument("--min_duration", type=int)
    parser.add_argument("--min_query_count", type=int)
    parser.add_argument("--log_dir")
    parser.add_argument("--audit_test")
    return parser.parse_known_args(argv)[0]


def setting_of(arguments: argparse.Namespace) -> WorkloadSetting:
    """Return the workload setting that --config_ver names; --power_setting says nothing beside it."""
    target = AccuracyTarget.k_99_9 if "high_accuracy" in arguments.config_ver else AccuracyTarget.k_99
    kind = HarnessType.Triton if "triton" in arguments.config_ver else HarnessType.Custom
    power = PowerSetting.MaxQ if "maxq" in arguments.config_ver else PowerSetting.MaxP
    return WorkloadSetting(kind, target, power)


@dataclass(frozen=True)
class Measurement:
    """One pair in one mode, with the fields of its config."""

    benchmark: Benchmark
    scenario: Scenario
    setting: WorkloadSetting
    system_id: str
    fields: dict[str, Any]
    mode: str
    test_run: bool
    log_dir: Path

    @property
    def system_name(self) -> str:
        """Name of the system in folders of results."""
        suffix = "_MaxQ" if self.setting.power_setting is PowerSetting.MaxQ else ""
        return f"{self.system_id}_TRT{suffix}"

    @property
    def variant(self) -> str:
        """Official name of the benchmark."""
        return full_name(self.benchmark, self.setting.accuracy_target)

    @property
    def config_name(self) -> str:
        """Name of the config in metadata.json."""
        return f"{self.system_name}-{self.setting.shortname()}-{self.scenario.value}"

    @property
    def folder(self) -> Path:
        """Where the logs go."""
        return self.log_dir / self.system_name / self.variant / self.scenario.value

    @property
    def place(self) -> str:
        """Where a fault may happen."""
        return f"{self.benchmark.value}/{self.scenario.value}/{self.mode}"

    @property
    def min_duration_ms(self) -> int:
        """LoadGen's least duration."""
        return int(self.fields.get("min_duration") or (TEST_RUN_MS if self.test_run else RULE_MS))

    @property
    def engine(self) -> Path:
        """The engine's file; its name does not say which config it was built from."""
        batch = self.fields["gpu_batch_size"][self.benchmark.value]
        folder = BUILD / "engines" / self.system_id / self.benchmark.value / self.scenario.value
        stem = f"{self.benchmark.value}-{self.scenario.value}-gpu-{self.benchmark.value}-b{batch}"
        return folder / f"{stem}-{self.fields['precision']}.{self.setting.shortname()}.plan"


def log_folder(arguments: argparse.Namespace) -> Path:
    """Return where logs go: --log_dir, LOG_DIR, or a folder of the tree, in this order."""
    return Path(arguments.log_dir or os.environ.get("LOG_DIR") or BUILD / "logs" / "default").absolute()
