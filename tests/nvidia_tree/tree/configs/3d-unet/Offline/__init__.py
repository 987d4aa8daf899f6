"""The tree's own Offline configs: a second config for one of these keys is a KeyError."""

from code.common.constants import Scenario
from code.common.systems.system_list import KnownSystem
from importlib import import_module
from typing import ClassVar

from configs.configuration import AccuracyTarget, ConfigRegistry, HarnessType, PowerSetting

GPUBaseConfig = import_module("configs.3d-unet").GPUBaseConfig


@ConfigRegistry.register(HarnessType.Custom, AccuracyTarget.k_99, PowerSetting.MaxP)
class EightA100(GPUBaseConfig):
    """A100_SXM4_40GBx8."""

    system = KnownSystem.A100_SXM4_40GBx8
    scenario = Scenario.Offline
    gpu_batch_size: ClassVar = {"3d-unet": 1}
    offline_expected_qps = 1
