"""A tree with as much of the interface of NVIDIA's configuration code and Makefiles as real_tree asks, in our words."""

from __future__ import annotations

from pathlib import Path

FILES = {
    "VERSION": "v4.1\n",
    "Makefile": """\
SHELL := /bin/bash
include Makefile.const Makefile.docker Makefile.build Makefile.data
generate_engines:
	@python3 -m code.main $(RUN_ARGS) --action="generate_engines"
run_harness:
	@python3 -m code.main $(RUN_ARGS) --action="run_harness" | tee $(LOG_DIR)/stdout.txt
run_audit_test01 run_audit_test05: run_audit_test%:
	@python3 -m code.main $(RUN_ARGS) --audit_test=TEST$* --action="run_audit_harness"
stage_results:
	@echo staged
""",
    "Makefile.const": """\
SKIP_DRIVER_CHECK ?= 0
ifeq ($(SKIP_DRIVER_CHECK),0)
DRIVER := $(shell nvidia-smi)
endif
S = $(MLPERF_SCRATCH_PATH)
""",
    "Makefile.docker": "prebuild:\n\tdocker run --rm the-image\n",
    "Makefile.build": """\
INFERENCE_URL = https://github.com/mlcommons/inference.git
link_dirs:
	@ln -sfn $(S)/data build/data; ln -sfn $(S)/preprocessed_data build/p; ln -sfn $(S)/models build/models
build:
	git clone $(INFERENCE_URL)
	@echo "Building loadgen in /code/harness and /code/plugin/"
""",
    "Makefile.power": "POWER_DEV_URL = https://github.com/mlcommons/power-dev.git\n",
    "Makefile.data": """\
download_model download_data:
	bash code/$(BENCHMARKS)/tensorrt/$@.sh
preprocess_data:
	python3 -m code.$(BENCHMARKS).tensorrt.preprocess_data --data_dir=$(S)/data
""",
    "configs/__init__.py": "",
    "configs/configuration.py": """\
from code.common.constants import *
class ConfigRegistry:
    known = {}
    @classmethod
    def register(cls, harness, accuracy, power):
        def register(config):
            key = (config.benchmark, config.scenario, config.system, harness, accuracy, power)
            if (getattr(config, "use_triton", False)) != (harness is HarnessType.Triton):
                raise ValueError("use_triton")
            cls.known[key] = config
            return config
        return register
""",
    "configs/bert/__init__.py": "from code.common.constants import *\nclass GPUBaseConfig: benchmark = Benchmark.BERT",
    "configs/3d-unet/__init__.py": """\
from code.common.constants import *
class GPUBaseConfig: benchmark = Benchmark.UNET
""",
    "code/__init__.py": """\
def convert_to_component_aliased_enum(config): pass
def validate_batch_size(config):
    assert set(config["gpu_batch_size"]) == {config["benchmark"].valstr()}
""",
    "code/actionhandler/__init__.py": "",
    "code/common/__init__.py": "",
    "code/common/systems/__init__.py": "",
    "code/common/constants.py": """\
from dataclasses import dataclass
from enum import Enum
class Named(Enum):
    def valstr(self): return self.value
    @classmethod
    def get_match(cls, text): return next((m for m in cls if m.value == text), None)
class Benchmark(Named): BERT, UNET = "bert", "3d-unet"
class Scenario(Named): Offline, Server, SingleStream, MultiStream = "Offline", "Server", "SingleStream", "MultiStream"
class HarnessType(Named): Custom, Triton = "custom", "triton"
class AccuracyTarget(Enum): k_99, k_99_9 = .99, .999
class PowerSetting(Named): MaxP, MaxQ = "MaxP", "MaxQ"
class AuditTest(Named): TEST01, TEST04, TEST05 = "TEST01", "TEST04", "TEST05"
@dataclass(frozen=True)
class WorkloadSetting:
    harness_type: HarnessType = HarnessType.Custom
    accuracy_target: AccuracyTarget = AccuracyTarget.k_99
    power_setting: PowerSetting = PowerSetting.MaxP
""",
    "code/common/systems/system_list.py": """\
import os, sys
from enum import Enum
from types import SimpleNamespace as N
sys.path.insert(0, os.environ["MLPINF_CUSTOM_DEFINITION_PATH"])
import custom_systems.custom_list
class Accelerators:
    def __init__(self, name, count): self.name, self.count = name, count
    def get_accelerators(self): return [N(name=self.name)]
    def num_gpus(self): return self.count
class KnownSystem(Enum):
    A100_SXM4_40GBx8 = N(accelerator_conf=Accelerators("NVIDIA A100-SXM4-40GB", 8), system_id="40x8")
    A100_SXM4_40GBx1 = N(accelerator_conf=Accelerators("NVIDIA A100-SXM4-40GB", 1), system_id="40x1")
    A100_SXM_80GBx8 = N(accelerator_conf=Accelerators("NVIDIA A100-SXM4-80GB", 8), system_id="80x8")
""",
    "code/common/fields.py": """\
from enum import Enum
from code.common.constants import *
class Field:
    def __init__(self, value_type, benchmarks="", scenarios="", powers=""):
        self.value_type, self.where, self.required = value_type, (benchmarks, scenarios, powers), False
    def supports(self, action, benchmark, scenario, system, setting):
        place = benchmark.value, scenario.value, setting.power_setting.value
        return all(not allowed or own in allowed.split() for allowed, own in zip(self.where, place))
B, U = "bert", "3d-unet"
class Fields(Enum):
    active_sms = Field(int)
    power_limit = Field(int, powers="MaxQ")
    soft_drop = Field(float, B)
    precision = Field(str)
    server_target_qps = Field(float, scenarios="Server")
    use_graphs = Field(int)
""",
    "code/actionhandler/run_audit.py": """\
class RunAuditHandler:
    @property
    def is_exempt(self): return self.test_name == "TEST04"
""",
    "code/main.py": """\
import importlib
import submission_checker
from nvmitten.nvidia.builder import TensorRTEngine
from code.common.constants import *
from code.common.systems.system_list import KnownSystem
from configs.configuration import ConfigRegistry
class Engine(TensorRTEngine): pass
def turn_off_mps(): raise OSError
def dispatch_action(*arguments): raise OSError
def parse_main_args(arguments): return dict(a.removeprefix("--").partition("=")[::2] for a in arguments)
def main(arguments, system):
    turn_off_mps()
    version = arguments["config_ver"]
    setting = WorkloadSetting(
        HarnessType.Triton if "triton" in version else HarnessType.Custom,
        AccuracyTarget.k_99_9 if "high_accuracy" in version else AccuracyTarget.k_99,
        PowerSetting.MaxQ if "maxq" in version else PowerSetting.MaxP,
    )
    importlib.import_module("custom_configs.{benchmarks}.{scenarios}.custom".format(**arguments))
    pair = Benchmark.get_match(arguments["benchmarks"]), Scenario.get_match(arguments["scenarios"])
    key = *pair, KnownSystem(system)
    config = ConfigRegistry.known.get((*key, setting.harness_type, setting.accuracy_target, setting.power_setting))
    if config is not None:
        values = {name: getattr(config, name) for name in dir(config) if not name.startswith("_")}
        dispatch_action(arguments, values, setting)
""",
}


def write_tree(folder: Path) -> Path:
    """Write the tree below a folder and return it."""
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder
