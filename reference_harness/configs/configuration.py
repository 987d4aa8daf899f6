"""What a config file imports. The names are those of NVIDIA's tree."""

from __future__ import annotations

from harness.constants import AccuracyTarget, HarnessType, PowerSetting
from harness.registry import BenchmarkConfiguration, ConfigRegistry

__all__ = ["AccuracyTarget", "BenchmarkConfiguration", "ConfigRegistry", "HarnessType", "PowerSetting"]
