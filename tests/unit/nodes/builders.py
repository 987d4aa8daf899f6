"""Fluent makers of nodes, driver pods and reports, so that a test names only what it is about."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mlperf_operator import naming
from mlperf_operator.catalogue import Driver, DriverSettings
from mlperf_operator.driver_report import NodeReport, encode
from mlperf_operator.nodes.choice import Fleet
from mlperf_operator.nodes.records import DriverPodRecord, NodeRecord
from mlperf_operator.nodes.state import NodeState, Phase
from mlperf_operator.nodes.step import World

NEW, OLD = "550.54.14", "535.183.01"


def driver(version: str) -> Driver:
    """Return a catalogue entry whose packages are all of one version."""
    source = {
        "type": "Packages",
        "os": ["debian"],
        "repository": {"url": "https://packages.example/cuda", "key": "key"},
        "driver": [{"name": "nvidia-driver", "version": f"{version}-1"}],
        "fabricManager": [{"name": "nvidia-fabricmanager", "version": f"{version}-1"}],
    }
    return Driver.model_validate({"branch": version.partition(".")[0], "version": version, "sources": [source]})


SETTINGS = DriverSettings(drivers=(driver(NEW), driver(OLD)))
EMPTY = DriverSettings()


def node(name: str = "node-1", *, opt_in: str | None = "install", **changes: Any) -> NodeRecord:
    """Return a Ready node that was opted in, without a GPU that is allocatable."""
    labels = {naming.DRIVER_OPT_IN_LABEL: opt_in} if opt_in is not None else {}
    record = NodeRecord(
        namespace="",
        name=name,
        uid=f"uid-of-{name}",
        resource_version="10",
        labels={**labels, **changes.pop("labels", {})},
        annotations={},
        unschedulable=False,
        taints=(),
        ready=True,
        gpus=0,
    )
    return replace(record, **changes)


def labelled(record: NodeRecord, **labels: str | None) -> NodeRecord:
    """Return a node with our labels changed: wanted, loaded and ready."""
    names = {
        "wanted": naming.DRIVER_WANTED_LABEL,
        "loaded": naming.DRIVER_LOADED_LABEL,
        "ready": naming.DRIVER_READY_LABEL,
    }
    found: dict[str, str | None] = {**record.labels, **{names[key]: value for key, value in labels.items()}}
    return replace(record, labels={key: value for key, value in found.items() if value is not None})


def claimed(record: NodeRecord, version: str, runs: Mapping[str, str]) -> NodeRecord:
    """Return a node that runs, namespace/name by uid, have claimed."""
    return annotated(record, {naming.DRIVER_CLAIM_ANNOTATION: json.dumps({"version": version, "runs": dict(runs)})})


def told(record: NodeRecord, phase: Phase, reason: str, **fields: Any) -> NodeRecord:
    """Return a node with this report."""
    state = NodeState(phase=phase, reason=reason, **fields)
    return annotated(record, {naming.DRIVER_REPORT_ANNOTATION: state.model_dump_json(by_alias=True)})


def cordoned(record: NodeRecord, *, by_us: bool) -> NodeRecord:
    """Return a node that is closed to new pods."""
    closed = replace(record, unschedulable=True)
    return annotated(closed, {naming.DRIVER_CORDON_ANNOTATION: "true"}) if by_us else closed


def annotated(record: NodeRecord, annotations: Mapping[str, str]) -> NodeRecord:
    """Return a node with further annotations."""
    return replace(record, annotations={**record.annotations, **annotations})


def report(**fields: Any) -> NodeReport:
    """Return what a driver pod says of a node with eight GPUs where everything matches."""
    base: dict[str, Any] = {
        "ready": True,
        "reason": "Matched",
        "driver": NEW,
        "fabric_manager": NEW,
        "gpus": 8,
        "product": "NVIDIA A100-SXM4-40GB",
        "managed_by": "mlperf-operator",
    }
    return NodeReport(**{**base, **fields})


def driver_pod(**changes: Any) -> DriverPodRecord:
    """Return a driver pod of ours that is ready."""
    record = DriverPodRecord(
        namespace="mlperf-system",
        name="mlperf-driver-550-54-14-x",
        uid="driver-pod-uid",
        node="node-1",
        mode="Install",
        version=NEW,
        digest="digest",
        deleting=False,
        ready=True,
        ensured=True,
        failed=False,
        report=encode(report()),
        killed=False,
        waits_for="",
    )
    return replace(record, **changes)


def world(record: NodeRecord, **changes: Any) -> World:
    """Return a node with its surroundings: by default with the ready driver pod of the newer driver."""
    base: dict[str, Any] = {"catalogue": SETTINGS, "pods": (driver_pod(),), "told": report(), "digest": "digest"}
    return World(node=record, **{**base, **changes})


def fleet(*nodes: NodeRecord, alive: bool = True, foreign: Mapping[str, tuple[str, ...]] | None = None) -> Fleet:
    """Return a fleet in which every run of a claim goes on, or none does."""
    return Fleet(nodes=nodes, foreign=foreign or {}, is_alive=lambda _key, _uid: alive)
