"""Configs by pair, system and setting, with the registry's refusals."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from standin.names import AccuracyTarget, Benchmark, HarnessType, PowerSetting, Scenario, WorkloadSetting
from standin.systems import KnownSystem, System

_RATE = {
    Scenario.Offline: "offline_expected_qps",
    Scenario.Server: "server_target_qps",
    Scenario.SingleStream: "single_stream_expected_latency_ns",
}
_IDENTITY = {"benchmark", "scenario", "system"}
_REQUIRED = {"gpu_batch_size", "precision", "input_dtype", "tensor_path"}
_COMMON = {
    *("gpu_copy_streams", "gpu_inference_streams", "workspace_size", "use_graphs", "input_format", "power_limit"),
    *("min_duration", "min_query_count", "use_triton", "instance_group_count", "start_from_device", "end_on_device"),
}
_OF_BENCHMARK = {
    Benchmark.BERT: {
        *("active_sms", "bert_opt_seqlen", "coalesced_tensor", "graphs_max_seqlen", "server_num_issue_query_threads"),
        *("soft_drop", "use_small_tile_gemm_plugin"),
    },
    Benchmark.UNET3D: {"map_path", "slice_overlap_patch_kernel_cg_impl"},
}
Key = tuple[Benchmark, Scenario, System, WorkloadSetting]


class ConfigError(Exception):
    """A config that the registry does not take."""


class BenchmarkConfiguration:
    """Base of all configs; fields are class attributes without an underscore."""

    @classmethod
    def fields(cls) -> dict[str, Any]:
        """Return the fields with their values."""
        values = {name: getattr(cls, name) for name in dir(cls) if not name.startswith("_")}
        return {name: value for name, value in values.items() if not callable(value) and value is not None}


Config = type[BenchmarkConfiguration]
Decorated = TypeVar("Decorated", bound=Config)


class ConfigRegistry:
    """Every config that was imported."""

    _configs: ClassVar[dict[Key, Config]] = {}

    @classmethod
    def register(
        cls, harness_type: HarnessType, accuracy_target: AccuracyTarget, power_setting: PowerSetting
    ) -> Callable[[Decorated], Decorated]:
        """Return the decorator of a config.

        Raises:
            ConfigError: by the decorator, when the config is not valid.
            KeyError: by the decorator, when there is one for the same key.
        """
        setting = WorkloadSetting(harness_type, accuracy_target, power_setting)

        def add(config: Decorated) -> Decorated:
            fields = checked(config, setting)
            key = (fields["benchmark"], fields["scenario"], fields["system"], setting)
            if key in cls._configs:
                raise KeyError(f"Config for {'/'.join(map(str, key))} is already registered.")
            cls._configs[key] = config
            return config

        return add

    @classmethod
    def load_configs(cls, benchmark: Benchmark, scenario: Scenario) -> bool:
        """Import the configs of a pair: with MLPINF_CUSTOM_DEFINITION_PATH its custom.py alone; False without one.

        Raises:
            FileNotFoundError: the variable names no folder.
        """
        folder = os.environ.get("MLPINF_CUSTOM_DEFINITION_PATH")
        pair = f"{benchmark.value}.{scenario.value}"
        if folder is None:
            return _imported(f"configs.{pair}")
        if not Path(folder).exists():
            raise FileNotFoundError(f"MLPINF_CUSTOM_DEFINITION_PATH {folder} does not exist.")
        if folder not in sys.path:
            sys.path.insert(0, folder)
        return _imported(f"custom_configs.{pair}.custom")

    @classmethod
    def get(
        cls, benchmark: Benchmark, scenario: Scenario, system: System, setting: WorkloadSetting
    ) -> dict[str, Any] | None:
        """Return the fields of a config, None when there is none."""
        config = cls._configs.get((benchmark, scenario, system, setting))
        return config.fields() if config else None

    @classmethod
    def has_pair(cls, benchmark: Benchmark, scenario: Scenario) -> bool:
        """Say whether there is any config of a pair, whatever its system and setting."""
        return any(key[:2] == (benchmark, scenario) for key in cls._configs)


def _imported(module: str) -> bool:
    try:
        importlib.import_module(module)
    except ModuleNotFoundError:
        # Also where something that the module imports is missing.
        return False
    return True


def checked(config: Config, setting: WorkloadSetting) -> dict[str, Any]:
    """Return a config's fields.

    Raises:
        ConfigError: it does not derive from one class at a time, lacks a field, or has one that is not possible.
    """
    name = config.__name__
    if any(len(parent.__bases__) != 1 for parent in config.__mro__[:-1]):
        raise ConfigError(f"{name} extends several classes")
    fields = config.fields()
    missing = _IDENTITY - set(fields)
    if missing:
        raise ConfigError(f"{name} has no {', '.join(sorted(missing))}")
    if not isinstance(fields["system"], System) or fields["system"] not in KnownSystem:
        raise ConfigError(f"{name}: system is no KnownSystem")
    if setting.harness_type is not HarnessType.Custom:
        raise ConfigError(f"{name}: {setting.harness_type} is not possible for {fields['benchmark']}")
    required = _REQUIRED | {_RATE[fields["scenario"]]}
    possible = required | _IDENTITY | _COMMON | _OF_BENCHMARK[fields["benchmark"]]
    wrong = [f"no {field}" for field in sorted(required - set(fields))]
    wrong += [f"impossible field {field}" for field in sorted(set(fields) - possible)]
    components = set(fields.get("gpu_batch_size", {}))
    if not wrong and components != {fields["benchmark"].value}:
        wrong.append(f"gpu_batch_size for {components}")
    if wrong:
        raise ConfigError(f"{name}: {'; '.join(wrong)}")
    return fields
