"""What happens in the middle of a run: evictions, killed processes, suspension, deletion."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from local_cluster.ports import free_port

from e2e.lab import Run, container_state, manifest, processes, reasons, send, wait_for
from installation import NAMESPACE, RELEASE, Cluster, condition, operator_pods
from mlperf_operator.resources.containers import COLLECT, PREPARE_STAGES, RUN

pytestmark = pytest.mark.e2e

SCRATCH = {"claimTemplate": {"size": "1Gi", "deleteWithRun": True}}
STAGES = (*PREPARE_STAGES, RUN)


def assert_valid(run: dict[str, Any]) -> None:
    assert condition(run, "Succeeded")[0] == "True", condition(run, "Succeeded")
    assert condition(run, "ResultsValid")[0] == "True", condition(run, "ResultsValid")


def evict(cluster: Cluster, pod: dict[str, Any]) -> None:
    meta = pod["metadata"]
    body = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": meta["name"], "namespace": meta["namespace"]},
    }
    url = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}/eviction"
    cluster.kubectl("create", "--raw", url, "-f", "-", stdin=json.dumps(body))


def test_an_evicted_pod_is_replaced_and_its_stages_are_not_done_again(operator: Cluster, namespace: str) -> None:
    run = Run.apply(operator, namespace, manifest("evicted", scratch=SCRATCH))
    pod = run.started(RUN)
    evict(operator, pod)
    ended = run.finished()
    assert_valid(ended)
    assert ended["status"]["attempts"] == 2
    assert ended["status"]["podName"] != pod["metadata"]["name"]
    states = {s["name"]: s["state"] for s in ended["status"]["stages"]}
    assert {states[name] for name in ("download-data", "download-model", "preprocess-data", "build")} == {"Skipped"}
    assert len(run.owned("jobs")) == 1


def test_a_suspended_run_stops_and_goes_on_from_the_stages_that_are_done(operator: Cluster, namespace: str) -> None:
    run = Run.apply(operator, namespace, manifest("paused", scratch=SCRATCH))
    run.started(RUN)
    run.patch(suspend=True)
    wait_for("suspension", lambda: condition(run.get(), "Suspended")[0] == "True")
    wait_for("the pod's end", lambda: not [p for p in run.pods() if p["status"]["phase"] == "Running"])
    assert condition(run.get(), "Succeeded")[0] == "Unknown"
    run.patch(suspend=False)
    ended = run.finished()
    assert_valid(ended)
    states = {s["name"]: s["state"] for s in ended["status"]["stages"]}
    assert states["download-model"] == "Skipped"


@pytest.mark.parametrize("stage", ["code", "download-model", RUN, "end"])
def test_a_deleted_run_leaves_nothing(operator: Cluster, namespace: str, stage: str) -> None:
    run = Run.apply(operator, namespace, manifest("deleted", scratch=SCRATCH))
    if stage == "end":
        run.finished()
    else:
        run.started(stage)
    run.delete()
    for kind in ("jobs", "pods", "configmaps", "persistentvolumeclaims"):
        wait_for(f"the end of its {kind}", partial(run.has_no, kind))


def test_a_run_with_a_time_to_live_deletes_itself(operator: Cluster, namespace: str) -> None:
    run = Run.apply(operator, namespace, manifest("brief", suite="no-such-suite", ttlSecondsAfterFinished=1))
    operator.kubectl("wait", "--for=delete", f"mlperfrun/{run.name}", "-n", namespace, "--timeout=30s")


def test_results_are_recovered_when_collect_was_killed(operator: Cluster, namespace: str) -> None:
    run = Run.apply(operator, namespace, manifest("uncollected", scratch=SCRATCH))
    pod = run.started(RUN)
    collect = wait_for("collect's process", lambda: processes(pod, "agent.collect"))
    # Stopped, it cannot finalise when the run has ended; killed, it never will.
    send(signal.SIGSTOP, collect)
    wait_for("the run's end", lambda: "terminated" in container_state(run.pods()[-1], RUN))
    send(signal.SIGKILL, collect)
    seen = set()
    for _ in range(600):
        now = run.get()
        seen.add(condition(now, "ResultsValid")[:2])
        if condition(now, "Finished")[0] == "True":
            break
        time.sleep(0.1)
    assert_valid(now)
    assert ("Unknown", "ResultsNotCollected") in seen
    assert container_state(run.pods()[-1], COLLECT)["terminated"]["exitCode"] == 137


def test_collect_killed_in_the_middle_reports_everything_all_the_same(operator: Cluster, namespace: str) -> None:
    modes = ["PerformanceOnly", "AccuracyOnly"]
    run = Run.apply(operator, namespace, manifest("restarted", scratch=SCRATCH, testModes=modes))
    pod = run.started(RUN)
    send(signal.SIGKILL, wait_for("collect's process", lambda: processes(pod, "agent.collect")))
    ended = run.finished()
    assert_valid(ended)
    assert [r["mode"] for r in ended["status"]["results"]] == modes


class Process:
    """The operator as a process of this machine, with the settings of its Deployment."""

    def __init__(self, cluster: Cluster) -> None:
        container = cluster.get("deployment", RELEASE, "-n", NAMESPACE)["spec"]["template"]["spec"]["containers"][0]
        settings = {e["name"]: e["value"] for e in container["env"] if "value" in e}
        settings.pop("MLPERF_OPERATOR_SUITES_FILE", None)
        self._environment = {
            **os.environ,
            **settings,
            "KUBECONFIG": cluster.kubeconfig,
            "MLPERF_OPERATOR_NAMESPACE": NAMESPACE,
            # A new process of the same name takes the Lease at once, as a restarted container does.
            "MLPERF_OPERATOR_IDENTITY": "e2e",
            "MLPERF_OPERATOR_HEALTH_PORT": str(free_port()),
        }
        self._process = self._start()
        self.kills = 0

    def _start(self) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-m", "mlperf_operator", "controller"]
        return subprocess.Popen(argv, env=self._environment, stderr=subprocess.DEVNULL)

    def kill_and_restart(self) -> None:
        assert self._process.poll() is None, "the operator ended by itself"
        self._process.kill()
        self._process.wait()
        self.kills += 1
        self._process = self._start()

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(30)


@contextmanager
def operator_as_process(cluster: Cluster) -> Iterator[Process]:
    """Replace the operator's pod by a process, and bring it back."""
    scale = ("scale", "deployment", RELEASE, "-n", NAMESPACE)
    try:
        cluster.kubectl(*scale, "--replicas=0")
        wait_for("the end of the operator's pod", lambda: not operator_pods(cluster))
        process = Process(cluster)
        try:
            yield process
        finally:
            process.stop()
    finally:
        cluster.kubectl(*scale, "--replicas=1")
        cluster.kubectl("rollout", "status", "deployment", RELEASE, "-n", NAMESPACE, "--timeout=120s")


def test_an_operator_killed_at_each_stage_comes_to_the_same_end_with_one_job(operator: Cluster, namespace: str) -> None:
    quiet = Run.apply(operator, namespace, manifest("undisturbed", scratch=SCRATCH))
    expected = reasons(quiet.finished())
    with operator_as_process(operator) as process:
        run = Run.apply(operator, namespace, manifest("disturbed", scratch=SCRATCH))
        jobs = set()
        for name in STAGES:
            run.started(name)
            process.kill_and_restart()
            jobs |= {job["metadata"]["uid"] for job in run.owned("jobs")}
        ended = run.finished()
        jobs |= {job["metadata"]["uid"] for job in run.owned("jobs")}
    assert process.kills == len(STAGES)
    assert len(jobs) == 1
    assert len(run.pods()) == 1
    assert reasons(ended) == expected
