"""The harness's configuration values for a system: typed data in, the override files of the harness out.

Values come from gpu_configs/*.yaml, then a user's ConfigMap of the same schema, then spec.gpuConfig.overrides; the
later wins. They are checked against the fields that the harness has and written as Python literals, never as text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from pydantic import Field, ValidationError

from mlperf_operator.api.v1alpha1 import ConfigOverride, ConfigVersion, Scenario
from mlperf_operator.config_values import Value, checked
from mlperf_operator.models import Strict
from mlperf_operator.suites import FieldType

_WORKLOADS = {
    ConfigVersion.DEFAULT: ("Custom", "k_99"),
    ConfigVersion.HIGH_ACCURACY: ("Custom", "k_99_9"),
    ConfigVersion.TRITON: ("Triton", "k_99"),
    ConfigVersion.HIGH_ACCURACY_TRITON: ("Triton", "k_99_9"),
}
"""HarnessType and AccuracyTarget by config version (v4.1 code/main.py, --config_ver)."""


class ConfigError(Exception):
    """Configuration values cannot be used; the message names every problem and what is possible."""


class _Loader(yaml.SafeLoader):
    """Without aliases: a small text with nested ones stands for gigabytes, and anybody may write a ConfigMap."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="aliases (*name) are not allowed; write it out", problem_mark=mark)
        return super().compose_node(parent, index)


class ConfigEntry(Strict):
    """The values of one benchmark, scenario and config version."""

    benchmark: str = Field(description="Benchmark, such as bert.")
    scenario: Scenario = Field(description="LoadGen scenario.")
    config_version: ConfigVersion = Field(default=ConfigVersion.DEFAULT, description="Config version.")
    values: dict[str, Any] = Field(description="Fields of the harness's config class.")
    origin: str = Field(description="Where the values come from.")


class SystemConfig(Strict):
    """A file of gpu_configs/."""

    system: str = Field(description="System under test, as the harness's KnownSystem names it.")
    suites: tuple[str, ...] = Field(description="Suites that have the system.")
    configs: tuple[ConfigEntry, ...] = Field(description="The values.")

    def find(self, benchmark: str, scenario: Scenario, version: ConfigVersion) -> ConfigEntry | None:
        """Return the last entry for a pair and config version."""
        wanted = (benchmark, scenario, version)
        found = [e for e in self.configs if (e.benchmark, e.scenario, e.config_version) == wanted]
        return found[-1] if found else None


def parse_system_config(text: str, name: str) -> SystemConfig:
    """Read a file of the schema of gpu_configs/*.yaml; `name` is for the error.

    Raises:
        ConfigError: it is no YAML or not of the schema.
    """
    try:
        return SystemConfig.model_validate(yaml.load(text, _Loader))  # noqa: S506 - a SafeLoader
    except ValidationError as error:
        problems = [f"{'.'.join(str(p) for p in e['loc']) or 'file'}: {e['msg']}" for e in error.errors()]
        raise ConfigError(f"{name}: {'; '.join(problems)}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # PyYAML lets some of Python's own errors through: a date with a 13th month, an endless number.
        raise ConfigError(f"{name}: no YAML: {_yaml_problem(error)}") from error


def _yaml_problem(error: Exception) -> str:
    """Return what is wrong, without the text around it: who may start a run may not be allowed to read it."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"{error.problem} in line {error.problem_mark.line + 1}"
    return type(error).__name__


@cache
def load_built_in() -> Mapping[str, SystemConfig]:
    """Return the operator's own values by system."""
    folder = resources.files("mlperf_operator").joinpath("gpu_configs")
    files = [file for file in folder.iterdir() if file.name.endswith(".yaml")]
    configs = [parse_system_config(file.read_text(encoding="utf-8"), file.name) for file in files]
    return {config.system: config for config in configs}


def merged(base: SystemConfig | None, user: Sequence[SystemConfig]) -> SystemConfig | None:
    """Return the base with a user's entries added; for the same pair and version the user's values win one by one."""
    for extra in user:
        if base is None:
            base = extra
            continue
        entries = [_over(base.find(e.benchmark, e.scenario, e.config_version), e) for e in extra.configs]
        base = base.model_copy(update={"configs": (*base.configs, *entries)})
    return base


def _over(base: ConfigEntry | None, entry: ConfigEntry) -> ConfigEntry:
    if base is None:
        return entry
    return entry.model_copy(update={"values": {**base.values, **entry.values}})


def render_overrides(
    fields: Mapping[str, FieldType],
    config: SystemConfig,
    pairs: Iterable[tuple[str, Scenario]],
    version: ConfigVersion,
    overrides: Sequence[ConfigOverride] = (),
) -> dict[str, str]:
    """Return the override files by path, for MLPINF_CUSTOM_DEFINITION_PATH, and Makefile.docker.

    Every requested pair gets a custom.py: with that variable set the harness reads nothing else, so a pair without one
    has no configuration at all.

    Args:
        fields: The suite's config fields.
        config: The system's values.
        pairs: The benchmarks and scenarios that the run asks for.
        version: The config version.
        overrides: Single values that win.

    Raises:
        ConfigError: a pair has no values, or a value does not fit its field; all problems at once.
    """
    files = {
        "Makefile.docker": _template("Makefile.docker.j2").render(),
        "custom_systems/custom_list.py": "custom_systems = {}\n",
    }
    problems: list[str] = []
    for benchmark, scenario in pairs:
        entry = config.find(benchmark, scenario, version)
        if entry is None:
            problems.append(_no_entry(config, benchmark, scenario, version))
            continue
        own = {o.field: _override(fields, o) for o in overrides if (o.benchmark, o.scenario) == (benchmark, scenario)}
        values, wrong = checked(fields, {**entry.values, **own})
        problems += [f"{benchmark} {scenario.value}: {problem}" for problem in wrong]
        files[f"custom_configs/{benchmark}/{scenario.value}/custom.py"] = _custom_py(config.system, entry, values)
    if problems:
        raise ConfigError("; ".join(problems))
    return files


def _override(fields: Mapping[str, FieldType], override: ConfigOverride) -> object:
    # An override has no maps; of gpu_batch_size, say, only the number for its own benchmark can be meant.
    if fields.get(override.field) == "Map":
        return {override.benchmark: override.value}
    return override.value


def _no_entry(config: SystemConfig, benchmark: str, scenario: Scenario, version: ConfigVersion) -> str:
    possible = sorted(f"{e.benchmark} {e.scenario.value} {e.config_version.value}" for e in config.configs)
    wanted = f"{benchmark} {scenario.value} {version.value}"
    return f"{config.system} has no values for {wanted}; there are: {', '.join(possible)}"


def _custom_py(system: str, entry: ConfigEntry, values: Mapping[str, Value]) -> str:
    harness_type, accuracy_target = _WORKLOADS[entry.config_version]
    default = entry.config_version is ConfigVersion.DEFAULT
    return _template("custom.py.j2").render(
        system=system,
        benchmark=entry.benchmark,
        scenario=entry.scenario.value,
        config_version=entry.config_version.value,
        harness_type=harness_type,
        accuracy_target=accuracy_target,
        class_name=system if default else f"{system}_{entry.config_version.value}",
        values=values,
    )


@cache
def _environment() -> Environment:
    # What is rendered is Python, not HTML: values are escaped by `literal`.
    environment = Environment(
        loader=PackageLoader("mlperf_operator"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - see above
    )
    environment.filters["literal"] = repr
    return environment


def _template(name: str) -> Template:
    return _environment().get_template(name)
