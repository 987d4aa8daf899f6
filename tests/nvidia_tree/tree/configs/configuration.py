"""What a config file imports by `*`."""

from standin.names import AccuracyTarget, HarnessType, PowerSetting
from standin.registry import BenchmarkConfiguration, ConfigRegistry

__all__ = ["AccuracyTarget", "BenchmarkConfiguration", "ConfigRegistry", "HarnessType", "PowerSetting"]
