"""SingleStream: one sample after the other."""

from __future__ import annotations

from configs.configuration import AccuracyTarget, ConfigRegistry, HarnessType, PowerSetting
from configs.digits import CPUBaseConfig
from harness.constants import Scenario
from harness.systems import KnownSystem


class SingleStreamCPUBaseConfig(CPUBaseConfig):
    """Values of the scenario."""

    scenario = Scenario.SingleStream


@ConfigRegistry.register(HarnessType.Custom, AccuracyTarget.k_99, PowerSetting.MaxP)
class CPU_REFERENCE(SingleStreamCPUBaseConfig):  # noqa: N801 - the class is named as its system, as in NVIDIA's tree
    """Values for any 64-bit CPU; README.md says why."""

    system = KnownSystem.CPU_REFERENCE
    single_stream_expected_latency_ns = 200_000


@ConfigRegistry.register(HarnessType.Custom, AccuracyTarget.k_99_9, PowerSetting.MaxP)
class CPU_REFERENCE_HighAccuracy(CPU_REFERENCE):  # noqa: N801 - as above
    """The same engine serves both accuracy targets."""
