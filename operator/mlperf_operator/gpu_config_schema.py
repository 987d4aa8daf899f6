"""The schema of gpu_configs/*.yaml, which a user's ConfigMap has too: read, and laid over each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

import yaml
from pydantic import Field, ValidationError

from mlperf_operator.api.v1alpha1 import ConfigVersion, PowerSetting, Scenario
from mlperf_operator.models import Strict


class ConfigError(Exception):
    """Configuration values cannot be used; the message names every problem and what is possible."""


_MAX_PROBLEMS = 20
_MAX_NUMBER = 64


class _Loader(yaml.SafeLoader):
    """Without aliases: a small text with nested ones stands for gigabytes, and anybody may write a ConfigMap."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="aliases (*name) are not allowed; write it out", problem_mark=mark)
        return super().compose_node(parent, index)

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        """Return a number of a length that a value can have: YAML's 1:30:00 takes its time over a long one."""
        if len(node.value) > _MAX_NUMBER:
            problem = f"a number of more than {_MAX_NUMBER} characters"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        is_int = node.tag.endswith(":int")
        return self.construct_yaml_int(node) if is_int else self.construct_yaml_float(node)


for _tag in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _Loader.construct_number)


class ConfigEntry(Strict):
    """The values of one benchmark, scenario, config version and power setting."""

    benchmark: str = Field(description="Benchmark, such as bert.")
    scenario: Scenario = Field(description="LoadGen scenario.")
    config_version: ConfigVersion = Field(default=ConfigVersion.DEFAULT, description="Config version.")
    power_setting: PowerSetting = Field(default=PowerSetting.MAX_P, description="MaxP, or MaxQ with a power limit.")
    values: dict[str, Any] = Field(description="Fields of the harness's config class.")
    origin: str = Field(min_length=1, description="Where the values come from, and how derived ones were derived.")

    @property
    def key(self) -> tuple[str, Scenario, ConfigVersion, PowerSetting]:
        """What the values are for: an entry of the same key lies over this one."""
        return self.benchmark, self.scenario, self.config_version, self.power_setting

    @property
    def label(self) -> str:
        """The key as messages name it, such as `3d-unet Offline Default MaxQ`."""
        return label(*self.key)


def label(benchmark: str, scenario: Scenario, version: ConfigVersion, power: PowerSetting) -> str:
    """Return how messages name a configuration; MaxP, which nearly all are, is left out."""
    suffix = f" {power.value}" if power is not PowerSetting.MAX_P else ""
    return f"{benchmark} {scenario.value} {version.value}{suffix}"


class SystemConfig(Strict):
    """A file of gpu_configs/."""

    system: str = Field(description="System under test, as the suite names it.")
    suites: tuple[str, ...] = Field(min_length=1, description="Suites that have the system and take every entry.")
    configs: tuple[ConfigEntry, ...] = Field(description="The values.")

    def find(
        self, benchmark: str, scenario: Scenario, version: ConfigVersion, power: PowerSetting = PowerSetting.MAX_P
    ) -> ConfigEntry | None:
        """Return the last entry for a pair, config version and power setting."""
        found = [entry for entry in self.configs if entry.key == (benchmark, scenario, version, power)]
        return found[-1] if found else None


def parse_system_config(text: str, name: str) -> SystemConfig:
    """Read a file of the schema of gpu_configs/*.yaml; `name` is for the error.

    Raises:
        ConfigError: it is no YAML or not of the schema.
    """
    document = load_yaml(text, name)
    try:
        return SystemConfig.model_validate(document)
    except ValidationError as error:
        problems = [f"{_place(e['loc'], document)}: {e['msg']}" for e in error.errors()[:_MAX_PROBLEMS]]
        more = [f"and {error.error_count() - _MAX_PROBLEMS} more"] if error.error_count() > _MAX_PROBLEMS else []
        raise ConfigError(f"{name}: {'; '.join([*problems, *more])}") from error


def load_yaml(text: str, name: str) -> object:
    """Read YAML that anybody may have written; `name` is for the error.

    Raises:
        ConfigError: it is no YAML, or uses aliases.
    """
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError, LookupError, AttributeError, TypeError) as error:
        # PyYAML lets some of Python's own errors through: a date with a 13th month, `!!bool maybe`, `!!int ''`.
        raise ConfigError(f"{name}: no YAML: {_yaml_problem(error)}") from error


def _yaml_problem(error: Exception) -> str:
    """Return what is wrong, without the text around it: who may start a run may not be allowed to read it."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"{error.problem} in line {error.problem_mark.line + 1}"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    unreadable = "a character" if isinstance(error, yaml.YAMLError) else "a value"
    return f"{unreadable} cannot be read ({type(error).__name__})"


def _place(loc: Sequence[int | str], document: object) -> str:
    """Name the place of a problem; an entry by its number and what it is for, as far as that can be read."""
    way = ".".join(str(part) for part in loc) or "file"
    match loc, document:
        case ["configs", int(index), *_], {"configs": [*entries]} if isinstance(entries[index], dict):
            names = [entries[index].get(key) for key in ("benchmark", "scenario")]
            said = " ".join(name for name in names if isinstance(name, str) and len(name) <= 40)
            return f"{way} ({said})" if said else way
    return way


@cache
def load_built_in() -> Mapping[str, SystemConfig]:
    """Return the operator's own values by system."""
    folder = resources.files("mlperf_operator").joinpath("gpu_configs")
    files = [file for file in folder.iterdir() if file.name.endswith(".yaml")]
    configs = [parse_system_config(file.read_text(encoding="utf-8"), file.name) for file in files]
    return {config.system: config for config in sorted(configs, key=lambda config: config.system)}


def merged(base: SystemConfig | None, user: Sequence[SystemConfig]) -> SystemConfig | None:
    """Return the base with a user's entries added; for the same pair and version the user's values win one by one."""
    for extra in user:
        if base is None:
            base = extra
            continue
        entries = [over(base, entry) for entry in extra.configs]
        base = base.model_copy(update={"configs": (*base.configs, *entries)})
    return base


def over(base: SystemConfig | None, entry: ConfigEntry) -> ConfigEntry:
    """Return the entry with the values of the base's entry of the same key below its own."""
    found = base.find(*entry.key) if base is not None else None
    return entry if found is None else entry.model_copy(update={"values": {**found.values, **entry.values}})
