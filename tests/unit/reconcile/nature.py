"""What a cluster does by itself: the Job controller, the kubelet and the garbage collector, one step at a time."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from mlperf_operator.observed import format_time
from mlperf_operator.resources.containers import PREPARE_STAGES, RUN
from mlperf_operator.waiting import RETRY_PAUSE
from unit.reconcile.world import World

STAGES = (*PREPARE_STAGES, RUN)
Body = dict[str, Any]


class Nature:
    """Moves the run's Job and pods on, and remembers what would excuse a run's failure."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.excuses: set[str] = set()
        self.idle = timedelta(0)
        """For how long nothing of the run has been running although it should."""
        self.reported = False
        """Whether a pod of the run's own ended with a whole report."""

    def job(self) -> Body | None:
        return self.world.objects.get(("Job", "demo"))

    def pod(self) -> Body | None:
        """Return the run's pod that has not ended."""
        bodies = [body for (kind, _), body in self.world.objects.items() if kind == "Pod" and _job_of(body) == "demo"]
        return next((body for body in bodies if body["status"]["phase"] in ("Pending", "Running")), None)

    def running(self) -> bool:
        pod = self.pod()
        return pod is not None and any("running" in c["state"] for c in _containers(pod))

    def pass_time(self, time: timedelta) -> None:
        job = self.job()
        resting = job is None or job["spec"]["suspend"] or _ended(job)
        self.idle = timedelta(0) if resting or self.running() else self.idle + time
        self.world.now += time
        if self.idle >= timedelta(seconds=60):
            self.excuses |= {"PodStarting", "PodNotCreated"}

    # The Job controller

    def sync_job(self) -> None:
        """Do what the Job's spec and pods ask for."""
        job = self.job()
        if job is None or _ended(job):
            return
        status = job.setdefault("status", {})
        suspended = any(c["type"] == "Suspended" and c["status"] == "True" for c in status.get("conditions", ()))
        if job["spec"]["suspend"]:
            self._remove_pod()
            status.update(conditions=[{"type": "Suspended", "status": "True"}])
            status.pop("startTime", None)
        elif suspended or "startTime" not in status:
            self.idle = timedelta(0)
            status.update(conditions=[], startTime=format_time(self.world.now))
        elif self.pod() is None:
            self.world.start_pod()
        self.world.put(job)

    def _remove_pod(self) -> None:
        pod = self.pod()
        if pod is not None:
            del self.world.objects["Pod", pod["metadata"]["name"]]

    # The kubelet

    def next_container(self) -> None:
        """Let the container that runs end well and the next one start; the last one ends the pod."""
        pod = self.pod()
        if pod is None:
            return
        done = sum("terminated" in c["state"] for c in _containers(pod))
        if self.running() and done + 1 == len(STAGES):
            self.complete(pod)
        elif self.running():
            self._show(pod, done + 1, "waiting")
        else:
            self._show(pod, done, "running")

    def complete(self, pod: Body, *, report: bool = True) -> None:
        """Let the pod, and with it the Job, end well."""
        name = pod["metadata"]["name"]
        self.world.end_pod(name)
        self.reported |= report
        if not report:
            del self.world.logs[name]
            self.excuses.add("ResultsNotCollected")
        if self.job() is not None:
            self.world.end_job()

    def read_again(self) -> None:
        """Let the recovery Job, if there is one, read the results from the volume."""
        job = self.world.objects.get(("Job", "demo-collect"))
        if job is None or _ended(job):
            return
        self.world.end_pod(self.world.start_pod("demo-collect"))
        self.world.end_job(name="demo-collect")
        self.reported = True

    def fail(self, code: int) -> None:
        """Let the container that runs end badly: 64 and 65 end the Job, others are retried within backoffLimit."""
        pod, job = self.pod(), self.job()
        if pod is None or job is None or not self.running():
            return
        self._show(pod, sum("terminated" in c["state"] for c in _containers(pod)), "failed", code)
        self.excuses.add("StageCrashed")
        failures = job.setdefault("status", {}).get("failed", 0) + 1
        if code in (64, 65):
            self.world.end_job("Failed", "PodFailurePolicy")
        elif failures > job["spec"]["backoffLimit"]:
            self.world.end_job("Failed", "BackoffLimitExceeded")
        else:
            job["status"]["failed"] = failures
            self.world.put(job)
            self.idle = -RETRY_PAUSE * failures

    def evict(self) -> None:
        """Let the pod's node be drained: the failure policy ignores it."""
        pod = self.pod()
        if pod is None:
            return
        moment = format_time(self.world.now)
        condition = {"type": "DisruptionTarget", "status": "True", "lastTransitionTime": moment}
        pod["status"].update(phase="Failed", reason="Evicted", conditions=[condition])
        self.world.put(pod)
        self.idle = min(self.idle, timedelta(0))

    def lose_pod(self) -> None:
        """Let somebody delete the pod by force; with some backoffLimit left another one is made."""
        job = self.job()
        if self.pod() is None or job is None:
            return
        self._remove_pod()
        failures = job.setdefault("status", {}).get("failed", 0) + 1
        if failures > job["spec"]["backoffLimit"]:
            self.excuses.add("BackoffLimitExceeded")
            self.world.end_job("Failed", "BackoffLimitExceeded")
        else:
            job["status"]["failed"] = failures
            self.world.put(job)

    def _show(self, pod: Body, done: int, then: str, code: int = 0) -> None:
        moment = format_time(self.world.now)
        ended = {"terminated": {"exitCode": 0, "startedAt": moment, "finishedAt": moment}}
        states: list[Body] = [_containers(pod)[n]["state"] if n < len(_containers(pod)) else {} for n in range(done)]
        states = [state if "terminated" in state else ended for state in states]
        now: Body = {"waiting": {"reason": "PodInitializing"}}
        if then == "running":
            now = {"running": {"startedAt": moment}}
        elif then == "failed":
            now = {"terminated": {**ended["terminated"], "exitCode": code}}
        rest = len(STAGES) - done - 1
        states += [now, *({"waiting": {"reason": "PodInitializing"}} for _ in range(rest))]
        bodies = [{"name": name, "state": state} for name, state in zip(STAGES, states, strict=True)]
        phase = "Failed" if then == "failed" else "Pending"
        pod["status"].update(phase=phase, initContainerStatuses=bodies[:-1], containerStatuses=bodies[-1:])
        self.world.put(pod)
        self.idle = timedelta(0)

    # Users, and the garbage collector after them

    def delete_job(self) -> None:
        """Let somebody delete the Job; its pod follows."""
        if self.job() is not None:
            del self.world.objects["Job", "demo"]
            self._remove_pod()
            self.excuses.add("JobDeleted")

    def delete_run(self) -> None:
        """Let somebody delete the run in the foreground: it is marked, and its children go first."""
        self.world.run()["metadata"]["deletionTimestamp"] = format_time(self.world.now)
        for key in [key for key, body in self.world.objects.items() if "ownerReferences" in body["metadata"]]:
            del self.world.objects[key]
        self._remove_pod()


def _job_of(pod: Body) -> str:
    return str(pod["metadata"]["labels"]["batch.kubernetes.io/job-name"])


def _containers(pod: Body) -> list[Body]:
    status = pod["status"]
    return [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]


def _ended(job: Body) -> bool:
    return any(c["type"] in ("Complete", "Failed") for c in job.get("status", {}).get("conditions", ()))
