"""The whole operator against a real API server and Job controller; there is no kubelet, so a test plays it."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from integration import api_server
from integration.operator_process import OperatorProcess, replica, until
from integration.test_cluster import run_body
from mlperf_operator.cluster import CONFIG_MAPS, EVENTS, JOBS, MLPERF_RUNS, PODS, Cluster, Resource
from mlperf_operator.resources.containers import PREPARE_STAGES

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1200)]

CHILDREN = ((JOBS, "demo"), (CONFIG_MAPS, "demo-agent"), (CONFIG_MAPS, "demo-gpu-config"))


class Watcher:
    """What a user sees of one namespace, and what a kubelet would do there."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace

    async def create(self, **spec: Any) -> dict[str, Any]:
        body = run_body(self.namespace)
        return await self.cluster.create({**body, "spec": {**body["spec"], **spec}})

    async def get(self, resource: Resource = MLPERF_RUNS, name: str = "demo") -> dict[str, Any] | None:
        return await self.cluster.get(resource, self.namespace, name)

    async def list(self, resource: Resource) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.cluster._json("GET", resource.url(self.namespace)))["items"]
        return found

    async def says(self, kind: str, status: str, reason: str, name: str = "demo") -> dict[str, Any]:
        """Wait until a condition has this status and reason."""

        async def said() -> dict[str, Any] | None:
            run = await self.get(name=name)
            found = (run or {}).get("status", {}).get("conditions", ())
            return next((c for c in found if (c["type"], c["status"], c["reason"]) == (kind, status, reason)), None)

        try:
            return await until(said) or {}
        except TimeoutError:
            raise AssertionError(json.dumps((await self.get(name=name) or {}).get("status"), indent=1)) from None

    async def suspend(self, *, wanted: bool) -> None:
        await api_server.merge(self.cluster, MLPERF_RUNS, self.namespace, "demo", {"spec": {"suspend": wanted}})

    async def enforce(self, level: str) -> None:
        """Set the namespace's level of PodSecurity."""
        labels = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": level}}}
        url = f"/api/v1/namespaces/{self.namespace}"
        await self.cluster._json("PATCH", url, labels, content_type="application/merge-patch+json")

    async def job_is_suspended(self) -> bool:
        job = await self.get(JOBS)
        return job is not None and bool(job["spec"].get("suspend"))

    async def pod(self) -> dict[str, Any]:
        """Wait for the run's one pod that is not being deleted."""

        async def one() -> dict[str, Any] | None:
            pods = [pod for pod in await self.list(PODS) if "deletionTimestamp" not in pod["metadata"]]
            return pods[0] if len(pods) == 1 else None

        return await until(one) or {}

    async def kubelet_says(self, pod: dict[str, Any], phase: str, ended: dict[str, tuple[int, str]]) -> None:
        statuses = [_terminated(name, code, message) for name, (code, message) in ended.items()]
        inits = [status for status in statuses if status["name"] != "run"]
        main = [status for status in statuses if status["name"] == "run"]
        patch = {"status": {"phase": phase, "initContainerStatuses": inits, "containerStatuses": main}}
        url = PODS.url(self.namespace, pod["metadata"]["name"], "status")
        await self.cluster._json("PATCH", url, patch, content_type="application/merge-patch+json")

    async def versions(self) -> dict[str, str]:
        """Return the resource versions of everything that the operator writes here."""
        found = [body for resource in (MLPERF_RUNS, JOBS, CONFIG_MAPS, EVENTS) for body in await self.list(resource)]
        return {f"{body['metadata']['uid']}": body["metadata"]["resourceVersion"] for body in found}

    async def rest(self) -> dict[str, str]:
        """Wait until nothing was written for longer than changes of stages are held back."""
        before: dict[str, str] = {}
        while (now := await self.versions()) != before:
            before = now
            await asyncio.sleep(7)
        return before


def _terminated(name: str, code: int, message: str) -> dict[str, Any]:
    moment = "2026-01-02T03:04:05Z"
    ended = {"exitCode": code, "message": message, "startedAt": moment, "finishedAt": moment, "reason": "x"}
    return {
        "name": name,
        "image": "x",
        "imageID": "x",
        "ready": False,
        "restartCount": 0,
        "started": False,
        "state": {"terminated": ended},
    }


@pytest.fixture
def watcher(cluster: Cluster, namespace: str, runs_served: None) -> Watcher:
    return Watcher(cluster, namespace)


@pytest.fixture
async def operator(watcher: Watcher, home: str, tmp_path: Path) -> AsyncIterator[OperatorProcess]:
    with replica(home, "first", tmp_path / "first.log") as started:
        await started.ready("leader")
        yield started


async def test_a_killed_operator_is_continued_without_a_second_job_or_another_write(
    watcher: Watcher, operator: OperatorProcess, home: str, tmp_path: Path
) -> None:
    await watcher.create()
    await watcher.says("Succeeded", "Unknown", "Unschedulable")
    assert len(await watcher.list(JOBS)) == 1
    assert all([await watcher.get(resource, name) for resource, name in CHILDREN])
    before = await watcher.rest()
    assert operator.end(signal.SIGKILL) == -signal.SIGKILL
    with replica(home, "second", tmp_path / "second.log") as heir:
        await heir.ready("leader")
        await asyncio.sleep(7)
        assert await watcher.versions() == before
        assert heir.end(signal.SIGTERM) == 0
    assert any(line["msg"].startswith("leading as second") for line in heir.lines())
    assert {line["run"] for line in operator.lines() if "run" in line} == {"demo"}


async def test_a_run_that_no_suite_knows_is_refused_and_told_so(watcher: Watcher, operator: OperatorProcess) -> None:
    await watcher.create(suite="nobodys-suite", ttlSecondsAfterFinished=3)
    refused = await watcher.says("Accepted", "False", "UnknownSuite")
    assert "reference-cpu" in refused["message"]
    assert await watcher.list(JOBS) == []
    await until(partial(_gone, watcher, MLPERF_RUNS, "demo"))


async def test_a_job_that_the_api_server_refuses_is_told_and_ends_the_run_in_time(
    watcher: Watcher, operator: OperatorProcess
) -> None:
    await watcher.create(startTimeoutSeconds=10, resources={"requests": {"cpu": "2"}, "limits": {"cpu": "1"}})
    await watcher.says("Succeeded", "Unknown", "CreationRefused")
    ended = await watcher.says("Succeeded", "False", "CreationRefused")
    assert "must be less than or equal to cpu limit" in ended["message"]


async def test_a_pod_that_cannot_start_ends_the_run_and_its_job_is_suspended(
    watcher: Watcher, operator: OperatorProcess
) -> None:
    await watcher.create(startTimeoutSeconds=10)
    ended = await watcher.says("Succeeded", "False", "Unschedulable")
    assert "startTimeoutSeconds (10 s)" in ended["message"]
    await until(watcher.job_is_suspended)
    await until(partial(_none, watcher, PODS))


async def test_a_pod_that_the_namespaces_security_level_refuses_never_starts_later(
    watcher: Watcher, operator: OperatorProcess
) -> None:
    await watcher.enforce("baseline")
    await watcher.create(startTimeoutSeconds=12, scratch={"hostPath": {"path": "/mnt/scratch/demo"}})
    await watcher.says("Succeeded", "Unknown", "PodSecurityRefused")
    ended = await watcher.says("Succeeded", "False", "PodSecurityRefused")
    label = "--overwrite pod-security.kubernetes.io/enforce=privileged"
    assert f"kubectl label namespace {watcher.namespace} {label}" in ended["message"]
    await until(watcher.job_is_suspended)
    await watcher.enforce("privileged")
    await asyncio.sleep(3)
    assert await watcher.list(PODS) == []


async def test_a_suspended_run_resumes_with_a_new_start_clock(watcher: Watcher, operator: OperatorProcess) -> None:
    await watcher.create(startTimeoutSeconds=15)
    first = await watcher.pod()
    await watcher.suspend(wanted=True)
    await watcher.says("Suspended", "True", "Suspended")
    await asyncio.sleep(16)
    await watcher.suspend(wanted=False)
    await watcher.says("Suspended", "False", "NotSuspended")
    assert (await watcher.pod())["metadata"]["name"] != first["metadata"]["name"]
    await watcher.says("Succeeded", "Unknown", "Unschedulable")
    await watcher.says("Succeeded", "False", "Unschedulable")


async def test_a_stage_that_fails_ends_job_and_run_with_its_own_words(
    watcher: Watcher, operator: OperatorProcess
) -> None:
    await watcher.create(backoffLimit=3)
    said = json.dumps({"stage": "preflight", "reason": "PreflightFailed", "message": "no driver", "tail": "lsmod"})
    await watcher.kubelet_says(await watcher.pod(), "Failed", {"code": (0, ""), "preflight": (64, said)})
    ended = await watcher.says("Succeeded", "False", "PreflightFailed")
    assert "no driver\nlsmod" in ended["message"]
    job = await watcher.get(JOBS)
    assert job is not None
    assert any(c["type"] == "Failed" and c["reason"] == "PodFailurePolicy" for c in job["status"]["conditions"])
    told = [event for event in await watcher.list(EVENTS) if event["involvedObject"]["kind"] == "MLPerfRun"]
    assert {"JobCreated", "AcceptedTrue", "StageFailed", "SucceededFalse"} <= {event["reason"] for event in told}


async def test_a_complete_job_whose_log_cannot_be_read_is_no_success(
    watcher: Watcher, operator: OperatorProcess
) -> None:
    run = await watcher.create()
    report = {"kind": "report", "uid": run["metadata"]["uid"], "count": 0, "sha256": "0" * 64}
    ended = {**dict.fromkeys((*PREPARE_STAGES, "run"), (0, "")), "collect": (0, json.dumps(report))}
    await watcher.kubelet_says(await watcher.pod(), "Succeeded", ended)
    await watcher.says("Succeeded", "Unknown", "ResultsNotCollected")
    await watcher.says("ResultsValid", "Unknown", "ResultsNotCollected")
    await watcher.says("Prepared", "True", "Prepared")


async def test_a_deleted_run_takes_its_children_along_and_its_name_can_be_used_again(
    watcher: Watcher, operator: OperatorProcess
) -> None:
    first = await watcher.create()
    await watcher.pod()
    await watcher.cluster.delete(MLPERF_RUNS, watcher.namespace, "demo", first["metadata"]["uid"])
    second = await watcher.create()
    await watcher.says("Succeeded", "Unknown", "Unschedulable")
    job = await watcher.get(JOBS)
    assert job is not None
    assert job["metadata"]["ownerReferences"][0]["uid"] == second["metadata"]["uid"]
    await watcher.cluster.delete(MLPERF_RUNS, watcher.namespace, "demo", second["metadata"]["uid"])
    for resource, name in CHILDREN:
        await until(partial(_gone, watcher, resource, name))
    await asyncio.sleep(3)
    assert await watcher.list(JOBS) == []


async def _none(watcher: Watcher, resource: Resource) -> bool:
    return await watcher.list(resource) == []


async def _gone(watcher: Watcher, resource: Resource, name: str) -> bool:
    return await watcher.get(resource, name) is None


async def test_a_standby_takes_over_when_the_leader_is_told_to_end(
    watcher: Watcher, operator: OperatorProcess, home: str, tmp_path: Path
) -> None:
    with replica(home, "second", tmp_path / "second.log") as standby:
        await standby.ready("standby")
        await watcher.create()
        await watcher.says("Succeeded", "Unknown", "Unschedulable")
        assert operator.end(signal.SIGTERM) == 0
        await standby.ready("leader")
        await watcher.suspend(wanted=True)
        await watcher.says("Suspended", "True", "Suspended")
    assert len(await watcher.list(JOBS)) == 1


async def test_a_run_in_the_operators_own_namespace_is_refused(
    cluster: Cluster, watcher: Watcher, operator: OperatorProcess, home: str
) -> None:
    await Watcher(cluster, home).create()
    refused = await Watcher(cluster, home).says("Accepted", "False", "NamespaceNotAllowed")
    assert "the operator's own" in refused["message"]
    assert await Watcher(cluster, home).list(JOBS) == []
