"""A GPU node without a GPU: a Debian root that is the host of the driver pods, and GPUs advertised by hand.

The root, its packages and their repository are those of tests/node; everything else is real: the DaemonSets, the
kubelet that runs their pods, the operator that labels and cordons the node.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e2e.lab import processes, wait_for
from installation import NAMESPACE, Cluster
from mlperf_operator import naming
from mlperf_operator.catalogue import Driver, Repository
from mlperf_operator.suites import REFERENCE_CPU
from node import packages
from node.node import Node, target

GPUS = 8
GPU = "nvidia.com/gpu"
RETRY_SECONDS = 2

GPU_SUITE = "gpu-standin"
"""The reference suite as if it needed eight GPUs, in an image with stand-ins of nvidia-smi and libcuda."""

GPU_IMAGE = "localhost/mlperf-standin-gpu:dev"


def gpu_suite() -> dict[str, Any]:
    """The suite as an administrator would add it."""
    data = REFERENCE_CPU.model_dump(mode="json", by_alias=True, exclude_none=True)
    system = {"CPU_REFERENCE": {"gpuProduct": "A100-SXM4-40GB", "gpuCount": GPUS}}
    return data | {
        "name": GPU_SUITE,
        "image": GPU_IMAGE,
        "systems": system,
        "usesGpu": True,
        "runAsRoot": True,
        "memlock": True,
    }


def driver_values(root: Path, repository: Repository, **more: Any) -> dict[str, Any]:
    """The chart's `driver` values: the catalogue of the stand-in packages, and the root as the node's root."""
    toolkit = target(repository, toolkit=True).toolkit
    assert toolkit is not None
    return {
        "enabled": True,
        "drivers": [_entry(repository, version) for version in packages.VERSIONS],
        "toolkit": toolkit.model_dump(mode="json", by_alias=True, exclude_none=True),
        "hostRoot": str(root),
        "retrySeconds": RETRY_SECONDS,
        **more,
    }


def _entry(repository: Repository, version: str) -> dict[str, Any]:
    driver = target(repository, version).driver
    assert isinstance(driver, Driver)
    return driver.model_dump(mode="json", by_alias=True, exclude_none=True)


def advertise_gpus(cluster: Cluster, node: str, count: int | None) -> None:
    """Set or remove a node's GPUs, as `kubectl` can for any extended resource."""
    amount = str(count) if count is not None else None
    status = {"status": {"capacity": {GPU: amount}, "allocatable": {GPU: amount}}}
    cluster.kubectl("patch", "node", node, "--subresource=status", "--type=merge", "-p", json.dumps(status))


@dataclass(frozen=True)
class GpuNode:
    """The cluster's node and the root that is its host."""

    cluster: Cluster
    name: str
    host: Node

    def get(self) -> dict[str, Any]:
        return self.cluster.get("node", self.name)

    def label(self, **labels: str | None) -> None:
        """Set or remove labels of mlperf.dev, with underscores for dashes."""
        self.set_label({f"mlperf.dev/{key.replace('_', '-')}": value for key, value in labels.items()})

    def set_label(self, labels: dict[str, str | None]) -> None:
        self._patch({"metadata": {"labels": labels}})

    def _patch(self, patch: dict[str, Any]) -> None:
        self.cluster.kubectl("patch", "node", self.name, "--type=merge", "-p", json.dumps(patch))

    def advertise(self, count: int | None) -> None:
        """Advertise GPUs as `kubectl` can for any extended resource, in the place of NVIDIA's device plugin."""
        advertise_gpus(self.cluster, self.name, count)

    def labels(self) -> dict[str, str]:
        """The labels of drivers, by what follows `driver-`."""
        found = self.get()["metadata"].get("labels", {})
        prefix = "mlperf.dev/driver-"
        return {key.removeprefix(prefix): value for key, value in found.items() if key.startswith(prefix)}

    def report(self) -> dict[str, Any]:
        """The node's report."""
        text = self.get()["metadata"].get("annotations", {}).get(naming.DRIVER_REPORT_ANNOTATION)
        return dict(json.loads(text)) if text else {}

    def is_ready(self, version: str) -> bool:
        return self.labels().get("ready") == version

    def is_cordoned(self) -> bool:
        return bool(self.get()["spec"].get("unschedulable"))

    def wait_ready(self, version: str, seconds: float = 60.0) -> None:
        wait_for(f"driver {version} on the node: {self.report()}", lambda: self.is_ready(version), seconds)

    def wait_reason(self, reason: str, seconds: float = 60.0) -> dict[str, Any]:
        """The node's report once it gives this reason."""
        wait_for(f"reason {reason}", lambda: self.report().get("reason") == reason, seconds)
        return self.report()

    def events(self) -> list[str]:
        """Reasons of the node's Events that the operator wrote."""
        selector = f"involvedObject.kind=Node,involvedObject.name={self.name}"
        found = self.cluster.get("events", "-n", "default", "--field-selector", selector)["items"]
        return [e["reason"] for e in found if e.get("source", {}).get("component") == naming.MANAGER]

    def driver_pods(self) -> list[dict[str, Any]]:
        selector = naming.DRIVER_SELECTOR
        return list(self.cluster.get("pods", "-n", NAMESPACE, "-l", selector)["items"])

    def agents(self) -> list[int]:
        """Processes of the driver pods."""
        return [pid for pod in self.driver_pods() for pid in processes(pod, "")]

    def reset(self) -> None:
        """Take every label and annotation away, and wait until no driver pod is left."""
        labels = {f"mlperf.dev/driver-{key}": None for key in ("opt-in", "wanted", "loaded", "ready")}
        foreign = {"nvidia.com/gpu.deploy.driver": None}
        self.set_label({**labels, **foreign})
        wait_for("the driver pods' end", lambda: not self.driver_pods())
        annotations = {f"mlperf.dev/driver-{key}": None for key in ("claim", "report", "cordon")}
        self._patch({"metadata": {"annotations": annotations}, "spec": {"unschedulable": None}})


@contextmanager
def gpu_node(cluster: Cluster, host: Node) -> Iterator[GpuNode]:
    """The cluster's only node with GPUs advertised, as it was before at the end."""
    [node] = cluster.get("nodes")["items"]
    found = GpuNode(cluster, node["metadata"]["name"], host)
    found.reset()
    found.advertise(GPUS)
    try:
        yield found
    finally:
        found.reset()
        found.advertise(None)


def occupy(path: Path) -> subprocess.Popen[bytes]:
    """Start a process that has a file open, as a CUDA program has a GPU."""
    with path.open("rb") as device:
        return subprocess.Popen(["sleep", "600"], stdin=device)
