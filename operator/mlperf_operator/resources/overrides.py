"""The override files of a run: the same for the operator and for `mlperf-operator gpu-config render`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mlperf_operator.api.v1alpha1 import MLPerfRun
from mlperf_operator.gpu_config import Wanted, built_in_for, render_overrides, value_problems
from mlperf_operator.gpu_config_schema import ConfigError, SystemConfig, merged, parse_system_config
from mlperf_operator.resources.steps import requested_pairs
from mlperf_operator.suites import Suite

MAX_USER_BYTES = 64 * 1024
"""Most text of a user's files together; the largest of gpu_configs/ has 8 KiB.

The operator reads it between all else that it does: a full ConfigMap of hostile YAML, 1 MiB, takes 14 s, and the Lease
is lost after 10.
"""


def user_configs(texts: Mapping[str, str], suite: Suite, system: str, source: str) -> list[SystemConfig]:
    """Read a user's files and return those for a system of a suite, in the order of their names.

    Args:
        texts: The files' texts by name.
        suite: The suite of the run.
        system: The system of the run.
        source: Where the files are, for the error.

    Raises:
        ConfigError: the files are too large, one cannot be read, none is for the system and suite, or the suite cannot
            take what is in one; the message names file and entry.
    """
    size = sum(len(text.encode(errors="replace")) for text in texts.values())
    if size > MAX_USER_BYTES:
        raise ConfigError(f"{source} has {size} bytes of values; possible: up to {MAX_USER_BYTES}, all files together")
    parsed = {name: parse_system_config(text, name) for name, text in sorted(texts.items())}
    own = {name: c for name, c in parsed.items() if c.system == system and suite.name in c.suites}
    if not own:
        there = sorted({f"{c.system} of suites {', '.join(c.suites)}" for c in parsed.values()})
        raise ConfigError(
            f"{source} has no values for {system} of suite {suite.name}; it has: {'; '.join(there) or 'no file at all'}"
        )
    base = built_in_for(suite, system)
    problems = []
    for name, config in own.items():
        problems += [f"{name}: {text}" for text in value_problems(suite, config, base)]
        base = merged(base, [config])
    if problems:
        raise ConfigError("; ".join(problems))
    return list(own.values())


def override_files(run: MLPerfRun, suite: Suite, user: Sequence[SystemConfig] = ()) -> dict[str, str]:
    """Return the files that the run's ConfigMap carries, by path below MLPINF_CUSTOM_DEFINITION_PATH.

    Raises:
        ConfigError: a requested pair has no values, or a value is wrong.
    """
    config = merged(built_in_for(suite, run.spec.system), user)
    if config is None:
        raise ConfigError(
            f"there are no configuration values for {run.spec.system}; give them in gpuConfig.configMapRef"
        )
    wanted = Wanted(
        pairs=requested_pairs(run, suite),
        version=run.spec.config_version,
        power=run.spec.power_setting,
        overrides=run.spec.gpu_config.overrides if run.spec.gpu_config else (),
    )
    return render_overrides(suite, config, wanted)
