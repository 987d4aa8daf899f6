"""What the stages find in their environment about git and pip, and where an air-gapped run takes all from instead."""

from __future__ import annotations

from typing import Any

from mlperf_operator.api.v1alpha1 import MLPerfRun
from mlperf_operator.resources.steps import AGENT_PATH, PATHS
from mlperf_operator.suites import Suite

OFFLINE_PATH = f"{PATHS['scratch']}/offline"
GIT_CONFIG_KEY = "gitconfig"
"""Key of git's configuration in the run's ConfigMap, and so its name in /agent."""

_SAFE = """\
[include]
\tpath = ~/.gitconfig
# Volumes belong to other users than the container's.
[safe]
\tdirectory = *
"""
_LOCAL_SUBMODULES = """\
# A submodule's URL may lead to scratch.
[protocol "file"]
\tallow = always
"""


def environment(run: MLPerfRun) -> dict[str, str]:
    """Return the environment of every stage's commands.

    A file, because git hands GIT_CONFIG_COUNT neither to submodules nor to the other end of a local clone.
    """
    found = {"GIT_CONFIG_GLOBAL": f"{AGENT_PATH}/{GIT_CONFIG_KEY}"}
    if run.spec.environment.offline:
        found |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": f"{OFFLINE_PATH}/wheels"}
    return found


def git_config(run: MLPerfRun, suite: Suite) -> str:
    """Return git's configuration for the run's containers; offline its URLs lead to scratch."""
    if not run.spec.environment.offline:
        return _SAFE
    local = "".join(
        f"[url {_quoted(f'file://{path}')}]\n\tinsteadOf = {_quoted(url)}\n"
        for url, path in offline_repositories(run, suite).items()
    )
    return _SAFE + _LOCAL_SUBMODULES + local


def _quoted(text: str) -> str:
    # git-config(1): in quotes only these two need a backslash.
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def offline_repositories(run: MLPerfRun, suite: Suite) -> dict[str, str]:
    """Return where on scratch an offline run looks for each git repository that it needs, by URL."""
    names = dict(suite.offline_git)
    url = suite.code.git_url
    if run.spec.code is None and url is not None:
        name = url.rstrip("/").rpartition("/")[2]
        names.setdefault(url, name if name.endswith(".git") else f"{name}.git")
    return {url: f"{OFFLINE_PATH}/git/{name}" for url, name in names.items()}


def offline_checks(run: MLPerfRun, suite: Suite) -> dict[str, Any] | None:
    """Return what preflight looks for on scratch before an offline run, None for others."""
    if not run.spec.environment.offline:
        return None
    return {
        "repositories": list(offline_repositories(run, suite).values()),
        "files": [f"{OFFLINE_PATH}/wheels/{pattern}" for pattern in suite.offline_wheels],
    }
