"""Names of the tree: benchmarks, scenarios, workload settings. Spelling as config files have them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Benchmark(Enum):
    """Benchmarks of this tree."""

    BERT = "bert"
    UNET3D = "3d-unet"


class Scenario(Enum):
    """LoadGen's scenarios."""

    Offline = "Offline"
    Server = "Server"
    SingleStream = "SingleStream"


class HarnessType(Enum):
    """Who serves the model."""

    Custom = "custom"
    Triton = "triton"


class AccuracyTarget(Enum):
    """Share of the reference accuracy that a result must reach."""

    k_99 = 0.99
    k_99_9 = 0.999


class PowerSetting(Enum):
    """MaxQ caps the GPUs' power."""

    MaxP = "MaxP"
    MaxQ = "MaxQ"


@dataclass(frozen=True)
class WorkloadSetting:
    """What tells the configs of one pair and system apart."""

    harness_type: HarnessType
    accuracy_target: AccuracyTarget
    power_setting: PowerSetting

    def shortname(self) -> str:
        """Return the form used in names of configs and engines, such as custom_k_99_MaxP."""
        return f"{self.harness_type.value}_{self.accuracy_target.name}_{self.power_setting.value}"


def full_name(benchmark: Benchmark, target: AccuracyTarget) -> str:
    """Return the official name, such as bert-99.9."""
    return f"{benchmark.value}-{target.value * 100:g}"
