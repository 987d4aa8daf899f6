"""Nodes and runs of the fleet."""

from __future__ import annotations

from typing import Any

from fleet.reported import BENCHMARK, SCENARIO
from fleet.stages import FAILS_LABEL
from mlperf_operator.api.v1alpha1 import API_VERSION, KIND
from mlperf_operator.resources.containers import PREPARE_STAGES, RUN

GPUS = 8
SCRATCH = "/mnt/scratch"
"""Host path of every run's scratch; the operator must allow it."""

_AMOUNTS = {"cpu": "96", "memory": "900Gi", "ephemeral-storage": "2Ti", "pods": "110", "nvidia.com/gpu": str(GPUS)}


def node(name: str, port: int) -> dict[str, Any]:
    """Return a node whose kubelet answers on a port of this machine; KWOK makes it Ready."""
    fails = {f"{FAILS_LABEL}{stage}": "yes" for stage in (*PREPARE_STAGES, RUN)}
    labels = {"kubernetes.io/hostname": name, "nvidia.com/gpu.product": "NVIDIA-A100-SXM4-40GB", **fails}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "status": {
            "capacity": _AMOUNTS,
            "allocatable": _AMOUNTS,
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        },
    }


def run(namespace: str, name: str, *, fails: str = "", **spec: object) -> dict[str, Any]:
    """Return a run of NVIDIA's suite on a whole node, which succeeds, or fails in the stage that is named."""
    selector = {"nodeSelector": {f"{FAILS_LABEL}{fails}": "yes"}} if fails else {}
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "suite": "nvidia-v4.1",
            "system": "A100_SXM4_40GBx8",
            "benchmarks": [{"name": BENCHMARK, "scenarios": [SCENARIO.value]}],
            "gpu": {"access": "DevicePlugin"},
            "driver": {"policy": "Verify"},
            "scratch": {"hostPath": {"path": SCRATCH}},
            **selector,
            **spec,
        },
    }


def namespace(name: str) -> dict[str, Any]:
    """Return a namespace."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def filler(namespace: str, name: str, node_name: str) -> dict[str, Any]:
    """Return a pod of somebody else, which runs on a node and never ends."""
    container = {"name": "pause", "image": "pause", "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"nodeName": node_name, "automountServiceAccountToken": False, "containers": [container]},
    }
