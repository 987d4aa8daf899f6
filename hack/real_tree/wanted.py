"""The runs that are held against the tree, and what the operator would create for them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

from mlperf_operator.api.v1alpha1 import ConfigVersion, MLPerfRun, PowerSetting
from mlperf_operator.cluster import Cluster
from mlperf_operator.gpu_config import built_in_for
from mlperf_operator.gpu_config_schema import ConfigEntry
from mlperf_operator.inputs import InputsReader
from mlperf_operator.plan import desired_objects
from mlperf_operator.settings import Settings
from mlperf_operator.suites import NVIDIA_V4_1, Suite

TRITON = {
    ConfigVersion.TRITON: ConfigVersion.DEFAULT,
    ConfigVersion.HIGH_ACCURACY_TRITON: ConfigVersion.HIGH_ACCURACY,
}
HARNESS = {version: "Triton" if version in TRITON else "Custom" for version in ConfigVersion}
ACCURACY = {version: "k_99_9" if "HighAccuracy" in version.value else "k_99" for version in ConfigVersion}


@dataclass(frozen=True)
class Objects:
    """What the operator creates for a run, as far as the tree meets it."""

    plan: dict[str, Any]
    files: dict[str, str]
    environment: dict[str, dict[str, str]] = field(repr=False)
    """Environment by container."""


def suites() -> tuple[Suite, Suite]:
    """Return the built-in suite, and what an administrator makes of it whose image brings the Triton harness."""
    benchmarks = {
        name: b.model_copy(update={"variants": b.variants | {t: b.variants[v] for t, v in TRITON.items()}})
        for name, b in NVIDIA_V4_1.benchmarks.items()
    }
    triton = {"name": "with-triton", "config_versions": tuple(TRITON), "benchmarks": benchmarks}
    return NVIDIA_V4_1, NVIDIA_V4_1.model_copy(update=triton)


def configurations(suite: Suite) -> Iterator[tuple[str, ConfigVersion, PowerSetting, list[ConfigEntry]]]:
    """Yield the configurations that the operator has for a suite, those that one run can have together."""
    for system in suite.systems:
        config = built_in_for(suite, system)
        for version in suite.config_versions:
            for power in PowerSetting:
                entries = config.configs if config is not None else ()
                found = [e for e in entries if (e.config_version, e.power_setting) == (version, power)]
                if found:
                    yield system, version, power, found


def run_of(suite: Suite, system: str, entries: list[ConfigEntry], **spec: object) -> MLPerfRun:
    """Return a run that asks for the configurations."""
    scenarios: dict[str, list[str]] = {}
    for entry in entries:
        scenarios.setdefault(entry.benchmark, []).append(entry.scenario.value)
    body = {
        "suite": suite.name,
        "system": system,
        "benchmarks": [{"name": name, "scenarios": own} for name, own in scenarios.items()],
        "configVersion": entries[0].config_version.value,
        "powerSetting": entries[0].power_setting.value,
        "scratch": {"claimName": "scratch"},
        **spec,
    }
    meta = {"name": "check", "namespace": "check", "uid": "00000000-0000-0000-0000-000000000000"}
    return MLPerfRun.model_validate({"metadata": meta, "spec": body})


def objects_of(run: MLPerfRun, suite: Suite) -> Objects:
    """Return what the operator itself would create."""
    # Nobody is asked for a ConfigMap of the user's: the run names none.
    inputs = asyncio.run(InputsReader(cast("Cluster", None), Settings()).read(run, suite))
    made = desired_objects(run, inputs)
    [job] = [body for body in made if body["kind"] == "Job"]
    [plan] = [body["data"]["plan.json"] for body in made if "plan.json" in body.get("data", {})]
    pod = job["spec"]["template"]["spec"]
    environment = {
        container["name"]: {e["name"]: e.get("value", "a-node") for e in container.get("env", [])}
        for container in (*pod["initContainers"], *pod["containers"])
    }
    return Objects(json.loads(plan), dict(inputs.override_files), environment)
