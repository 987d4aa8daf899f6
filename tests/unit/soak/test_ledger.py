"""A run that is gone is judged by hack/chaos's invariants, and forgotten with its Jobs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from chaos.audit import Write
from chaos.history import History
from fleet.reported import figure
from soak.ledger import forget, judge, part_of

COMPLETED = {"Completed"}


def run(uid: str, reason: str = "Completed") -> dict[str, Any]:
    succeeded = "True" if reason == "Completed" else "False"
    conditions = [
        {"type": "Finished", "status": "True", "reason": "Completed"},
        {"type": "Succeeded", "status": succeeded, "reason": reason},
    ]
    measured = {"benchmark": "bert", "scenario": "Offline", "mode": "PerformanceOnly"}
    results = [{**measured, "metric": {"name": "x", "value": figure(uid)}}]
    meta = {"namespace": "n", "name": f"run-{uid}", "uid": uid}
    return {"kind": "MLPerfRun", "metadata": meta, "status": {"conditions": conditions, "results": results}}


def job(uid: str, owner: str) -> dict[str, Any]:
    owners = [{"kind": "MLPerfRun", "name": f"run-{owner}", "uid": owner}]
    return {
        "kind": "Job",
        "metadata": {"namespace": "n", "name": f"run-{owner}", "uid": uid, "ownerReferences": owners},
    }


def history() -> History:
    jobs = {"j1": [job("j1", "1")], "j2": [job("j2", "2")]}
    return History(runs={"1": [run("1")], "2": [run("2")]}, jobs=jobs, gone={"1", "j1"})


def created(name: str) -> Write:
    return Write(datetime(2026, 1, 2, tzinfo=UTC), "chaos-soak-0", "create", "jobs", "n", name, 201)


def test_a_part_has_the_run_and_its_jobs_and_nothing_of_others() -> None:
    part = part_of(history(), ["1"])
    assert (list(part.runs), list(part.jobs)) == (["1"], ["j1"])


def test_what_was_judged_is_forgotten() -> None:
    whole = history()
    forget(whole, part_of(whole, ["1"]))
    assert (list(whole.runs), list(whole.jobs), list(whole.gone)) == (["2"], ["j2"], [])


def test_a_run_that_ended_as_it_may_is_fine_whoever_wrote() -> None:
    assert judge(part_of(history(), ["1"]), {"1": COMPLETED}, [created("run-1"), created("run-2")]) == []


def test_an_end_that_its_faults_do_not_allow_is_told() -> None:
    whole = history()
    whole.runs["1"] = [run("1", "JobDeleted")]
    [sentence] = judge(part_of(whole, ["1"]), {"1": COMPLETED}, ())
    assert "JobDeleted" in sentence
    assert judge(part_of(whole, ["1"]), {"1": {"JobDeleted"}}, ()) == []


def test_a_second_job_is_told_even_where_the_watch_saw_only_one() -> None:
    [sentence] = judge(part_of(history(), ["1"]), {}, [created("run-1"), created("run-1")])
    assert "audit log" in sentence
