"""Each invariant of hack/chaos finds the breach that it is there for, and nothing where there is none."""

from __future__ import annotations

import copy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from chaos.audit import Write
from chaos.history import History
from chaos.invariants import Evidence, broken

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
OWNED = {"kind": "MLPerfRun", "name": "demo", "uid": "u1"}


def run(*, ended: bool = True, figure: float | None = 1.5, reason: str = "Completed") -> dict[str, Any]:
    done = "True" if ended else "Unknown"
    succeeded = done if reason == "Completed" or not ended else "False"
    kinds = (("Succeeded", succeeded, reason), ("Finished", done, "Finished"), ("ResultsValid", done, "Valid"))
    conditions = [{"type": kind, "status": status, "reason": why} for kind, status, why in kinds]
    measured = {"benchmark": "bert", "scenario": "Offline", "mode": "PerformanceOnly"}
    results = [] if figure is None else [{**measured, "metric": {"name": "x", "value": figure}}]
    meta = {"namespace": "n", "name": "demo", "uid": "u1"}
    return {"kind": "MLPerfRun", "metadata": meta, "status": {"conditions": conditions, "results": results}}


def job(uid: str = "j1") -> dict[str, Any]:
    meta = {"namespace": "n", "name": "demo", "uid": uid, "ownerReferences": [OWNED]}
    return {"kind": "Job", "metadata": meta}


def write(second: float, user: str = "a", verb: str = "patch", resource: str = "mlperfruns/status") -> Write:
    return Write(START + timedelta(seconds=second), user, verb, resource, "n", "demo", 200)


def sound() -> Evidence:
    writes = [write(0, resource="leases"), write(1, verb="create", resource="jobs"), write(2)]
    return Evidence(
        history=History(runs={"u1": [run(ended=False, figure=None), run()]}, jobs={"j1": [job()]}),
        writes=writes,
        truths={"u1": {"Completed"}},
        figures={"u1": 1.5},
        rest=(START + timedelta(seconds=3), START + timedelta(seconds=9)),
    )


def with_runs(*states: dict[str, Any], **changes: Any) -> Evidence:
    evidence = sound()
    return replace(evidence, history=History(runs={"u1": list(states)}, jobs=evidence.history.jobs), **changes)


def test_what_went_well_breaks_nothing() -> None:
    assert broken(sound()) == []


def finalized() -> dict[str, Any]:
    body = copy.deepcopy(run())
    body["metadata"]["finalizers"] = ["kopf.zalando.org/KopfFinalizerMarker"]
    return body


CHILD = {"kind": "ConfigMap", "metadata": {"namespace": "n", "name": "demo-agent"}}
BREACHES = [
    (
        "one_job_a_run",
        replace(sound(), history=History(runs=sound().history.runs, jobs={"j1": [job()], "j2": [job()]})),
    ),
    ("one_job_a_run", replace(sound(), writes=[*sound().writes, write(2.5, verb="create", resource="jobs")])),
    ("results_are_the_runs_own", with_runs(run(figure=2.5))),
    ("no_result_is_lost", with_runs(run(), run(figure=None, reason="Lost"), truths={})),
    ("no_result_is_lost", with_runs(run(figure=None))),
    ("every_end_is_true", with_runs(run(ended=False))),
    ("every_end_is_true", with_runs(run(reason="PodStarting"))),
    ("every_end_is_true", replace(sound(), truths={"u1": {"Completed"}, "u2": {"Completed"}})),
    ("ends_are_final", with_runs(run(reason="PodStarting"), run())),
    ("nothing_is_left", replace(sound(), left=[CHILD])),
    ("no_finalizer_of_ours", with_runs(finalized())),
    ("no_write_at_rest", replace(sound(), writes=[*sound().writes, write(5)])),
    ("no_odd_line", replace(sound(), odd_lines=["Traceback (most recent call last):"])),
    (
        "one_leader_at_a_time",
        replace(sound(), writes=[*sound().writes, write(2.5, "b", resource="leases"), write(2.6)]),
    ),
]


@pytest.mark.parametrize(("invariant", "evidence"), BREACHES)
def test_a_breach_is_found_by_its_invariant(invariant: str, evidence: Evidence) -> None:
    found = {sentence.partition(":")[0] for sentence in broken(evidence)}
    assert invariant in found


def test_the_lease_may_be_renewed_at_rest_and_a_claim_may_stay() -> None:
    claim = {"kind": "PersistentVolumeClaim", "metadata": {"namespace": "n", "name": "demo-scratch"}}
    writes = [*sound().writes, write(5, resource="leases")]
    assert broken(replace(sound(), writes=writes, left=[claim])) == []


def test_a_write_that_the_server_refused_breaks_nothing() -> None:
    refused = replace(write(2.5, "b"), code=409)
    assert broken(replace(sound(), writes=[*sound().writes, refused])) == []


def test_only_what_the_network_delivered_late_may_come_from_a_former_leader() -> None:
    late = [*sound().writes, write(2.5, "b", resource="leases"), write(2.6)]
    assert broken(replace(sound(), writes=late, late=True)) == []
