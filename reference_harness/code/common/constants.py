"""Names that config files import."""

from harness.constants import AccuracyTarget, Benchmark, HarnessType, PowerSetting, Scenario

__all__ = ["AccuracyTarget", "Benchmark", "HarnessType", "PowerSetting", "Scenario"]
