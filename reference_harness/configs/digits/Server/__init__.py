"""Server: samples arrive at random, at a target rate."""

from __future__ import annotations

from configs.configuration import AccuracyTarget, ConfigRegistry, HarnessType, PowerSetting
from configs.digits import CPUBaseConfig
from harness.constants import Scenario
from harness.systems import KnownSystem


class ServerCPUBaseConfig(CPUBaseConfig):
    """Values of the scenario."""

    scenario = Scenario.Server
    batch_size = 32
    server_target_latency_ns = 1_000_000_000


@ConfigRegistry.register(HarnessType.Custom, AccuracyTarget.k_99, PowerSetting.MaxP)
class CPU_REFERENCE(ServerCPUBaseConfig):  # noqa: N801 - the class is named as its system, as in NVIDIA's tree
    """Values for any 64-bit CPU; README.md says why."""

    system = KnownSystem.CPU_REFERENCE
    server_target_qps = 300


@ConfigRegistry.register(HarnessType.Custom, AccuracyTarget.k_99_9, PowerSetting.MaxP)
class CPU_REFERENCE_HighAccuracy(CPU_REFERENCE):  # noqa: N801 - as above
    """The same engine serves both accuracy targets."""
