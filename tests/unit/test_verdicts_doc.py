"""docs/verdicts.md names every cause and every reason of a condition that the code has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mlperf_operator.api.v1alpha1 import Cause, ConditionType

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "operator/mlperf_operator"
WRAPPER = PACKAGE / "agent/wrapper"
PAGE = (ROOT / "docs/verdicts.md").read_text()
SOURCES = (
    *(
        "acceptance.py",
        "parity.py",
        "permissions.py",
        "verdicts/conditions.py",
        "verdicts/results.py",
        "verdicts/expectations.py",
        "verdicts/facts.py",
        "outcome.py",
        "waiting.py",
        "reconcile.py",
    ),
    *("inputs.py", "stages.py"),
    *sorted(f"agent/wrapper/{path.name}" for path in WRAPPER.glob("*.py") if "StageError(" in path.read_text()),
)
SAID = re.compile(
    r"(?:Verdict\(\w+,|Outcome\(Phase\.\w+,|Refusal\(|Blocked\(|StageError\(|_known\(\s*\"\w+\",|return \(?|reason = "
    r"|or )\s*\"([A-Z][A-Za-z]+)\""
)
OF_THE_NODE = re.compile(r"Driver(Installing|Draining)|Node[A-Z].*|NoNode.*|GPUInUse|FabricManagerMissing")
"""docs/driver.md has these."""

NO_REASONS = {"Error", "Skipped"}


def documented() -> set[str]:
    return set(re.findall(r"`([A-Z][A-Za-z]+)`", PAGE))


def rows(title: str) -> set[str]:
    """Return the names in the first column of the table below a heading."""
    section = PAGE.partition(f" {title}\n")[2].partition("\n#")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return {name for cell in cells for name in re.findall(r"`([A-Z][A-Za-z]+)`", cell)}


def test_every_cause_has_a_row_and_there_is_no_other() -> None:
    assert rows("Why a result is missing") == {cause.value for cause in Cause}


@pytest.mark.parametrize("source", SOURCES)
def test_every_reason_of_the_code_is_in_the_page(source: str) -> None:
    found = {name for name in SAID.findall((PACKAGE / source).read_text()) if not OF_THE_NODE.fullmatch(name)}
    assert found
    assert found - NO_REASONS <= documented()


@pytest.mark.parametrize(
    ("kind", "policy"),
    [
        (ConditionType.RESULTS_VALID, "results_valid"),
        (ConditionType.ACCURACY_MET, "accuracy_met"),
        (ConditionType.EXPECTATIONS_MET, "expectations_met"),
        (ConditionType.AUDITS_PASSED, "audits_passed"),
    ],
)
def test_each_condition_about_results_has_a_table_with_the_reasons_of_its_policy(
    kind: ConditionType, policy: str
) -> None:
    text = "".join((PACKAGE / "verdicts" / name).read_text() for name in ("results.py", "expectations.py"))
    own = text.partition(f"def {policy}(")[2].partition("\ndef ")[0]
    if kind is ConditionType.EXPECTATIONS_MET:
        own += text.partition("def _none_missed(")[2].partition("\ndef ")[0]
    assert set(SAID.findall(own)) <= rows(kind.value)


def test_the_page_has_no_reason_that_the_code_has_not() -> None:
    code = "\n".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    known = set(re.findall(r"\"([A-Z][A-Za-z]+)\"", code)) | {kind.value for kind in ConditionType}
    assert documented() <= known
