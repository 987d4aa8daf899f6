"""Names that config files import."""

from standin.names import AccuracyTarget, Benchmark, HarnessType, PowerSetting, Scenario

__all__ = ["AccuracyTarget", "Benchmark", "HarnessType", "PowerSetting", "Scenario"]
