"""What `mlperf-operator gpu-config` does: the operator's own functions, for files on disk."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mlperf_operator.acceptance import CONFIG_POLICIES, refusal
from mlperf_operator.api.v1alpha1 import MLPerfRun
from mlperf_operator.gpu_config import built_in_for, value_problems
from mlperf_operator.gpu_config_schema import ConfigEntry, ConfigError, SystemConfig, load_yaml, parse_system_config
from mlperf_operator.limits import Limits, choices, no_suite
from mlperf_operator.resources.overrides import override_files, user_configs
from mlperf_operator.suites import Suite

_OVERRIDE = re.compile(r"(?P<benchmark>[^/=]+)/(?P<scenario>[^/=]+)/(?P<field>[^/=]+)=(?P<value>.*)", re.DOTALL)


@dataclass(frozen=True)
class Request:
    """What to render, as the options of the command line say it."""

    system: str
    suite: str
    benchmarks: Sequence[str] = ()
    scenarios: Sequence[str] = ()
    config_version: str = "Default"
    power_setting: str = "MaxP"
    values: Sequence[Path] = ()
    overrides: Sequence[str] = ()


def render(request: Request, suites: Mapping[str, Suite]) -> dict[str, str]:
    """Return the files that the ConfigMap of such a run carries, by path.

    Raises:
        ConfigError: there can be no such run, or a value is wrong.
    """
    suite = _suite(request.suite, suites)
    run = _run(request, suite)
    refused = refusal(run, Limits(suites=suites), CONFIG_POLICIES)
    if refused is not None:
        raise ConfigError(refused.message)
    texts = {name: text for path in request.values for name, text in read_texts(path).items()}
    source = ", ".join(str(path) for path in request.values)
    user = user_configs(texts, suite, request.system, source) if request.values else []
    return override_files(run, suite, user)


def write(files: Mapping[str, str], folder: Path) -> list[Path]:
    """Write files below a folder that is empty or not there, and return their paths.

    Raises:
        ConfigError: the folder holds something, which the harness could read too, or cannot be written.
    """
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(f"{folder} is not an empty folder; name another, or empty it")
        for name, text in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error.strerror}") from error
    return [folder / name for name in sorted(files)]


def listing(suites: Iterable[Suite], system: str | None = None) -> list[tuple[Suite, str, ConfigEntry]]:
    """Return the operator's own configurations that suites can run, as suite, system and entry in running order."""
    found = []
    for suite in suites:
        for name in sorted(suite.systems):
            config = built_in_for(suite, name)
            if config is not None and system in (None, name):
                found += [(suite, name, entry) for entry in _runnable(suite, config)]
    return found


def _runnable(suite: Suite, config: SystemConfig) -> list[ConfigEntry]:
    return [
        entry
        for benchmark, spec in suite.benchmarks.items()
        for scenario in spec.scenarios
        for entry in config.configs
        if (entry.benchmark, entry.scenario) == (benchmark, scenario) and entry.config_version in suite.config_versions
    ]


def check(path: Path, suites: Mapping[str, Suite], only: str | None = None) -> tuple[list[str], list[str]]:
    """Return what a user's file adds or changes, and what is wrong in it.

    Args:
        path: A file of the schema of gpu_configs/*.yaml, or a ConfigMap of such files.
        suites: The known suites.
        only: The suite to check against; all that the file names where it is None.

    Raises:
        ConfigError: the file cannot be read, or `only` is no suite.
    """
    told: list[str] = []
    problems: list[str] = []
    wanted = None if only is None else _suite(only, suites)
    for name, text in sorted(read_texts(path).items()):
        config = parse_system_config(text, name)
        unknown = sorted(set(config.suites) - set(suites))
        problems += [f"{name}: {no_suite(other, suites)}" for other in unknown]
        for suite in [wanted] if wanted else [suites[s] for s in config.suites if s in suites]:
            base = built_in_for(suite, config.system)
            problems += [f"{name}: {text}" for text in value_problems(suite, config, base)]
            told += [f"{name}: {suite.name} {config.system} {text}" for text in _told(suite, config, base)]
    return told, problems


def _told(suite: Suite, config: SystemConfig, base: SystemConfig | None) -> list[str]:
    lines = []
    for entry in config.configs:
        own = base.find(*entry.key) if base is not None else None
        changed = [name for name, value in entry.values.items() if own is None or own.values.get(name) != value]
        refused = suite.refused_config_versions.get(entry.config_version)
        unused = f" (not used: {refused})" if refused else ""
        lines.append(f"{entry.label}: {'adds' if own is None else 'changes'} {', '.join(changed) or 'nothing'}{unused}")
    return lines


def read_texts(path: Path) -> dict[str, str]:
    """Return the texts in a file by name: itself, or the files that a ConfigMap manifest holds.

    Raises:
        ConfigError: it cannot be read, or is a ConfigMap without files.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is no text") from error
    match load_yaml(text, str(path)):
        case {"kind": "ConfigMap", "data": {**data}} if data:
            return {f"{path}/{key}": str(value) for key, value in data.items()}
        case {"kind": "ConfigMap"}:
            raise ConfigError(f"{path} is a ConfigMap without data; each of its keys holds a file of values")
    return {str(path): text}


def _suite(name: str, suites: Mapping[str, Suite]) -> Suite:
    if name not in suites:
        raise ConfigError(no_suite(name, suites))
    return suites[name]


def _run(request: Request, suite: Suite) -> MLPerfRun:
    spec: dict[str, Any] = {
        "suite": request.suite,
        "system": request.system,
        "benchmarks": _benchmarks(request, suite),
        "configVersion": request.config_version,
        "powerSetting": request.power_setting,
        "gpuConfig": {"overrides": [_override(text) for text in request.overrides]},
    }
    try:
        return MLPerfRun.model_validate(
            {"metadata": {"name": "render", "namespace": "render", "uid": ""}, "spec": spec}
        )
    except ValidationError as error:
        problems = [f"{'.'.join(str(part) for part in e['loc'][1:])}: {e['msg']}" for e in error.errors()]
        raise ConfigError("; ".join(problems)) from error


def _benchmarks(request: Request, suite: Suite) -> list[dict[str, Any]]:
    """Return spec.benchmarks; of benchmarks that nobody named, those that have one of the scenarios."""
    scenarios = {"scenarios": list(request.scenarios)} if request.scenarios else {}
    if request.benchmarks:
        return [{"name": name, **scenarios} for name in request.benchmarks]
    own = {name: [s.value for s in b.scenarios] for name, b in suite.benchmarks.items()}
    fitting = {name: [s for s in has if s in (request.scenarios or has)] for name, has in own.items()}
    if not any(fitting.values()):
        possible = {scenario for has in own.values() for scenario in has}
        raise ConfigError(f"suite {suite.name} has no {', '.join(request.scenarios)}; possible: {choices(possible)}")
    return [{"name": name, "scenarios": has} for name, has in fitting.items() if has]


def _override(text: str) -> dict[str, str]:
    found = _OVERRIDE.fullmatch(text)
    if found is None:
        raise ConfigError(
            f"override {text} must be benchmark/Scenario/field=value, as bert/Server/server_target_qps=24000"
        )
    return found.groupdict()
