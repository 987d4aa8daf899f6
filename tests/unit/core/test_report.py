"""Which reports of `collect` are believed."""

from __future__ import annotations

import hashlib
import json

import pytest

from mlperf_operator.observed import ContainerRecord, Kept
from mlperf_operator.report import ReportError, announced, parse_log, parse_part
from unit.core.builders import UID, result


def _line(uid: str = UID, scenario: str = "Offline") -> str:
    return json.dumps({"kind": "result", "uid": uid, "step": scenario, "result": result(scenario)}) + "\n"


def _closing(lines: list[str], uid: str = UID, count: int | None = None) -> tuple[str, str]:
    sha256 = hashlib.sha256("".join(lines).encode()).hexdigest()
    number = len(lines) if count is None else count
    return json.dumps({"kind": "report", "uid": uid, "count": number, "sha256": sha256}) + "\n", sha256


def test_a_whole_report_is_read_in_order() -> None:
    lines = [_line(), _line(scenario="Server")]
    closing, sha256 = _closing(lines)
    report = parse_log("".join(lines) + closing, UID, sha256)
    assert [r.scenario for r in report.results] == ["Offline", "Server"]


def test_lines_before_the_report_are_not_part_of_it() -> None:
    lines = [_line()]
    closing, sha256 = _closing(lines)
    assert len(parse_log("noise\n" + _line(scenario="Server") + "".join(lines) + closing, UID, sha256).results) == 1


def test_lines_of_another_kind_may_stand_between() -> None:
    lines = [_line(), _line(scenario="Server")]
    closing, sha256 = _closing(lines)
    log = f"{lines[0]}Traceback\n[[[\n{lines[1]}null\n{closing}noise\n"
    assert len(parse_log(log, UID, sha256).results) == 2


def test_of_a_pair_that_was_measured_again_the_last_line_counts() -> None:
    old, again = _line(), _line().replace("1234.5", "4321.5")
    lines = [_line(scenario="Server"), again]
    closing, sha256 = _closing(lines)
    report = parse_log("".join([old, *lines]) + closing, UID, sha256)
    assert [r.metric.value for r in report.results if r.metric is not None] == [1234.5, 4321.5]


@pytest.mark.parametrize("count", [-1, 3, "two", None])
def test_a_count_that_cannot_be_is_refused(count: object) -> None:
    lines = [_line(), _line(scenario="Server")]
    closing, sha256 = _closing(lines)
    with pytest.raises(ReportError, match="cut"):
        parse_log("".join(lines) + json.dumps({**json.loads(closing), "count": count}) + "\n", UID, sha256)


def test_a_cut_log_is_refused() -> None:
    lines = [_line(), _line(scenario="Server")]
    closing, sha256 = _closing(lines)
    with pytest.raises(ReportError, match="cut"):
        parse_log(lines[1] + closing, UID, sha256)
    with pytest.raises(ReportError, match="no report"):
        parse_log("".join(lines), UID, sha256)


def test_a_changed_log_is_refused() -> None:
    lines = [_line()]
    closing, sha256 = _closing(lines)
    with pytest.raises(ReportError, match="digest"):
        parse_log(lines[0].replace("1234.5", "9999.9") + closing, UID, sha256)


def test_a_report_of_another_announcement_is_refused() -> None:
    lines = [_line()]
    closing, _ = _closing(lines)
    with pytest.raises(ReportError, match="digest"):
        parse_log(lines[0] + closing, UID, "0" * 64)


def test_a_report_of_another_run_is_refused() -> None:
    lines = [_line("other-uid")]
    closing, sha256 = _closing(lines)
    with pytest.raises(ReportError, match="another run"):
        parse_log(lines[0] + closing, UID, sha256)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"metric": {"name": "m", "value": float("nan"), "unit": "ns"}}, "is no number"),
        ({"accuracy": [{"name": "a", "value": float("inf")}]}, "is no number"),
        ({"accuracy": [{"name": "a", "value": 1.0, "threshold": float("nan")}]}, "is no number"),
        ({"mode": "Other"}, "a result that is none"),
    ],
)
def test_a_result_that_the_api_cannot_hold_is_refused(changes: dict[str, object], why: str) -> None:
    line = json.dumps({"kind": "result", "uid": UID, "result": {**result(), **changes}}) + "\n"
    closing, sha256 = _closing([line])
    with pytest.raises(ReportError, match=why):
        parse_log(line + closing, UID, sha256)


def test_a_line_that_is_nested_without_end_is_noise() -> None:
    lines = [_line()]
    closing, sha256 = _closing(lines)
    assert len(parse_log(lines[0] + closing + "[" * 100_000, UID, sha256).results) == 1


@pytest.mark.parametrize(
    ("container", "why"),
    [
        (None, "not reported"),
        (ContainerRecord(name="collect", state="Running"), "not reported"),
        (ContainerRecord(name="collect", state="Terminated", exit_code=137), "without a report"),
        (ContainerRecord(name="collect", state="Terminated", message="[1]"), "without a report"),
        (
            ContainerRecord(name="collect", state="Terminated", message='{"kind": "report", "uid": "old"}'),
            "another run",
        ),
    ],
)
def test_only_an_ended_collect_of_this_run_announces_a_report(container: ContainerRecord | None, why: str) -> None:
    with pytest.raises(ReportError, match=why):
        announced(container, UID)


AUDIT = {"test": "TEST01", "benchmark": "digits", "variant": "digits-99", "scenario": "Offline", "passed": True}


def _audit_line(**changes: object) -> str:
    return json.dumps({"kind": "audit", "uid": UID, "step": "audit", "audit": {**AUDIT, **changes}}) + "\n"


def test_audits_are_counted_and_read_beside_the_results() -> None:
    lines = [_line(), _audit_line()]
    closing, sha256 = _closing(lines)
    report = parse_log("".join(lines) + closing, UID, sha256)
    assert [r.scenario for r in report.results] == ["Offline"]
    assert [(a.test, a.passed) for a in report.audits] == [("TEST01", True)]
    assert report.unverified == ""
    with pytest.raises(ReportError, match="digest"):
        parse_log(lines[0] + _audit_line(passed=False) + closing, UID, sha256)


def test_an_audit_that_the_api_cannot_hold_is_refused() -> None:
    line = _audit_line(test="TEST99")
    closing, sha256 = _closing([line])
    with pytest.raises(ReportError, match="an audit that is none"):
        parse_log(line + closing, UID, sha256)


DIGEST = "ab" * 32
URL = "s3://bucket/bench/demo/uid"


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (None, Kept()),
        ("text", Kept()),
        ({}, Kept()),
        ({"manifestSha256": DIGEST, "uploadedTo": URL}, Kept(manifest_sha256=DIGEST, uploaded_to=URL)),
        ({"manifestSha256": DIGEST.upper(), "uploadedTo": "bucket", "uploadError": ""}, Kept()),
        ({"manifestSha256": 5, "uploadedTo": f"{URL}\n", "uploadError": ["x"]}, Kept()),
        ({"uploadError": "x" * 5000}, Kept(upload_error="x" * 1024)),
    ],
)
def test_what_became_of_the_files_is_taken_as_far_as_it_is_well_formed(said: object, kept: Kept) -> None:
    lines = [_line()]
    closing, sha256 = _closing(lines)
    second = json.dumps({**json.loads(closing), "artifacts": said}) + "\n"
    report = parse_log("".join(lines) + closing + second, UID, sha256)
    assert (report.kept, len(report.results)) == (kept, 1)


def test_of_a_cut_log_the_lines_of_this_run_that_hold_something_are_read() -> None:
    broken = json.dumps({"kind": "result", "uid": UID, "step": "x", "result": {"mode": "Other"}}) + "\n"
    nan = _line(scenario="SingleStream").replace("1234.5", "NaN")
    log = _line() + _line("another", "Server") + broken + nan + _audit_line() + _line(scenario="Server")[:80]
    report = parse_part(log, UID, "cut")
    assert report is not None
    assert [r.scenario for r in report.results] == ["Offline"]
    assert [a.test for a in report.audits] == ["TEST01"]
    assert report.unverified == "cut"


@pytest.mark.parametrize("log", ["", "noise", _line("another"), _closing([])[0]])
def test_a_log_without_any_line_of_this_run_is_no_report(log: str) -> None:
    assert parse_part(log, UID, "cut") is None


def test_a_part_is_never_called_whole() -> None:
    report = parse_part(_line(), UID, "")
    assert report is not None
    assert report.unverified
