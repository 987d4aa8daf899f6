"""A node's world, and the step that follows from it: the words that prepare.py, watch.py and next_step.py speak in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from mlperf_operator import naming
from mlperf_operator.catalogue import Catalogue, Driver, Mode
from mlperf_operator.driver_report import NodeReport, Reason
from mlperf_operator.nodes import state
from mlperf_operator.nodes.claims import Claim
from mlperf_operator.nodes.records import DriverPodRecord, NodeRecord
from mlperf_operator.nodes.state import NodeState, Phase

RECHECK = timedelta(seconds=5)
"""How often a node on its way is looked at without an event, for GPU pods that end and a driver pod that stays away."""

MAX_NAMED = 5


@dataclass(frozen=True)
class GpuPod:
    """A pod on the node that requests GPUs."""

    namespace: str
    name: str
    uid: str
    is_run: bool
    """Whether it is a benchmark of ours, which is never evicted."""

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True)
class World:
    """A node and all that decides what it needs next."""

    node: NodeRecord
    catalogue: Catalogue
    claim: Claim = field(default_factory=Claim)
    """Living runs only."""
    somebody_waits: bool = False
    """Whether one of them has no Job yet."""
    managed: str = ""
    pods: tuple[DriverPodRecord, ...] = ()
    """Our driver pods on it."""
    told: NodeReport | None = None
    """The last line of the driver pod's log."""
    gpu_pods: tuple[GpuPod, ...] | None = None
    """None where nobody looked: see next_step.needs_gpu_pods."""
    digest: str = ""
    """Digest of the DaemonSet that the node's pod should come from."""
    evict: bool = False
    pause: timedelta = timedelta(seconds=30)

    @property
    def version(self) -> str | None:
        """The version that the node is to have: the claim's, or the one that it has and that is kept under watch."""
        return self.claim.version if self.claim.runs else self.node.wanted

    @property
    def driver(self) -> Driver | None:
        """The catalogue's entry for it."""
        return self.catalogue.find(self.version) if self.version else None


@dataclass(frozen=True)
class Step:
    """How the node shall be from now on, and what to do besides."""

    report: NodeState | None
    wanted: str | None = None
    loaded: str | None = None
    ready: str | None = None
    cordon: bool = False
    """Whether it shall be cordoned by us; a cordon of somebody else is left alone."""
    daemon_set: tuple[Mode, Driver | None] | None = None
    """The DaemonSet that must be there before the node is labelled."""
    evict: tuple[GpuPod, ...] = ()
    delete: tuple[DriverPodRecord, ...] = ()
    again: timedelta | None = None


def before(world: World) -> NodeState | None:
    """Return what the node's report says so far."""
    return world.node.told


def is_ours(node: NodeRecord) -> bool:
    """Say whether the node is cordoned by us."""
    return naming.DRIVER_CORDON_ANNOTATION in node.annotations


def working(world: World, version: str | None, message: str, reason: str = "DriverInstalling") -> NodeState:
    """Return the report of a node on which something goes on.

    It keeps what was seen of the node last: should nobody want the change any more, that is what it goes back to.
    """
    told, attempts = before(world), attempts_so_far(world, version)
    seen = told.model_dump(include={"driver", "fabric_manager", "gpus", "product", "managed_by"}) if told else {}
    return NodeState(phase=Phase.WORKING, reason=reason, message=message, version=version, attempts=attempts, **seen)


def attempts_so_far(world: World, version: str | None) -> int:
    """Return how often a version failed in a row on the node."""
    told = before(world)
    return told.attempts if told is not None and told.version == version else 0


def failure(world: World, found: NodeState, now: datetime) -> Step:
    """Leave the node as far as it is ours, uncordoned, and try again later."""
    if found.reason == Reason.INTERRUPTED.value:
        # That says nothing against trying again: the next attempt goes on from here.
        report = state.again(found, attempts_so_far(world, found.version), now, world.pause)
    else:
        report = state.failed(before(world), found, now, world.pause)
    return Step(report=report, again=report.due - now if report.due is not None else None)


def names(pods: Sequence[GpuPod]) -> str:
    """Return the first pods by name, and how many more there are."""
    more = f" and {len(pods) - MAX_NAMED} more" if len(pods) > MAX_NAMED else ""
    return ", ".join(str(pod) for pod in pods[:MAX_NAMED]) + more
