"""The harness's configuration values for a system: typed data in, the override files of the harness out.

Values come from gpu_configs/*.yaml, then a user's ConfigMap of the same schema, then spec.gpuConfig.overrides; the
later wins. They are checked against the fields that the harness has and written as Python literals, never as text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mlperf_operator.api.v1alpha1 import ConfigOverride, ConfigVersion, PowerSetting, Scenario
from mlperf_operator.gpu_config_schema import (
    ConfigEntry,
    ConfigError,
    SystemConfig,
    label,
    load_built_in,
    over,
)
from mlperf_operator.gpu_config_values import Place, Value, checked, missing
from mlperf_operator.rendering import template
from mlperf_operator.suites import BUILT_IN, Suite

_ACCURACY_TARGETS = {
    ConfigVersion.DEFAULT: "k_99",
    ConfigVersion.HIGH_ACCURACY: "k_99_9",
    ConfigVersion.TRITON: "k_99",
    ConfigVersion.HIGH_ACCURACY_TRITON: "k_99_9",
}
"""AccuracyTarget by config version (v4.1 code/common/constants.py, config_ver_to_workload_setting)."""

_TRITON = (ConfigVersion.TRITON, ConfigVersion.HIGH_ACCURACY_TRITON)


@dataclass(frozen=True)
class Wanted:
    """The configurations that a run asks for."""

    pairs: Sequence[tuple[str, Scenario]]
    version: ConfigVersion = ConfigVersion.DEFAULT
    power: PowerSetting = PowerSetting.MAX_P
    overrides: Sequence[ConfigOverride] = ()
    """Single values, which win over all others."""


def built_in_for(suite: Suite, system: str) -> SystemConfig | None:
    """Return the operator's own values for a system of a suite.

    An administrator's suite gets those of the system's name, which its own fields and rules then judge: it is a copy
    of a built-in one with another image, as a rule, and no file here can name it.
    """
    config = load_built_in().get(system)
    if config is None or (suite.name in BUILT_IN and suite.name not in config.suites):
        return None
    return config


def value_problems(suite: Suite, config: SystemConfig, base: SystemConfig | None) -> list[str]:
    """Return everything in a user's file that the suite cannot take, each with its entry and what is possible.

    Args:
        suite: The suite.
        config: The user's file.
        base: The values that the file's entries lie over.
    """
    problems = []
    if suite.name not in config.suites:
        problems.append(f"suites has {', '.join(config.suites)} and not {suite.name}")
    if config.system not in suite.systems:
        problems.append(f"suite {suite.name} has no system {config.system}; possible: {_choices(suite.systems)}")
    seen = set()
    for entry in config.configs:
        if entry.key in seen:
            problems.append(f"{entry.label}: there are two entries; make one of them")
        seen.add(entry.key)
        problems += [f"{entry.label}: {text}" for text in entry_problems(suite, over(base, entry))]
    return problems


def entry_problems(suite: Suite, entry: ConfigEntry) -> list[str]:
    """Return why the suite cannot take an entry, which is complete, or an empty list."""
    out_of_place = _no_such_configuration(suite, entry)
    return [out_of_place] if out_of_place else _checked(suite, entry, entry.values)[1]


def _no_such_configuration(suite: Suite, entry: ConfigEntry) -> str | None:
    """Return why the suite has no such configuration at all."""
    benchmark = suite.benchmarks.get(entry.benchmark)
    if benchmark is None:
        return f"suite {suite.name} has no benchmark {entry.benchmark}; possible: {_choices(suite.benchmarks)}"
    if entry.scenario not in benchmark.scenarios:
        possible = ", ".join(scenario.value for scenario in benchmark.scenarios)
        return f"{entry.benchmark} has no {entry.scenario.value} in suite {suite.name}; possible: {possible}"
    # One that the suite refuses for a reason of its own is merely never used.
    if entry.config_version not in (*suite.config_versions, *suite.refused_config_versions):
        possible = ", ".join(version.value for version in suite.config_versions)
        return f"suite {suite.name} has no configVersion {entry.config_version.value}; possible: {possible}"
    if entry.power_setting is PowerSetting.MAX_Q and entry.scenario not in benchmark.max_q_scenarios:
        pairs = [f"{name} {s.value}" for name, other in suite.benchmarks.items() for s in other.max_q_scenarios]
        return f"suite {suite.name} has no MaxQ for it; possible: {_choices(pairs)}"
    return None


def _checked(suite: Suite, entry: ConfigEntry, values: Mapping[str, object]) -> tuple[dict[str, Value], list[str]]:
    place = Place(entry.benchmark, entry.scenario, entry.power_setting)
    good, problems = checked(suite.config_fields, suite.config_rules, place, values)
    return good, [*problems, *(f"{name} is missing" for name in missing(suite.config_rules, place, values))]


def render_overrides(suite: Suite, config: SystemConfig, wanted: Wanted) -> dict[str, str]:
    """Return the override files by path, for MLPINF_CUSTOM_DEFINITION_PATH, and Makefile.docker.

    Every requested pair gets a custom.py: with that variable set the harness reads nothing else, so a pair without one
    has no configuration at all.

    Args:
        suite: The suite, which has the system.
        config: The system's values.
        wanted: What the run asks for.

    Raises:
        ConfigError: a pair has no values, or a value does not fit its field; all problems at once.
    """
    if config.system not in suite.systems:
        raise ConfigError(f"suite {suite.name} has no system {config.system}; possible: {_choices(suite.systems)}")
    files = {
        "Makefile.docker": template("Makefile.docker.j2").render(prebuild=suite.prebuild),
        "custom_systems/custom_list.py": "custom_systems = {}\n",
    }
    problems: list[str] = []
    absent: list[str] = []
    for benchmark, scenario in wanted.pairs:
        entry = config.find(benchmark, scenario, wanted.version, wanted.power)
        if entry is None:
            absent.append(label(benchmark, scenario, wanted.version, wanted.power))
            continue
        values, wrong = _checked(suite, entry, {**entry.values, **_own(suite, wanted, benchmark, scenario)})
        problems += [f"{benchmark} {scenario.value}: {problem}" for problem in wrong]
        files[f"custom_configs/{benchmark}/{scenario.value}/custom.py"] = _custom_py(suite, config, entry, values)
    if absent:
        problems.append(_no_entries(config, wanted, absent))
    if problems:
        raise ConfigError("; ".join(problems))
    return files


def _own(suite: Suite, wanted: Wanted, benchmark: str, scenario: Scenario) -> dict[str, object]:
    return {
        override.field: _override(suite, override)
        for override in wanted.overrides
        if (override.benchmark, override.scenario) == (benchmark, scenario)
    }


def _override(suite: Suite, override: ConfigOverride) -> object:
    # An override has no maps; of gpu_batch_size, say, only the number for its own benchmark can be meant.
    if suite.config_fields.get(override.field) == "Map":
        return {override.benchmark: override.value}
    return override.value


def _no_entries(config: SystemConfig, wanted: Wanted, absent: Sequence[str]) -> str:
    """Say what there is instead; with MaxQ, which few pairs have, the pairs that have it."""
    there = sorted({entry.label for entry in config.configs if entry.power_setting is wanted.power})
    asked = ", ".join(absent)
    if wanted.power is PowerSetting.MAX_Q and not there:
        return f"{config.system} has no values for {asked}; no pair of it has powerSetting MaxQ: use MaxP"
    return f"{config.system} has no values for {asked}; there are: {', '.join(there)}"


def _custom_py(suite: Suite, config: SystemConfig, entry: ConfigEntry, values: Mapping[str, Value]) -> str:
    triton = entry.config_version in _TRITON
    name = suite.systems[config.system].harness_name or config.system
    suffixes = [
        *([entry.config_version.value] if entry.config_version is not ConfigVersion.DEFAULT else []),
        *([entry.power_setting.value] if entry.power_setting is not PowerSetting.MAX_P else []),
    ]
    return template("custom.py.j2").render(
        label=entry.label,
        system=name,
        benchmark=entry.benchmark,
        scenario=entry.scenario.value,
        harness_type="Triton" if triton else "Custom",
        accuracy_target=_ACCURACY_TARGETS[entry.config_version],
        power_setting=entry.power_setting.value,
        class_name="_".join([name, *suffixes]),
        values={**values, **({"use_triton": True} if triton else {})},
    )


def _choices(values: Iterable[str]) -> str:
    return ", ".join(sorted(values)) or "none"
