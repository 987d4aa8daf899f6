"""What the operator saw of nodes and of the driver pods on them: slim frozen records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mlperf_operator import naming
from mlperf_operator.catalogue import Mode
from mlperf_operator.driver_signs import WATCHED_ANNOTATIONS
from mlperf_operator.nodes import claims, state
from mlperf_operator.nodes.claims import Claim
from mlperf_operator.nodes.state import NodeState
from mlperf_operator.resources.containers import GPU_RESOURCE
from mlperf_operator.resources.driver_daemonset import ENSURE, VERIFY

Raw = Mapping[str, Any]

OPT_IN: Mapping[str, Mode] = {"install": "Install", "adopt": "Adopt", "verify": "Verify"}
"""Values of the opt-in label; any other one is no opt-in."""

SIGNAL = 128
"""Exit codes above it say that a signal ended the container."""


@dataclass(frozen=True)
class Taint:
    """A taint of a node."""

    key: str
    value: str
    effect: str


@dataclass(frozen=True)
class NodeRecord:
    """A node."""

    namespace: str
    """Always empty: nodes have none."""
    name: str
    uid: str
    resource_version: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    """Our own and the watched ones of others."""
    unschedulable: bool
    taints: tuple[Taint, ...]
    ready: bool
    gpus: int
    """Allocatable nvidia.com/gpu."""

    @cached_property
    def claim(self) -> Claim:
        """Who uses its driver. Read once: every run that waits asks every node."""
        return claims.read(self.annotations)

    @cached_property
    def told(self) -> NodeState | None:
        """What its report says, None where there is none that can be read."""
        return state.read(self.annotations)

    @property
    def mode(self) -> Mode | None:
        """What the administrator permits here, or None."""
        return OPT_IN.get(self.labels.get(naming.DRIVER_OPT_IN_LABEL, ""))

    @property
    def wanted(self) -> str | None:
        """The version that the driver pod on it shall bring about."""
        return self.labels.get(naming.DRIVER_WANTED_LABEL)

    @property
    def loaded(self) -> str | None:
        """The version that is loaded and was verified."""
        return self.labels.get(naming.DRIVER_LOADED_LABEL)

    @property
    def driver_ready(self) -> str | None:
        """The version with which everything matches."""
        return self.labels.get(naming.DRIVER_READY_LABEL)


@dataclass(frozen=True)
class DriverPodRecord:
    """A driver pod of ours."""

    namespace: str
    name: str
    uid: str
    node: str
    mode: str
    version: str
    """Empty in mode Verify."""
    digest: str
    deleting: bool
    ready: bool
    ensured: bool
    """Whether its init container ended well."""
    failed: bool
    """Whether its init container failed, also if it runs again by now."""
    report: str
    """The init container's last termination message."""
    killed: bool
    """Whether a signal ended it, so that it could not report."""
    waits_for: str
    """What the kubelet says keeps a container from starting, such as an image that cannot be pulled."""


@dataclass(frozen=True)
class ForeignPodRecord:
    """A driver pod of somebody else, as NVIDIA's GPU operator labels them."""

    namespace: str
    name: str
    node: str


def decode_node(body: Raw) -> NodeRecord:
    """Keep of a node what drivers need."""
    meta, spec, status = body["metadata"], body.get("spec", {}), body.get("status", {})
    annotations = meta.get("annotations") or {}
    kept = {k: v for k, v in annotations.items() if k.startswith(naming.OWN_PREFIX) or k in WATCHED_ANNOTATIONS}
    conditions = {c["type"]: c["status"] for c in status.get("conditions") or ()}
    gpus = str((status.get("allocatable") or {}).get(GPU_RESOURCE, "0"))
    return NodeRecord(
        namespace="",
        name=meta["name"],
        uid=meta["uid"],
        resource_version=meta["resourceVersion"],
        labels=meta.get("labels") or {},
        annotations=kept,
        unschedulable=bool(spec.get("unschedulable")),
        taints=tuple(Taint(t["key"], t.get("value", ""), t["effect"]) for t in spec.get("taints") or ()),
        ready=conditions.get("Ready") == "True",
        gpus=int(gpus) if gpus.isdecimal() else 0,
    )


def decode_driver_pod(body: Raw) -> DriverPodRecord:
    """Keep of a driver pod what its node's plan needs."""
    meta, status = body["metadata"], body.get("status", {})
    labels = meta.get("labels") or {}
    init = _status_of(status.get("initContainerStatuses") or (), ENSURE)
    main = _status_of(status.get("containerStatuses") or (), VERIFY)
    ended = [
        state["terminated"] for state in (init.get("state", {}), init.get("lastState", {})) if "terminated" in state
    ]
    ensured = init.get("state", {}).get("terminated", {}).get("exitCode") == 0
    # After a reboot of the node an init container that had ended well runs again.
    failed = bool(ended) and ended[0].get("exitCode") != 0
    return DriverPodRecord(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta["uid"],
        node=_node_of(body),
        mode=labels.get(naming.DRIVER_MODE_LABEL, ""),
        version=labels.get(naming.DRIVER_VERSION_LABEL, ""),
        digest=labels.get(naming.DRIVER_DIGEST_LABEL, ""),
        deleting="deletionTimestamp" in meta,
        ready=bool(main.get("ready")),
        ensured=ensured,
        failed=failed,
        report=ended[0].get("message", "") if ended else "",
        killed=bool(ended) and ended[0].get("exitCode", 0) > SIGNAL,
        waits_for=_waits_for(init, _ORDINARY | {CRASHING}) or _waits_for(main, _ORDINARY) or _unschedulable(status),
    )


def decode_foreign_pod(body: Raw) -> ForeignPodRecord:
    """Keep of somebody else's driver pod where it is, or will be."""
    meta = body["metadata"]
    return ForeignPodRecord(meta["namespace"], meta["name"], _node_of(body))


def _status_of(statuses: Sequence[Raw], name: str) -> Raw:
    return next((status for status in statuses if status["name"] == name), {})


_ORDINARY = frozenset({"", "PodInitializing", "ContainerCreating"})
CRASHING = "CrashLoopBackOff"
"""Of the init container no news: that it failed, and why, is in its termination message."""


def _waits_for(container: Raw, ordinary: AbstractSet[str]) -> str:
    waiting = container.get("state", {}).get("waiting") or {}
    if waiting.get("reason", "") in ordinary:
        return ""
    return f"{waiting['reason']}: {waiting.get('message', '')}".rstrip(": ")


def _unschedulable(status: Raw) -> str:
    scheduled: Raw = next((c for c in status.get("conditions") or () if c["type"] == "PodScheduled"), {})
    return str(scheduled.get("message", "")) if scheduled.get("status") == "False" else ""


def _node_of(body: Raw) -> str:
    """Return the node that a pod is on, or that its DaemonSet made it for: a pending one names it in its affinity."""
    spec = body.get("spec", {})
    if spec.get("nodeName"):
        return str(spec["nodeName"])
    required = ((spec.get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    ) or {}
    fields = [f for term in required.get("nodeSelectorTerms") or () for f in term.get("matchFields") or ()]
    named = [value for f in fields if f.get("key") == "metadata.name" for value in f.get("values") or ()]
    return str(named[0]) if named else ""
