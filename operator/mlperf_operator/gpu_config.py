"""The harness's configuration values for a system: typed data in, the override files of the harness out.

Values come from gpu_configs/*.yaml, then a user's ConfigMap of the same schema, then spec.gpuConfig.overrides; the
later wins. They are checked against the fields that the harness has and written as Python literals, never as text.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from mlperf_operator.api.v1alpha1 import ConfigOverride, ConfigVersion, Scenario

Value = bool | int | float | str | dict[str, int]

_ACCURACY_TARGETS = {ConfigVersion.DEFAULT: "k_99", ConfigVersion.HIGH_ACCURACY: "k_99_9"}

_REFERENCE_FIELDS: dict[str, type] = {
    "offline_expected_qps": float,
    "server_target_qps": float,
    "server_target_latency_ns": int,
    "single_stream_expected_latency_ns": int,
    "min_duration": int,
    "min_query_count": int,
    "batch_size": int,
    "threads": int,
    "quantize_bits": int,
}

_NVIDIA_FIELDS: dict[str, type] = {
    "active_sms": int,
    "end_on_device": bool,
    "gpu_batch_size": dict,
    "gpu_copy_streams": int,
    "gpu_inference_streams": int,
    "graphs_max_seqlen": int,
    "instance_group_count": int,
    "min_duration": int,
    "min_query_count": int,
    "offline_expected_qps": float,
    "precision": str,
    "server_num_issue_query_threads": int,
    "server_target_qps": float,
    "single_stream_expected_latency_ns": int,
    "slice_overlap_patch_kernel_cg_impl": bool,
    "soft_drop": float,
    "start_from_device": bool,
    "use_graphs": bool,
    "use_small_tile_gemm_plugin": bool,
    "workspace_size": int,
}

FIELDS: Mapping[str, Mapping[str, type]] = {"reference-cpu": _REFERENCE_FIELDS, "nvidia-v4.1": _NVIDIA_FIELDS}
"""Fields by suite, with the type of their value. An administrator's suite has NVIDIA's."""


class ConfigError(Exception):
    """Configuration values cannot be used; the message names every problem and what is possible."""


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)


class ConfigEntry(_Data):
    """The values of one benchmark, scenario and config version."""

    benchmark: str = Field(description="Benchmark, such as bert.")
    scenario: Scenario = Field(description="LoadGen scenario.")
    config_version: ConfigVersion = Field(default=ConfigVersion.DEFAULT, description="Config version.")
    values: dict[str, Any] = Field(description="Fields of the harness's config class.")
    origin: str = Field(description="Where the values come from.")


class SystemConfig(_Data):
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
        return SystemConfig.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise ConfigError(f"{name}: no YAML: {error}") from error
    except ValidationError as error:
        problems = [f"{'.'.join(str(p) for p in e['loc']) or 'file'}: {e['msg']}" for e in error.errors()]
        raise ConfigError(f"{name}: {'; '.join(problems)}") from error


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
    suite: str,
    config: SystemConfig,
    pairs: Iterable[tuple[str, Scenario]],
    version: ConfigVersion,
    overrides: Sequence[ConfigOverride] = (),
) -> dict[str, str]:
    """Return the override files by path, for MLPINF_CUSTOM_DEFINITION_PATH, and Makefile.docker.

    Every requested pair gets a custom.py: with that variable set the harness reads nothing else, so a pair without one
    has no configuration at all.

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
        own = {o.field: o.value for o in overrides if (o.benchmark, o.scenario) == (benchmark, scenario)}
        values, wrong = _checked(suite, {**entry.values, **own})
        problems += [f"{benchmark} {scenario.value}: {problem}" for problem in wrong]
        files[f"custom_configs/{benchmark}/{scenario.value}/custom.py"] = _custom_py(config.system, entry, values)
    if problems:
        raise ConfigError("; ".join(problems))
    return files


def _no_entry(config: SystemConfig, benchmark: str, scenario: Scenario, version: ConfigVersion) -> str:
    possible = sorted(f"{e.benchmark} {e.scenario.value} {e.config_version.value}" for e in config.configs)
    wanted = f"{benchmark} {scenario.value} {version.value}"
    return f"{config.system} has no values for {wanted}; there are: {', '.join(possible)}"


def _checked(suite: str, values: Mapping[str, Any]) -> tuple[dict[str, Value], list[str]]:
    fields = FIELDS.get(suite, _NVIDIA_FIELDS)
    good: dict[str, Value] = {}
    problems = []
    for name, value in values.items():
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            problems.append(f"there is no field {name}{hint} Possible: {', '.join(sorted(fields))}")
            continue
        try:
            good[name] = _coerced(value, fields[name])
        except ValueError:
            problems.append(f"{name} must be {_TYPE_NAMES[fields[name]]}, not {value!r}")
    return good, problems


_TYPE_NAMES = {
    int: "an integer",
    float: "a number",
    bool: "true or false",
    str: "a word of letters, digits and _",
    dict: "a map of benchmark to integer",
}


def _coerced(value: object, kind: type) -> Value:
    """Return the value as the field's type; a string, as overrides have it, is read as one."""
    if kind is bool:
        return _boolean(value)
    if kind is dict and isinstance(value, dict):
        return {str(key): int(_number(number, int)) for key, number in value.items()}
    if kind is str and isinstance(value, str) and value.replace("_", "").isalnum():
        return value
    return _number(value, kind)


def _boolean(value: object) -> bool:
    if value in (True, "true"):
        return True
    if value in (False, "false"):
        return False
    raise ValueError(value)


def _number(value: object, kind: type) -> int | float:
    if kind not in (int, float) or isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(value)
    number = float(value)
    if not math.isfinite(number) or number < 0:
        raise ValueError(value)
    if number.is_integer():
        return int(number)
    if kind is int:
        raise ValueError(value)
    return number


def _custom_py(system: str, entry: ConfigEntry, values: Mapping[str, Value]) -> str:
    high = entry.config_version is ConfigVersion.HIGH_ACCURACY
    return _template("custom.py.j2").render(
        system=system,
        benchmark=entry.benchmark,
        scenario=entry.scenario.value,
        config_version=entry.config_version.value,
        accuracy_target=_ACCURACY_TARGETS[entry.config_version],
        class_name=f"{system}_HighAccuracy" if high else system,
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
