"""Configs as classes: what a config class may set, and the registry that checks and keeps them.

The shape follows NVIDIA's v4.1 tree (configs/configuration.py), so that one kind of override file fits both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from harness.constants import (
    AccuracyTarget,
    Benchmark,
    HarnessType,
    PowerSetting,
    Scenario,
    WorkloadSetting,
)
from harness.systems import SystemConfiguration

ALL = frozenset(Scenario)


@dataclass(frozen=True)
class Field:
    """One value that a config class may set.

    Attributes:
        kind: int, or float (which takes an int too).
        minimum: Smallest value.
        maximum: Largest value, None for no bound.
        scenarios: Scenarios that have the field.
        required: Whether a config must set it.
    """

    kind: type[int | float]
    minimum: float
    maximum: float | None = None
    scenarios: frozenset[Scenario] = ALL
    required: bool = False


FIELDS: dict[str, Field] = {
    "offline_expected_qps": Field(float, 1, scenarios=frozenset({Scenario.Offline}), required=True),
    "server_target_qps": Field(float, 1, scenarios=frozenset({Scenario.Server}), required=True),
    "server_target_latency_ns": Field(int, 1, scenarios=frozenset({Scenario.Server})),
    "single_stream_expected_latency_ns": Field(int, 1, scenarios=frozenset({Scenario.SingleStream}), required=True),
    "min_duration": Field(int, 1),
    "min_query_count": Field(int, 1),
    "batch_size": Field(int, 1, 600, scenarios=frozenset({Scenario.Offline, Scenario.Server})),
    "threads": Field(int, 1, 1024),
    "quantize_bits": Field(int, 1, 32),
}
"""Every field. Durations are in milliseconds, latencies in nanoseconds, rates in samples a second."""

_IDENTITY = {"benchmark": Benchmark, "scenario": Scenario, "system": SystemConfiguration}


class _Body(dict[str, Any]):
    """Body of a config class; a value given twice is a mistake that Python would hide."""

    def __setitem__(self, key: str, value: object) -> None:
        if key in self and not key.startswith("__"):
            raise KeyError(f"{key} is set twice in {self.get('__qualname__', 'a config')}")
        super().__setitem__(key, value)


class _ConfigMeta(type):
    @classmethod
    def __prepare__(cls, name: str, bases: tuple[type, ...], /, **kwargs: object) -> _Body:
        del name, bases, kwargs
        return _Body()


class BenchmarkConfiguration(metaclass=_ConfigMeta):
    """Base of every config class; the attributes of a subclass are the fields."""


Config = TypeVar("Config", bound=type[BenchmarkConfiguration])


@dataclass(frozen=True)
class RegisteredConfig:
    """A checked config.

    Attributes:
        values: The fields that the class and its bases set.
    """

    benchmark: Benchmark
    scenario: Scenario
    system: SystemConfiguration
    setting: WorkloadSetting
    values: dict[str, int | float]


_Key = tuple[Benchmark, Scenario, str, WorkloadSetting]


class ConfigRegistry:
    """Keeps the configs that were imported."""

    _configs: dict[_Key, RegisteredConfig] = {}  # noqa: RUF012 - one registry for the process, filled by imports

    @classmethod
    def register(
        cls, harness_type: HarnessType, accuracy_target: AccuracyTarget, power_setting: PowerSetting
    ) -> Callable[[Config], Config]:
        """Return the decorator that checks a config class and registers it.

        The decorator raises KeyError for an unknown, missing or doubled field or an existing key, TypeError and
        ValueError for a value of the wrong kind or out of bounds.
        """
        setting = WorkloadSetting(harness_type, accuracy_target, power_setting)

        def decorate(config: Config) -> Config:
            checked = check(config, setting)
            key = (checked.benchmark, checked.scenario, checked.system.system_id, setting)
            if key in cls._configs:
                raise KeyError(f"Config for {describe(key)} is already registered")
            cls._configs[key] = checked
            return config

        return decorate

    @classmethod
    def get(
        cls, benchmark: Benchmark, scenario: Scenario, system: SystemConfiguration, setting: WorkloadSetting
    ) -> RegisteredConfig | None:
        """Return the registered config of a pair, None when there is none."""
        return cls._configs.get((benchmark, scenario, system.system_id, setting))


def describe(key: _Key) -> str:
    """Return the form in which NVIDIA's harness names a config."""
    benchmark, scenario, system, setting = key
    return f"{benchmark.value}.{scenario.value}.{system} for WorkloadSetting({setting.shortname()})"


def check(config: type[BenchmarkConfiguration], setting: WorkloadSetting) -> RegisteredConfig:
    """Check the values of a config class and its bases."""
    given = _attributes(config)
    for name, kind in _IDENTITY.items():
        if not isinstance(given.get(name), kind):
            raise KeyError(f"{config.__name__} must set {name} to a {kind.__name__}")
    scenario: Scenario = given["scenario"]
    allowed = {name for name, field in FIELDS.items() if scenario in field.scenarios}
    values = {name: value for name, value in given.items() if name not in _IDENTITY}
    unknown = sorted(set(values) - allowed)
    if unknown:
        possible = ", ".join(sorted(allowed))
        raise KeyError(f"{config.__name__}: {scenario.value} has no field {', '.join(unknown)}; possible: {possible}")
    missing = sorted(name for name in allowed if FIELDS[name].required and name not in values)
    if missing:
        raise KeyError(f"{config.__name__}: {scenario.value} needs {', '.join(missing)}")
    for name, value in values.items():
        _check_value(name, value)
    return RegisteredConfig(given["benchmark"], scenario, given["system"], setting, values)


def _attributes(config: type[BenchmarkConfiguration]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for base in reversed(config.__mro__):
        if issubclass(base, BenchmarkConfiguration):
            own = {name: value for name, value in vars(base).items() if not name.startswith("__")}
            for name in _IDENTITY:
                if name in given and name in own and own[name] != given[name]:
                    raise KeyError(f"{config.__name__} mixes {name} {given[name]} and {own[name]}")
            given |= own
    return given


def _check_value(name: str, value: object) -> None:
    field = FIELDS[name]
    kinds = (int, float) if field.kind is float else (int,)
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise TypeError(f"{name} must be {'a number' if field.kind is float else 'an integer'}, not {value!r}")
    if not field.minimum <= value <= (float("inf") if field.maximum is None else field.maximum):
        bound = "" if field.maximum is None else f" and at most {field.maximum:g}"
        raise ValueError(f"{name} must be at least {field.minimum:g}{bound}, not {value!r}")
