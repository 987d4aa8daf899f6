"""What the end-to-end tests do with a cluster: namespaces, runs, what became of them, and processes on its node."""

from __future__ import annotations

import json
import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from installation import Cluster, condition, wait_until_finished

FINISH_SECONDS = 180.0
STEP_SECONDS = 60.0


@contextmanager
def namespace(cluster: Cluster) -> Iterator[str]:
    """A new namespace under PodSecurity's `restricted`, deleted in the end."""
    name = f"e2e-{uuid.uuid4().hex[:8]}"
    cluster.ensure_namespace(name)
    try:
        yield name
    finally:
        cluster.kubectl("delete", "namespace", name, "--wait=false")


def manifest(name: str, **spec: Any) -> dict[str, Any]:
    """An MLPerfRun of the reference suite: one short measurement, unless the spec says more."""
    base = {
        "suite": "reference-cpu",
        "system": "CPU_REFERENCE",
        "benchmarks": [{"name": "digits", "scenarios": ["SingleStream"]}],
        "testModes": ["PerformanceOnly"],
        "testRun": True,
    }
    return {"apiVersion": "mlperf.dev/v1alpha1", "kind": "MLPerfRun", "metadata": {"name": name}, "spec": base | spec}


def override(field: str, value: int | str, scenario: str) -> dict[str, Any]:
    """A gpuConfig that sets one field."""
    return {"overrides": [{"benchmark": "digits", "scenario": scenario, "field": field, "value": value}]}


def wait_for(what: str, found: Callable[[], Any], seconds: float = STEP_SECONDS) -> Any:
    """Ask until there is an answer that is not None, empty or False."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := found():
            return answer
        time.sleep(0.1)
    raise AssertionError(f"{what}: not within {seconds:g} s")


@dataclass(frozen=True)
class Run:
    """An MLPerfRun that was applied."""

    cluster: Cluster
    namespace: str
    name: str

    @classmethod
    def apply(cls, cluster: Cluster, namespace: str, body: dict[str, Any]) -> Run:
        cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(body))
        return cls(cluster, namespace, body["metadata"]["name"])

    def get(self) -> dict[str, Any]:
        return self.cluster.get("mlperfrun", self.name, "-n", self.namespace)

    def finished(self, seconds: float = FINISH_SECONDS) -> dict[str, Any]:
        """The run, once nothing more happens."""
        return wait_until_finished(self.cluster, self.namespace, self.name, seconds)

    def patch(self, **spec: Any) -> None:
        self.cluster.kubectl(
            *("patch", "mlperfrun", self.name, "-n", self.namespace),
            *("--type=merge", "-p", json.dumps({"spec": spec})),
        )

    def delete(self) -> None:
        self.cluster.kubectl("delete", "mlperfrun", self.name, "-n", self.namespace, "--wait=false")

    def owned(self, kind: str) -> list[dict[str, Any]]:
        """The objects of a kind that carry the run's name as their label, oldest first."""
        found = self.cluster.get(kind, "-n", self.namespace, "-l", f"mlperf.dev/run={self.name}")["items"]
        return sorted(found, key=lambda item: str(item["metadata"]["creationTimestamp"]))

    def has_no(self, kind: str) -> bool:
        """Whether none of those is there."""
        return not self.owned(kind)

    def pods(self) -> list[dict[str, Any]]:
        """The pods of the run's Job."""
        return [p for p in self.owned("pods") if p["metadata"]["labels"].get("job-name") == self.name]

    def log(self, container: str, pod: str | None = None) -> str:
        name = pod or self.pods()[-1]["metadata"]["name"]
        return self.cluster.kubectl("logs", "-n", self.namespace, name, "-c", container)

    def started(self, stage: str) -> dict[str, Any]:
        """The run's pod, once a stage runs or has run in it."""

        def look() -> dict[str, Any] | None:
            pods = self.pods()
            return pods[-1] if pods and "waiting" not in container_state(pods[-1], stage) else None

        return dict(wait_for(f"stage {stage} of {self.name}", look))

    def events(self) -> list[str]:
        """Reasons of the run's Events, as `kubectl describe` shows them."""
        found = self.cluster.get("events", "-n", self.namespace, "--field-selector", f"involvedObject.name={self.name}")
        ours = [event for event in found["items"] if event["involvedObject"]["kind"] == "MLPerfRun"]
        return [event["reason"] for event in ours]

    def results_folder(self) -> Path:
        """Where the run's results lie on this machine, which is the cluster's node."""
        artifacts = self.get()["status"]["artifacts"]
        claim = self.cluster.get("pvc", artifacts["claim"], "-n", self.namespace)
        volume = self.cluster.get("pv", claim["spec"]["volumeName"])
        return Path(volume["spec"]["hostPath"]["path"], artifacts["path"])


def container_state(pod: dict[str, Any], name: str) -> dict[str, Any]:
    """A container's state; waiting before the kubelet has reported it."""
    status = pod.get("status", {})
    known = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
    return next((dict(c["state"]) for c in known if c["name"] == name), {"waiting": {}})


def reasons(run: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Status and reason of each condition."""
    return {kind: condition(run, kind)[:2] for kind in (c["type"] for c in run["status"]["conditions"])}


def stage(run: dict[str, Any], name: str) -> dict[str, Any]:
    """A stage as the status shows it."""
    return next(dict(s) for s in run["status"]["stages"] if s["name"] == name)


def processes(pod: dict[str, Any], text: str) -> list[int]:
    """Processes of a pod, on this machine, whose command line holds the text."""
    uid = pod["metadata"]["uid"]
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            in_pod = uid in (folder / "cgroup").read_text().replace("_", "-")
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if in_pod and text in command:
            found.append(int(folder.name))
    return found


def send(number: signal.Signals, pids: list[int]) -> None:
    """Send a signal to processes, of which there must be some."""
    assert pids
    for pid in pids:
        os.kill(pid, number)
