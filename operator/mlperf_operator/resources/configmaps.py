"""The run's two ConfigMaps: the stage wrapper with its plan, and the rendered overrides."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mlperf_operator import naming
from mlperf_operator.api.v1alpha1 import MLPerfRun
from mlperf_operator.resources.fetching import GIT_CONFIG_KEY, git_config
from mlperf_operator.suites import Suite

PLAN_KEY = "plan.json"


def agent_config_map(
    run: MLPerfRun, suite: Suite, plan: Mapping[str, Any], agent_files: Mapping[str, str]
) -> dict[str, Any]:
    """Build the ConfigMap that is mounted at /agent: the wrapper's files, plan.json, and git's configuration."""
    data = {
        **agent_files,
        GIT_CONFIG_KEY: git_config(run, suite),
        PLAN_KEY: json.dumps(plan, indent=1, sort_keys=True) + "\n",
    }
    return _config_map(run, naming.agent_config_map_name(run), data)


def gpu_config_map(run: MLPerfRun, files: Mapping[str, str]) -> dict[str, Any]:
    """Build the ConfigMap that is mounted at /overrides; its keys are the files' paths with `/` as `__`."""
    return _config_map(run, naming.gpu_config_map_name(run), {key_of(path): text for path, text in files.items()})


def key_of(path: str) -> str:
    """Return the ConfigMap key of a file: keys may hold no slash, and mounting by items puts it back."""
    return path.replace("/", "__")


def _config_map(run: MLPerfRun, name: str, data: Mapping[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": naming.metadata(run, name, "config"),
        "immutable": True,
        "data": dict(sorted(data.items())),
    }
