"""Acting: the plan's actions carried out, each safe to repeat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlperf_operator import naming
from mlperf_operator.api.v1alpha1 import GROUP, KIND, MLPerfRun
from mlperf_operator.cluster import BY_KIND, JOBS, MLPERF_RUNS, ApiError, Cluster
from mlperf_operator.observed import JobRecord
from mlperf_operator.plan import Action, Create, DeleteJob, DeleteRun, SetSuspend


class NameTakenError(Exception):
    """An object of the wanted name belongs to somebody else, for good or until it is deleted."""

    def __init__(self, kind: str, name: str, *, deleting: bool) -> None:
        how = "exists and belongs to something else"
        if deleting:
            how = "is still being deleted with an earlier run of this name; delete it yourself if it stays"
        super().__init__(f"{kind} {name} {how}")
        self.deleting = deleting


async def act(
    cluster: Cluster, run: MLPerfRun, job: JobRecord | None, actions: Sequence[Action]
) -> Mapping[str, Any] | None:
    """Carry out the actions in order and return the body of the run's Job if it was made or found.

    Raises:
        NameTakenError: an object that the run needs is somebody else's.
        ApiError: the API server refused or did not answer.
    """
    made: Mapping[str, Any] | None = None
    for action in actions:
        match action:
            case Create(body):
                body = await _create(cluster, run, body)
                if body["kind"] == "Job" and body["metadata"]["name"] == naming.job_name(run):
                    made = body
            case SetSuspend(suspend):
                if job is not None:
                    await cluster.set_job_suspend(job.namespace, job.name, job.uid, suspend=suspend)
            case DeleteJob():
                if job is not None:
                    await cluster.delete(JOBS, job.namespace, job.name, job.uid)
            case DeleteRun():
                meta = run.metadata
                await cluster.delete(MLPERF_RUNS, meta.namespace, meta.name, meta.uid)
    return made


async def _create(cluster: Cluster, run: MLPerfRun, body: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        return {"kind": body["kind"], **await cluster.create(dict(body))}
    except ApiError as error:
        if error.status != 409 or error.reason != "AlreadyExists":
            raise
    kind, meta = body["kind"], body["metadata"]
    found = await cluster.get(BY_KIND[kind], meta["namespace"], meta["name"])
    if found is None:
        raise NameTakenError(kind, meta["name"], deleting=True)
    if not _is_ours(run, body, found):
        goes = "deletionTimestamp" in found["metadata"]
        if not goes and _of_earlier_run(run, found["metadata"]):
            goes = True
            await _collect(cluster, kind, found["metadata"])
        raise NameTakenError(kind, meta["name"], deleting=goes)
    return {**found, "kind": kind}


async def _collect(cluster: Cluster, kind: str, meta: Mapping[str, Any]) -> None:
    """Delete what an earlier run of the name left: the garbage collector would, but can miss that its owner went.

    To an informer that lists again, a run that was deleted and made again has merely changed. So has a Job: its name is
    free only when its pods are gone, or they would be missed in the same way.
    """
    try:
        await cluster.delete(BY_KIND[kind], meta["namespace"], meta["name"], meta["uid"], foreground=kind == "Job")
    except ApiError as error:
        # By RBAC, or by an admission policy such as the chart's own.
        if error.status not in (403, 422):
            raise


def _of_earlier_run(run: MLPerfRun, meta: Mapping[str, Any]) -> bool:
    # The name is this run's now, so an owner of that name and another uid is gone. With one more owner, which may be
    # there, the garbage collector would leave the object, too.
    owners = meta.get("ownerReferences") or ()
    return bool(owners) and all(
        owner["apiVersion"].startswith(f"{GROUP}/")
        and (owner["kind"], owner["name"]) == (KIND, run.metadata.name)
        and owner["uid"] != run.metadata.uid
        for owner in owners
    )


def _is_ours(run: MLPerfRun, wanted: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    meta = found["metadata"]
    labels = meta.get("labels") or {}
    if "ownerReferences" in wanted["metadata"]:
        # Labels are anybody's to copy.
        is_owned = any(owner["uid"] == run.metadata.uid for owner in meta.get("ownerReferences") or ())
        return is_owned and (wanted["kind"] != "ConfigMap" or _may_be_executed(run, wanted, found))
    # A claim outlives its run on purpose: the next run of that name finds its data there.
    return labels.get(naming.MANAGED_BY_LABEL) == naming.MANAGER and labels.get(naming.RUN_LABEL) == run.metadata.name


def _may_be_executed(run: MLPerfRun, wanted: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    """Say whether what a ConfigMap holds is ours: an owner is anybody's to name on an object of theirs.

    The chart's policies keep a run's labels for us. They may have been taken away where there are none.
    """
    if (found["metadata"].get("labels") or {}).get(naming.RUN_UID_LABEL) == run.metadata.uid:
        return True
    return found.get("immutable") is True and found.get("data") == wanted["data"] and not found.get("binaryData")
