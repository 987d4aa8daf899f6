"""Names of the harness: benchmarks, scenarios, config keys. Spelling as in NVIDIA's v4.1 tree."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple, Self


class HarnessError(Exception):
    """A request or an environment that the harness cannot serve; the message says what is possible."""


class _Named(Enum):
    @classmethod
    def parse(cls, name: str) -> Self:
        """Return the member with this value.

        Raises:
            HarnessError: there is none.
        """
        for member in cls:
            if str(member.value) == name:
                return member
        possible = ", ".join(str(member.value) for member in cls)
        raise HarnessError(f"{name!r} is not a {cls.__name__}; possible: {possible}")


class Benchmark(_Named):
    """Benchmarks of this tree."""

    Digits = "digits"


class Scenario(_Named):
    """LoadGen scenarios that the benchmark has."""

    Offline = "Offline"
    Server = "Server"
    SingleStream = "SingleStream"


class TestMode(_Named):
    """LoadGen test modes that the harness runs."""

    PerformanceOnly = "PerformanceOnly"
    AccuracyOnly = "AccuracyOnly"


class HarnessType(Enum):
    """Who serves the model. Triton exists as a name only, so that shared configs load."""

    Custom = "custom"
    Triton = "triton"


class AccuracyTarget(Enum):
    """Share of the reference accuracy that a result must reach."""

    k_99 = 0.99
    k_99_9 = 0.999


class PowerSetting(Enum):
    """Power settings. MaxQ exists as a name only, so that shared configs load."""

    MaxP = "MaxP"
    MaxQ = "MaxQ"


class WorkloadSetting(NamedTuple):
    """What tells the configs of one benchmark, scenario and system apart."""

    harness_type: HarnessType
    accuracy_target: AccuracyTarget
    power_setting: PowerSetting

    def shortname(self) -> str:
        """Return the form used in config names, such as custom_k_99_MaxP."""
        return f"{self.harness_type.value}_{self.accuracy_target.name}_{self.power_setting.value}"


CONFIG_VERSIONS = {
    "default": WorkloadSetting(HarnessType.Custom, AccuracyTarget.k_99, PowerSetting.MaxP),
    "high_accuracy": WorkloadSetting(HarnessType.Custom, AccuracyTarget.k_99_9, PowerSetting.MaxP),
    "triton": WorkloadSetting(HarnessType.Triton, AccuracyTarget.k_99, PowerSetting.MaxP),
    "high_accuracy_triton": WorkloadSetting(HarnessType.Triton, AccuracyTarget.k_99_9, PowerSetting.MaxP),
}
"""RUN_ARGS' --config_ver. The Triton ones have no config in this tree, so their pairs are skipped."""


def full_name(benchmark: Benchmark, target: AccuracyTarget) -> str:
    """Return the official form of a benchmark's name, such as digits-99.9."""
    return f"{benchmark.value}-{target.value * 100:g}"
