"""What must hold whatever happened: pure checks of what was recorded. Each returns a sentence for each breach."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise

from chaos.audit import Write
from chaos.history import History, Json, condition, finished
from mlperf_operator.naming import MANAGED_BY_LABEL, MANAGER, RUN_LABEL, RUN_UID_LABEL

_ENDS = ("Succeeded", "Finished", "ResultsValid", "AccuracyMet", "ExpectationsMet")
_OTHERS_FINALIZERS = frozenset({"foregroundDeletion", "orphan", "batch.kubernetes.io/job-tracking"})
"""Set by the garbage collector and the Job controller, which also take them away."""

_LEASES = "leases"
_RETAINED = frozenset({"PersistentVolumeClaim"})
"""Outlive their run on purpose."""


@dataclass
class Evidence:
    """What one scenario left behind."""

    history: History
    writes: Sequence[Write] = ()
    """Of the replicas, since the scenario began."""
    truths: Mapping[str, Collection[str]] = field(default_factory=dict)
    """By uid of a run: the reasons of Succeeded with which it may have ended."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """By uid of a run: the only figure that its results may have."""
    left: Sequence[Json] = ()
    """Objects of the operator's making that are there after every run was deleted."""
    odd_lines: Sequence[str] = ()
    """Lines of the replicas' logs that no operator should write."""
    rest: tuple[datetime, datetime] | None = None
    """From when until when nothing had happened that asks for a write."""
    late: bool = False
    """Whether the network may have delivered what a leader sent after it had lost the Lease."""


def one_job_a_run(evidence: Evidence) -> list[str]:
    """At most one Job of a name was ever made for a run's uid, by the watch and by the audit log."""
    owners = Counter((owner_of(states[0]), states[0]["metadata"]["name"]) for states in evidence.history.jobs.values())
    broken = [f"{count} Jobs {name} were made for run uid {uid}" for (uid, name), count in owners.items() if count > 1]
    runs = Counter(_place(states[0]) for states in evidence.history.runs.values())
    made = Counter(
        (w.namespace, w.name) for w in evidence.writes if (w.verb, w.resource) == ("create", "jobs") and w.done
    )
    for place, count in made.items():
        if place in runs and count > runs[place]:
            broken.append(f"{count} Jobs {place[1]} were made for {runs[place]} runs of that name, says the audit log")
    return broken


def owner_of(job: Json) -> str:
    """Return the uid of the run that a Job belongs to."""
    meta = job["metadata"]
    owners = [owner["uid"] for owner in meta.get("ownerReferences") or () if owner["kind"] == "MLPerfRun"]
    return str(owners[0] if owners else (meta.get("labels") or {}).get(RUN_UID_LABEL))


def _place(body: Json) -> tuple[str, str]:
    return body["metadata"]["namespace"], body["metadata"]["name"]


def results_are_the_runs_own(evidence: Evidence) -> list[str]:
    """No result carries a figure of another run."""
    broken = []
    for uid, states in evidence.history.runs.items():
        values = {float(r["metric"]["value"]) for r in _results(states) if r.get("metric")}
        foreign = values - {evidence.figures[uid]} if uid in evidence.figures else values
        broken += [f"run {_name(states)} tells the figure {value}, which is not its own" for value in sorted(foreign)]
    return broken


def _results(states: Sequence[Json]) -> Iterable[Json]:
    return (result for state in states for result in (state.get("status") or {}).get("results") or ())


def _name(states: Sequence[Json]) -> str:
    return f"{states[-1]['metadata']['name']} ({states[-1]['metadata']['uid']})"


def no_result_is_lost(evidence: Evidence) -> list[str]:
    """What a status told is told for ever, and a success tells a figure."""
    broken = []
    for states in evidence.history.runs.values():
        for before, after in pairwise(states):
            lost = _told(before) - _told(after)
            broken += [f"run {_name(states)} lost a result: {result}" for result in sorted(lost)]
        if condition(states[-1], "Succeeded")[0] == "True" and not _told(states[-1]):
            broken.append(f"run {_name(states)} succeeded without a figure")
    return broken


def _told(run: Json) -> set[tuple[str, str, str, str]]:
    return {
        (r["benchmark"], r["scenario"], r["mode"], str(r["metric"]["value"]))
        for r in _results([run])
        if r.get("metric")
    }


def every_end_is_true(evidence: Evidence) -> list[str]:
    """Every run has ended, with a reason that is true after what was done to it."""
    broken = []
    for uid, reasons in evidence.truths.items():
        states = evidence.history.runs.get(uid)
        if not states:
            broken.append(f"run uid {uid} was never seen")
        elif not finished(states[-1]):
            broken.append(f"run {_name(states)} has not ended: {condition(states[-1], 'Succeeded')}")
        elif condition(states[-1], "Succeeded")[1] not in reasons:
            told = condition(states[-1], "Succeeded")
            broken.append(f"run {_name(states)} ended as {told}, where only {sorted(reasons)} is true")
    return broken


def ends_are_final(evidence: Evidence) -> list[str]:
    """An end is never taken back or told otherwise."""
    broken = []
    for states in evidence.history.runs.values():
        for before, after in pairwise(states):
            changed = [kind for kind in _ENDS if condition(before, kind) != condition(after, kind)]
            if finished(before) and changed:
                broken.append(f"run {_name(states)} had ended, and then {', '.join(changed)} changed")
    return broken


def nothing_is_left(evidence: Evidence) -> list[str]:
    """After its run nothing of the operator's making stays, but for claims."""
    left = [body for body in evidence.left if body["kind"] not in _RETAINED]
    return [f"{body['kind']} {'/'.join(_place(body))} is left behind{_how(body)}" for body in left]


def _how(body: Json) -> str:
    meta = body["metadata"]
    owners = ", ".join(f"{owner['kind']} uid {owner['uid']}" for owner in meta.get("ownerReferences") or ())
    finalizers = ", ".join(meta.get("finalizers") or ())
    going = "" if "deletionTimestamp" not in meta else ", being deleted"
    return f" (owners: {owners or 'none'}; finalizers: {finalizers or 'none'}{going})"


def no_finalizer_of_ours(evidence: Evidence) -> list[str]:
    """Nothing waits for the operator before it goes."""
    bodies = [states[-1] for group in (evidence.history.runs, evidence.history.jobs) for states in group.values()]
    broken = []
    for body in [*bodies, *evidence.left]:
        ours = set(body["metadata"].get("finalizers") or ()) - _OTHERS_FINALIZERS
        broken += [f"{'/'.join(_place(body))} has the finalizer {finalizer}" for finalizer in sorted(ours)]
    return broken


def no_write_at_rest(evidence: Evidence) -> list[str]:
    """Where nothing changes nothing is written."""
    if evidence.rest is None:
        return []
    since, until = evidence.rest
    found = [w for w in evidence.writes if since <= w.at < until and w.resource != _LEASES]
    return [f"{w.user} did {w.verb} {w.resource} {w.namespace}/{w.name} at rest" for w in found]


def no_odd_line(evidence: Evidence) -> list[str]:
    """No exception is in any log."""
    return [f"a log has the line {line[:600]}" for line in evidence.odd_lines[:3]]


def one_leader_at_a_time(evidence: Evidence) -> list[str]:
    """Whoever wrote was who had written the Lease last."""
    broken, holder = [], ""
    for write in () if evidence.late else evidence.writes:
        if not write.done:
            continue
        if write.resource == _LEASES:
            holder = write.user
        elif write.user != holder:
            broken.append(f"{write.user} did {write.verb} {write.resource} {write.name} while {holder} led")
    return broken


def ours(bodies: Iterable[Json]) -> list[Json]:
    """Return the objects that carry the labels of a run's children."""

    def labels(body: Json) -> Mapping[str, str]:
        return body["metadata"].get("labels") or {}

    return [b for b in bodies if labels(b).get(MANAGED_BY_LABEL) == MANAGER and RUN_LABEL in labels(b)]


INVARIANTS: tuple[Callable[[Evidence], list[str]], ...] = (
    one_job_a_run,
    results_are_the_runs_own,
    no_result_is_lost,
    every_end_is_true,
    ends_are_final,
    nothing_is_left,
    no_finalizer_of_ours,
    no_write_at_rest,
    no_odd_line,
    one_leader_at_a_time,
)


def broken(evidence: Evidence) -> list[str]:
    """Return every breach of every invariant."""
    return [f"{check.__name__}: {sentence}" for check in INVARIANTS for sentence in check(evidence)]
