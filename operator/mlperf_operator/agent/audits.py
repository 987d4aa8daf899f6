"""Whether a compliance test passed: judged by the verification's own files, never by an exit code.

NVIDIA's handler (v4.1 code/actionhandler/run_audit.py) leaves <system>/<variant>/<scenario>/metadata.json with
`audit_test` and `audit_success`, and MLCommons' run_verification.py verify_performance.txt and verify_accuracy.txt
below it, in a folder named after the test. A test that a benchmark is exempt from says PASS, ends with 0 and leaves
nothing.
"""

from __future__ import annotations

import json
import math
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mlperf_operator.agent.causes import explain
from mlperf_operator.api.v1alpha1 import MAX_MESSAGE, AuditStatus, AuditTest
from mlperf_operator.results.accuracy import parse_accuracy
from mlperf_operator.results.files import Confined

_MAX_BYTES = 1024**2
_PERFORMANCE, _ACCURACY = "verify_performance.txt", "verify_accuracy.txt"
_FILES = {
    AuditTest.TEST01: (_PERFORMANCE, _ACCURACY),
    AuditTest.TEST04: (_PERFORMANCE,),
    AuditTest.TEST05: (_PERFORMANCE,),
    AuditTest.TEST06: (_ACCURACY,),
}
"""What each test's run_verification.py writes (mlcommons/inference, compliance/nvidia)."""

_PASS, _FAIL = "TEST PASS", "TEST FAIL"
_FIRST_CHECK = "First token check pass:"
_CHECKS = (_FIRST_CHECK, "EOS check pass:", "Sample length check pass:")
"""Lines of TEST06, each with True, False or Skipped."""

_TOLERANCE = 0.01
_TIGHT_TOLERANCE = 0.001
"""By how much the accuracy of TEST01's fallback may differ from the baseline's, of -99 and of -99.9 (its part III)."""


def judge(entry: Mapping[str, Any], record: Mapping[str, Any], results: Path) -> AuditStatus:
    """Return how a compliance test ended; whatever is in its files costs this entry at most."""
    try:
        passed, message = _judged(entry, record, Confined(results))
    except Exception as error:  # noqa: BLE001 - files of any content must cost one entry, never the report
        passed, message = None, f"the verification cannot be read: {type(error).__name__}: {error}"
    log_dir = Path(entry["logDir"])
    return AuditStatus(
        test=AuditTest(entry["test"]),
        benchmark=entry["benchmark"],
        variant=entry["variant"],
        scenario=entry["scenario"],
        passed=passed,
        logs=str(log_dir.relative_to(results)) if record.get("reason") == "Completed" else None,
        message=" ".join(message.split())[:MAX_MESSAGE],
    )


def _judged(entry: Mapping[str, Any], record: Mapping[str, Any], files: Confined) -> tuple[bool | None, str]:
    if record.get("reason") != "Completed":
        return None, explain(record).sentence
    test, log_dir = AuditTest(entry["test"]), Path(entry["logDir"])
    places = _places(log_dir, f"{entry['variant']}/{entry['scenario']}", files)
    if len(places) != 1:
        wanted = f"{entry['variant']} {entry['scenario']}"
        return None, f"{len(places)} metadata.json of {wanted} in {log_dir}, expected one: nothing was verified"
    metadata = files.read_object(places[0] / "metadata.json")
    if (metadata.get("audit_test"), metadata.get("benchmark_full")) != (test.value, entry["variant"]):
        said = f"{metadata.get('audit_test')} of {metadata.get('benchmark_full')}"
        return None, f"metadata.json is of {said[:200]}, asked for was {test.value} of {entry['variant']}"
    return _agreed(metadata.get("audit_success"), list(_said_by_files(test, places[0], entry["variant"], files)))


def _places(log_dir: Path, below: str, files: Confined) -> list[Path]:
    """Return the folders of a pair with a metadata.json, one a system."""
    folders = [log_dir / name / below for name, kind in files.listed(log_dir) if kind == stat.S_IFDIR]
    return [folder for folder in folders if _text(folder / "metadata.json", files) is not None]


def _agreed(success: object, said: list[tuple[bool | None, str]]) -> tuple[bool | None, str]:
    """Return the verdict that metadata.json and all files give together: any doubt is no pass."""
    told = "; ".join(text for _, text in said)
    if success is False or any(passed is False for passed, _ in said):
        return False, f"audit_success is {json.dumps(success)}; {told}"
    if success is not True or any(passed is None for passed, _ in said):
        return None, f"audit_success is {json.dumps(success)[:50]}; {told}"
    return True, told


def _said_by_files(test: AuditTest, folder: Path, variant: str, files: Confined) -> Iterator[tuple[bool | None, str]]:
    for name in _FILES[test]:
        text = _text(folder / test.value / name, files)
        if text is None:
            yield None, f"there is no {name}"
        elif test is AuditTest.TEST06:
            yield _all_checks(text), f"{name}: {_last(text)}"
        elif _FAIL not in text and any(line.startswith(_PASS) for line in text.splitlines()):
            yield True, f"{name}: {_last(text)}"
        elif test is AuditTest.TEST01 and name == _ACCURACY:
            yield _fallback(folder / test.value / "accuracy", variant, files)
        else:
            yield False, f"{name}: {_last(text)}"


def _all_checks(text: str) -> bool | None:
    """Judge TEST06 as NVIDIA's handler does: the first token may be skipped, and every check has to be there."""
    lines = [line.strip() for line in text.splitlines()]
    said = {name: {line.removeprefix(name).strip() for line in lines if line.startswith(name)} for name in _CHECKS}
    if any("False" in words for words in said.values()):
        return False
    wanted = {name: {"True"} for name in _CHECKS}
    is_skipped = said[_FIRST_CHECK] == {"Skipped"}
    return True if {**said, **({_FIRST_CHECK: {"True"}} if is_skipped else {})} == wanted else None


def _fallback(folder: Path, variant: str, files: Confined) -> tuple[bool | None, str]:
    """Judge TEST01's second way: answers may differ where the accuracy of both runs is the same, nearly."""
    texts = [_text(folder / name, files) for name in ("baseline_accuracy.txt", "compliance_accuracy.txt")]
    if any(text is None for text in texts):
        return False, f"{_ACCURACY} has no {_PASS}, and there are no accuracies of both runs to compare instead"
    scores = [{item.name: item.value for item in parse_accuracy(text, variant)} for text in texts if text is not None]
    baseline, compliance = scores
    if not baseline or set(baseline) != set(compliance):
        return None, "the accuracies of the two runs cannot be compared"
    tolerance = _TIGHT_TOLERANCE if variant.endswith("-99.9") else _TOLERANCE
    close = all(math.isclose(baseline[name], compliance[name], rel_tol=tolerance) for name in baseline)
    pairs = ", ".join(f"{name} {compliance[name]:g} of {baseline[name]:g}" for name in sorted(baseline))
    return close, f"answers differ; accuracy of both runs: {pairs}, {tolerance:.1%} may differ"


def _text(path: Path, files: Confined) -> str | None:
    file = files.find(path)
    if file is None:
        return None
    with file:
        return file.read(_MAX_BYTES).decode(errors="replace")


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith((_PASS, _FAIL, *_CHECKS))]
    return "; ".join((telling or lines)[-3:])[:300] or "it is empty"


def verdict(audit: AuditStatus) -> str:
    """Return a test's verdict in one word, for the counts of the termination message."""
    return {True: "AUDIT_PASSED", False: "AUDIT_FAILED", None: "AUDIT_UNJUDGED"}[audit.passed]
