"""What the names of a result's folders say: .../<variant>/<scenario>/performance/run_1 and its like.

The layout is that of MLCommons' submission rules (results and compliance); NVIDIA's harness writes
<LOG_DIR>/<system>/<variant>/<scenario>.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote

_SCENARIOS = {
    "offline": "Offline",
    "server": "Server",
    "singlestream": "SingleStream",
    "multistream": "MultiStream",
    "interactive": "Interactive",
}

_BELOW_SCENARIO = re.compile(
    r"(performance|accuracy|power|ranging|testing|run_\d+|TEST\d\d(-[A-Z])?|PerformanceOnly|AccuracyOnly)$",
    re.IGNORECASE,
)
"""Folders that stand between a scenario's folder and its logs."""

_SHARE = re.compile(r"-(95|99(\.9)?)$")


@dataclass(frozen=True)
class Place:
    """What the folders' names say.

    Attributes:
        scenario: In the official spelling.
        variant: Official name of the benchmark, such as bert-99.9.
        accuracy_run: Whether the logs lie in the accuracy folder of a submission.
        ranging: Whether the logs are of a power measurement's trial run.
        compliance: Whether the logs are of a compliance test, TEST01 and its like.
    """

    scenario: str | None
    variant: str | None
    accuracy_run: bool
    ranging: bool
    compliance: bool


def place_of(parts: Sequence[str], logged: str | None) -> Place:
    """Return what the names of a folder and those above it say.

    A folder called `server` somewhere above is no scenario: only the known folders of a submission may stand
    between, unless the name has the official spelling and is the scenario that was logged.
    """
    names = [unquote(part) for part in parts]
    below = 0
    while below < len(names) and _BELOW_SCENARIO.match(names[-1 - below]):
        below += 1
    inner = [name.lower() for name in names[len(names) - below :]]
    innermost = len(names) - below - 1
    candidates = range(innermost, 0, -1)
    found = next(
        (i for i in candidates if _is_logged(names[i], logged) or (i == innermost and scenario_of(names[i]))), 0
    )
    # Some submissions have the scenario's folder twice: bert-99.9/Server/Server/accuracy.
    above = next((name for name in reversed(names[:found]) if scenario_of(name) is None), "")
    return Place(
        scenario=scenario_of(names[found]) if found else None,
        variant=above.strip("/") or None,
        accuracy_run="accuracy" in inner or "accuracyonly" in inner,
        ranging="ranging" in inner,
        compliance=any(re.match(r"test\d\d", name) for name in inner),
    )


def scenario_of(text: str | None) -> str | None:
    """Return a scenario's official spelling; v1.0 logs say `Single Stream`, some folders `offline`."""
    return _SCENARIOS.get(re.sub(r"[\s_-]", "", text or "").lower())


def is_same_scenario(folder: str, logged: str) -> bool:
    """Whether a log may lie in a scenario's folder: LoadGen runs Interactive as Server."""
    return folder == logged or (folder, logged) == ("Interactive", "Server")


def short_name(variant: str | None) -> str | None:
    """Return a benchmark's name without its accuracy target: bert of bert-99.9."""
    return _SHARE.sub("", variant) if variant else None


def _is_logged(name: str, logged: str | None) -> bool:
    return logged is not None and name in _SCENARIOS.values() and is_same_scenario(name, logged)
