"""The conditions: one table a policy."""

from __future__ import annotations

from typing import Any

import pytest

from mlperf_operator.api.v1alpha1 import Condition, ConditionStatus, ConditionType, MLPerfRun, ResultStatus
from mlperf_operator.limits import Refusal
from mlperf_operator.observed import Blocked, DriverView
from mlperf_operator.outcome import Outcome, Phase
from mlperf_operator.stages import Seen, stage_statuses
from mlperf_operator.suites import BUILT_IN
from mlperf_operator.verdicts.conditions import conditions
from mlperf_operator.verdicts.facts import Facts
from unit.core.builders import a100, done, failed, pod, result, run, up_to

ACTIVE = Outcome(Phase.ACTIVE, "Running", "stage run is running")
COMPLETED = Outcome(Phase.COMPLETED, "Completed", "done")
FAILED = Outcome(Phase.FAILED, "StageFailed", "stage build ended with exit code 65")
LOST = Outcome(Phase.COLLECTING, "ResultsNotCollected", "being read")
NOW = "2026-01-02T03:04:05Z"


def _facts(outcome: Outcome | None = ACTIVE, results: list[dict[str, Any]] | None = None, **spec: Any) -> Facts:
    """Return the facts of a run that asked for exactly these results, unless the spec says otherwise."""
    typed = tuple(ResultStatus.model_validate(r) for r in results) if results is not None else None
    asked = typed or ()
    scenarios = list(dict.fromkeys(r.scenario for r in asked)) or None
    modes = list(dict.fromkeys(r.mode.value for r in asked)) or ["PerformanceOnly"]
    base = {"benchmarks": [{"name": "digits", "scenarios": scenarios}], "testModes": modes}
    return Facts(run=run({**base, **spec}), suite=BUILT_IN["reference-cpu"], outcome=outcome, results=typed)


def _find(facts: Facts, kind: ConditionType) -> Condition:
    return next(c for c in conditions(facts, NOW) if c.type is kind)


T, F, U = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN
C = ConditionType
SLOW = {"expectations": [{"benchmark": "digits", "scenario": "Offline", "metric": "result_samples_per_second"}]}


def _expect(**bounds: str) -> dict[str, Any]:
    return {"expectations": [{**SLOW["expectations"][0], **bounds}]}


INVALID = result(validity="INVALID", message="Min duration satisfied : NO")
MISSING = result(validity=None, metric=None, missing="No registered config for digits")
FAILED_ACCURACY = result(
    mode="AccuracyOnly", accuracy=[{"name": "accuracy", "value": 61.5, "threshold": 95.3, "passed": False}]
)
SECOND_ITEM_FAILED = result(
    mode="AccuracyOnly",
    accuracy=[
        {"name": "rouge1", "value": 44.0, "threshold": 43.0, "passed": True},
        {"name": "rouge2", "value": 20.0, "threshold": 21.0, "passed": False},
    ],
)
UNJUDGED = result(mode="AccuracyOnly", accuracy=[{"name": "accuracy", "value": 61.5}])

TABLE: list[tuple[str, Facts, ConditionType, ConditionStatus, str, str]] = [
    ("nothing is known", _facts(None), C.SUCCEEDED, U, "Starting", ""),
    ("running", _facts(), C.SUCCEEDED, U, "Running", "stage run"),
    ("running is not finished", _facts(), C.FINISHED, F, "InProgress", ""),
    ("completed", _facts(COMPLETED, [result()]), C.SUCCEEDED, T, "Completed", ""),
    ("completed is finished", _facts(COMPLETED, [result()]), C.FINISHED, T, "Completed", ""),
    ("failed", _facts(FAILED), C.SUCCEEDED, F, "StageFailed", "65"),
    ("failed is finished", _facts(FAILED), C.FINISHED, T, "StageFailed", ""),
    ("failed has no verdict", _facts(FAILED), C.RESULTS_VALID, U, "NoResults", ""),
    ("lost results are no success", _facts(LOST), C.SUCCEEDED, U, "ResultsNotCollected", ""),
    ("lost results have no verdict", _facts(LOST), C.RESULTS_VALID, U, "ResultsNotCollected", ""),
    ("valid", _facts(COMPLETED, [result(), result("Server")]), C.RESULTS_VALID, T, "Valid", "2 of 2"),
    (
        "valid but short",
        _facts(COMPLETED, [result(minDurationMet=False)]),
        C.RESULTS_VALID,
        T,
        "Valid",
        "shorter than MLPerf's ten minutes",
    ),
    ("one invalid of two", _facts(COMPLETED, [result("Server"), INVALID]), C.RESULTS_VALID, F, "Invalid", "NO"),
    ("invalid is a completed run", _facts(COMPLETED, [INVALID]), C.SUCCEEDED, T, "Completed", ""),
    ("missing", _facts(COMPLETED, [result("Server"), MISSING]), C.RESULTS_VALID, F, "Missing", "No registered"),
    (
        "only accuracy asked",
        _facts(COMPLETED, [result(mode="AccuracyOnly")]),
        C.RESULTS_VALID,
        U,
        "NotRequested",
        "PerformanceOnly",
    ),
    (
        "a pair that the report does not name",
        _facts(COMPLETED, [result()], benchmarks=[{"name": "digits", "scenarios": ["Offline", "Server"]}]),
        C.RESULTS_VALID,
        F,
        "Missing",
        "digits Server: not in the report",
    ),
    (
        "a mode that the report does not name",
        _facts(COMPLETED, [result()], testModes=["PerformanceOnly", "AccuracyOnly"]),
        C.ACCURACY_MET,
        F,
        "Missing",
        "digits Offline: not in the report",
    ),
    ("an empty report", _facts(COMPLETED, []), C.RESULTS_VALID, F, "Missing", "not in the report"),
    (
        "an accuracy that names no threshold and did not pass",
        _facts(
            COMPLETED,
            [result(mode="AccuracyOnly", accuracy=[{"name": "accuracy", "value": 61.5, "passed": False}])],
        ),
        C.ACCURACY_MET,
        F,
        "BelowThreshold",
        "did not pass",
    ),
    ("accuracy met", _facts(COMPLETED, [result(mode="AccuracyOnly")]), C.ACCURACY_MET, T, "Met", "97"),
    (
        "accuracy failed",
        _facts(COMPLETED, [FAILED_ACCURACY]),
        C.ACCURACY_MET,
        F,
        "BelowThreshold",
        "61.5 is below 95.3",
    ),
    (
        "the second item decides too",
        _facts(COMPLETED, [SECOND_ITEM_FAILED]),
        C.ACCURACY_MET,
        F,
        "BelowThreshold",
        "rouge2",
    ),
    ("no threshold is no pass", _facts(COMPLETED, [UNJUDGED]), C.ACCURACY_MET, U, "NoThreshold", "61.5"),
    ("accuracy not asked", _facts(COMPLETED, [result()]), C.ACCURACY_MET, U, "NotRequested", "AccuracyOnly"),
    ("expected nothing", _facts(COMPLETED, [result()]), C.EXPECTATIONS_MET, U, "NoExpectations", ""),
    ("fast enough", _facts(COMPLETED, [result()], **_expect(min="1234.5")), C.EXPECTATIONS_MET, T, "Met", "1 of 1"),
    (
        "too slow",
        _facts(COMPLETED, [result()], **_expect(min="1234.6")),
        C.EXPECTATIONS_MET,
        F,
        "NotMet",
        "below 1234.6",
    ),
    ("not too high", _facts(COMPLETED, [result()], **_expect(max="1234.5")), C.EXPECTATIONS_MET, T, "Met", ""),
    (
        "another metric",
        _facts(COMPLETED, [result()], expectations=[{**SLOW["expectations"][0], "metric": "other", "min": "1"}]),
        C.EXPECTATIONS_MET,
        F,
        "NotMet",
        "no such metric",
    ),
    ("no stage is known", _facts(), C.PREPARED, F, "Preparing", "0 of 0"),
    ("too high", _facts(COMPLETED, [result()], **_expect(max="1000")), C.EXPECTATIONS_MET, F, "NotMet", "above 1000"),
    (
        "no such metric",
        _facts(COMPLETED, [result("Server")], **_expect(min="1")),
        C.EXPECTATIONS_MET,
        F,
        "NotMet",
        "no such metric",
    ),
    ("a suite without a driver", _facts(), C.DRIVER_READY, T, "NotRequired", ""),
]


@pytest.mark.parametrize(
    ("case", "facts", "kind", "status", "reason", "word"), TABLE, ids=[f"{row[0]}" for row in TABLE]
)
def test_a_condition_says_what_the_facts_say(
    case: str, facts: Facts, kind: ConditionType, status: ConditionStatus, reason: str, word: str
) -> None:
    found = _find(facts, kind)
    assert (found.status, found.reason) == (status, reason), case
    assert word in found.message


def test_a_refused_run_is_finished_and_not_succeeded() -> None:
    facts = Facts(run=run(), refusal=Refusal("UnknownSuite", "suite x is not there"))
    assert _find(facts, C.ACCEPTED).status is F
    assert _find(facts, C.SUCCEEDED).status is F
    assert _find(facts, C.FINISHED).status is T
    assert _find(facts, C.RESULTS_VALID).status is U


@pytest.mark.parametrize(
    ("facts_run", "stage", "status", "reason"),
    [
        (a100(), "preflight", U, "NotVerified"),
        (a100(), "build", T, "Verified"),
        (a100(driver={"policy": "Ignore"}), "build", U, "Ignored"),
    ],
)
def test_the_driver_is_ready_only_once_preflight_saw_it(
    facts_run: MLPerfRun, stage: str, status: ConditionStatus, reason: str
) -> None:
    stages = tuple(stage_statuses(pod(up_to(stage))))
    facts = Facts(run=facts_run, suite=BUILT_IN["nvidia-v4.1"], outcome=ACTIVE, stages=stages)
    found = _find(facts, C.DRIVER_READY)
    assert (found.status, found.reason) == (status, reason)


def test_a_failed_preflight_is_a_driver_that_is_not_ready() -> None:
    stages = tuple(stage_statuses(pod([done("code"), failed("preflight", 64, reason="PreflightFailed")])))
    facts = Facts(run=a100(), suite=BUILT_IN["nvidia-v4.1"], outcome=FAILED, stages=stages)
    assert _find(facts, C.DRIVER_READY).status is F


@pytest.mark.parametrize(
    ("containers", "status", "reason", "word"),
    [
        (up_to("preflight"), F, "Preparing", "1 of 7"),
        (up_to("run"), T, "Prepared", ""),
        ([done("code"), failed("preflight")], F, "StageFailed", "preflight"),
        (
            [done(n, reason="Skipped") for n in ("code", "build")] + up_to("run")[1:6] + up_to("run")[7:],
            T,
            "Prepared",
            "",
        ),
    ],
)
def test_prepared_follows_the_init_stages(
    containers: list[Any], status: ConditionStatus, reason: str, word: str
) -> None:
    facts = Facts(
        run=run(), suite=BUILT_IN["reference-cpu"], outcome=ACTIVE, stages=tuple(stage_statuses(pod(containers)))
    )
    found = _find(facts, C.PREPARED)
    assert (found.status, found.reason) == (status, reason)
    assert word in found.message


def test_a_result_of_full_length_is_not_called_short() -> None:
    assert "shorter" not in _find(_facts(COMPLETED, [result()]), C.RESULTS_VALID).message


def test_a_message_fits_the_api_whatever_was_said() -> None:
    endless = result(validity=None, metric=None, missing="x" * 9999)
    assert len(_find(_facts(COMPLETED, [endless]), C.RESULTS_VALID).message) == 4096


def test_nobody_looked_at_the_driver_of_a_refused_run() -> None:
    refused = Facts(run=a100(), refusal=Refusal("UnknownSuite", "suite x is not there"))
    assert (_find(refused, C.DRIVER_READY).status, _find(refused, C.DRIVER_READY).reason) == (U, "NotVerified")
    assert (_find(refused, C.PREPARED).status, _find(refused, C.PREPARED).reason) == (F, "UnknownSuite")


def test_a_run_that_ended_before_its_stages_says_why_it_is_not_prepared() -> None:
    facts = Facts(run=run(), suite=BUILT_IN["reference-cpu"], outcome=FAILED, stages=tuple(stage_statuses(None)))
    assert (_find(facts, C.PREPARED).status, _find(facts, C.PREPARED).reason) == (F, "StageFailed")


def test_the_transition_time_moves_only_when_the_status_does() -> None:
    stored = {
        "conditions": [
            {"type": "Finished", "status": "False", "reason": "Other", "lastTransitionTime": "2020-01-01T00:00:00Z"},
            {"type": "Succeeded", "status": "False", "reason": "Other", "lastTransitionTime": "2020-01-01T00:00:00Z"},
        ]
    }
    facts = Facts(run=run(status=stored), suite=BUILT_IN["reference-cpu"], outcome=ACTIVE)
    assert _find(facts, C.FINISHED).last_transition_time == "2020-01-01T00:00:00Z"
    assert _find(facts, C.FINISHED).reason == "InProgress"
    assert _find(facts, C.SUCCEEDED).last_transition_time == NOW


WAITS = Blocked("DriverInstalling", "node node-1 gets driver 550.54.14")


def _view(**changes: Any) -> DriverView:
    base: dict[str, Any] = {
        "node": "node-1",
        "ready": True,
        "working": False,
        "claimed": True,
        "reason": "Matched",
        "message": "",
        "version": "550.54.14",
        "fabric_manager": "550.54.14",
        "managed_by": "mlperf-operator",
    }
    return DriverView(**{**base, **changes})


UNREADY = _view(ready=False)
FULL = _view(ready=False, reason="DiskFull", message="free space")
WORKS = _view(ready=False, working=True, reason="DriverInstalling", message="gets driver 550.54.14")
DRIVER: list[tuple[str, Blocked | None, DriverView | None, ConditionStatus, str, str]] = [
    ("nothing is known", None, None, U, "NotVerified", "preflight"),
    ("no node fits", Blocked("NoNodeFits", "node-1 is not Ready"), None, F, "NoNodeFits", "node-1 is not Ready"),
    ("nobody opted in", Blocked("NoNodeOptedIn", "label it"), None, F, "NoNodeOptedIn", "label it"),
    ("another driver", Blocked("NodeDriverConflict", "by bench/a"), None, F, "NodeDriverConflict", "bench/a"),
    ("every node is managed", Blocked("NodeManaged", "by others"), None, F, "NodeManaged", "by others"),
    ("busy", Blocked("GPUInUse", "by team/train"), None, F, "GPUInUse", "team/train"),
    ("just claimed", WAITS, None, U, "NotVerified", ""),
    ("at work", WAITS, WORKS, U, "DriverInstalling", "gets driver"),
    ("failed", Blocked("DiskFull", "node node-1: free space"), FULL, F, "DiskFull", "node node-1: free space"),
    ("failed and something else is missing", Blocked("ConfigMapNotFound", "x"), FULL, F, "DiskFull", "free space"),
    ("failed while the pod waits for the node", None, FULL, F, "DiskFull", "free space"),
    ("the node has another driver than wanted", None, _view(version="535.183.01"), U, "NotVerified", "preflight"),
    ("too many runs", Blocked("NodeClaimsFull", "100 runs"), None, F, "NodeClaimsFull", "100 runs"),
    ("a node without NVSwitch", Blocked("FabricManagerMissing", "none"), _view(), F, "FabricManagerMissing", "none"),
    ("something else is missing", Blocked("ConfigMapNotFound", "x"), None, U, "NotVerified", ""),
    ("suspended", Blocked("Suspended", "spec.suspend"), None, U, "NotVerified", ""),
    ("ready", None, _view(), T, "NodeReady", "node node-1 has driver 550.54.14 and fabric manager 550.54.14"),
    ("ready without NVSwitch", None, _view(fabric_manager=None), T, "NodeReady", "has driver 550.54.14"),
    ("the pod's node is watched", None, _view(claimed=False), T, "NodeReady", "node-1"),
    ("watched and not ready", None, _view(ready=False, claimed=False), U, "NotVerified", ""),
]


@pytest.mark.parametrize(
    ("case", "blocked", "view", "status", "reason", "word"), DRIVER, ids=[row[0] for row in DRIVER]
)
def test_before_preflight_the_driver_is_as_its_node_says(
    case: str,
    blocked: Blocked | None,
    view: DriverView | None,
    status: ConditionStatus,
    reason: str,
    word: str,
) -> None:
    facts = Facts(run=a100(), suite=BUILT_IN["nvidia-v4.1"], outcome=ACTIVE, blocked=blocked, driver=view)
    found = _find(facts, C.DRIVER_READY)
    assert (found.status, found.reason) == (status, reason), case
    assert word in found.message


@pytest.mark.parametrize(
    ("view", "word"),
    [
        (None, "nobody compared"),
        (FULL, "; node node-1 itself says DiskFull: free space"),
        (_view(ready=False, message=""), "; node node-1 itself says Matched"),
        (_view(), "working: node node-1 has driver 550.54.14 and fabric manager 550.54.14"),
    ],
)
def test_after_preflight_the_drivers_version_is_told_where_the_node_is_watched(
    view: DriverView | None, word: str
) -> None:
    stages = tuple(stage_statuses(pod(up_to("build"))))
    facts = Facts(run=a100(), suite=BUILT_IN["nvidia-v4.1"], outcome=ACTIVE, stages=stages, driver=view)
    found = _find(facts, C.DRIVER_READY)
    assert (found.status, found.reason) == (T, "Verified")
    assert word in found.message


def test_what_else_blocks_a_run_says_nothing_of_its_driver() -> None:
    blocked = Blocked("QuotaExceeded", "exceeded quota: jobs")
    facts = Facts(run=a100(), suite=BUILT_IN["nvidia-v4.1"], outcome=ACTIVE, blocked=blocked, driver=_view())
    found = _find(facts, C.DRIVER_READY)
    assert (found.status, found.reason) == (T, "NodeReady")


def test_a_failed_preflight_counts_more_than_what_the_node_says() -> None:
    stages = tuple(stage_statuses(pod([done("code"), failed("preflight", 64, reason="PreflightFailed")])))
    facts = Facts(run=a100(), suite=BUILT_IN["nvidia-v4.1"], outcome=FAILED, stages=stages, driver=_view())
    assert (_find(facts, C.DRIVER_READY).status, _find(facts, C.DRIVER_READY).reason) == (F, "PreflightFailed")


@pytest.mark.parametrize(("findings", "status", "reason"), [(0, T, "Verified"), (2, F, "PreflightFailed")])
def test_a_driver_is_blamed_only_for_its_own_findings(findings: int, status: ConditionStatus, reason: str) -> None:
    stages = tuple(stage_statuses(pod([done("code"), failed("preflight", 64, reason="PreflightFailed")])))
    seen = Seen(driver="550.54.14", count=8, gpu_findings=findings)
    facts = Facts(run=a100(), suite=BUILT_IN["nvidia-v4.1"], outcome=FAILED, stages=stages, seen=seen)
    found = _find(facts, C.DRIVER_READY)
    assert (found.status, found.reason) == (status, reason)
