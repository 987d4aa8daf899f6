"""docs/driver.md names every reason that somebody may read, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from mlperf_operator.driver_report import REMEDIES, Reason

ROOT = Path(__file__).parents[2]
SOURCES = (
    *("nodes/choice.py", "nodes/next_step.py", "nodes/prepare.py", "nodes/step.py", "nodes/watch.py"),
    *("driver_keeper.py", "acceptance.py"),
)
PHRASE = re.compile(r'"((?:Driver|Node|GPU|NoNode)[A-Z][A-Za-z]+)"')
OTHERS = {"GPUCountMismatch", "GPUAccessNotPossible", "GPUAccessNotAllowed", "NoDriverNeeded"}
"""Reasons of acceptance.py that are not about a node's driver."""


def documented() -> set[str]:
    rows = [line.split("|")[1] for line in (ROOT / "docs/driver.md").read_text().splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`([A-Z][A-Za-z]+)`", row)}


def from_the_cluster() -> set[str]:
    package = ROOT / "operator/mlperf_operator"
    found = {name for source in SOURCES for name in PHRASE.findall((package / source).read_text())}
    return found - OTHERS


def test_no_diagram_has_a_semicolon_which_ends_a_statement_in_mermaid() -> None:
    for page in ("docs/driver.md", "docs/architecture.md"):
        blocks = re.findall(r"```mermaid\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
        assert blocks
        assert not [line for block in blocks for line in block.splitlines() if ";" in line]


def test_every_reason_has_a_remedy() -> None:
    assert set(REMEDIES) == set(Reason)
    assert all(REMEDIES.values())


def test_every_reason_is_explained_and_nothing_else() -> None:
    known = {reason.value for reason in Reason} | from_the_cluster()
    assert documented() == known
