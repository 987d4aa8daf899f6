"""What a node needs next: pure, from the node, its driver pod and its claim as they are now.

docs/driver.md draws the states. A step is labels, a cordon and a report that are written in one patch, so that an
operator that is killed between two of them finds the node in a state that it knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
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

UNREADY_GRACE = timedelta(seconds=20)
"""How long a driver pod that was ready may be unready before a run that waits has the node put right again."""

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
    """None where nobody looked: see needs_gpu_pods."""
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


def needs_gpu_pods(world: World) -> bool:
    """Say whether the step depends on the pods with GPUs on the node, which cost a request to list."""
    if world.managed or world.node.mode not in ("Install", "Adopt") or world.version is None:
        return False
    return _must_prepare(world) or (not world.claim.runs and any(_outdated(world, pod) for pod in world.pods))


def next_step(world: World, now: datetime) -> Step:
    """Return what a node needs next."""
    step = _step(world, now)
    before = state.read(world.node.annotations)
    return replace(step, report=state.follow(before, step.report, now) if step.report is not None else None)


def _step(world: World, now: datetime) -> Step:
    mode = world.node.mode
    if world.managed:
        return _released(world, "NodeManaged", f"its driver is managed by {world.managed}; it is left alone")
    if mode is None:
        return _released(world, "NodeNotOptedIn", "it lost the label mlperf.dev/driver-opt-in; it is left alone")
    if mode == "Verify":
        return _watched(world, None, now)
    if world.version is None:
        return _idle(state.read(world.node.annotations))
    if _must_prepare(world):
        return _prepared(world, world.version, now)
    return _watched(world, world.version, now)


def _released(world: World, reason: str, message: str) -> Step:
    """Take back all that is ours; the report stays where a run waits for it, or where there was one."""
    before = state.read(world.node.annotations)
    if before is None and not world.claim.runs:
        return Step(report=None)
    return Step(report=NodeState(phase=Phase.WAITING, reason=reason, message=message, version=world.version))


def _idle(before: NodeState | None) -> Step:
    return _given_up(before.version) if before is not None and before.phase is Phase.WORKING else Step(report=before)


def _given_up(version: str | None) -> Step:
    """Take back what was begun for runs that ended before their driver was there."""
    text = f"the runs that wanted driver {version} ended before its driver pod could start"
    return Step(report=NodeState(phase=Phase.WAITING, reason="DriverNotWanted", message=text, version=version))


def _must_prepare(world: World) -> bool:
    return world.node.wanted != world.version


def _prepared(world: World, version: str, now: datetime) -> Step:
    """Empty the node of the old driver's pods and of pods with GPUs, then let the new driver's pod come."""
    before = state.read(world.node.annotations)
    if before is not None and before.version == version and before.due is not None and now < before.due:
        return Step(report=before, again=before.due - now)
    driver, mode = world.driver, world.node.mode
    if driver is None or mode is None:
        text = f"driver {version} is not in the catalogue any more; possible: {world.catalogue.names()}"
        return Step(report=NodeState(phase=Phase.WAITING, reason="DriverNotInCatalogue", message=text, version=version))
    if world.pods or world.gpu_pods is None:
        return Step(
            report=_working(before, version, "it is cordoned, and the driver pod that was there ends first"),
            cordon=True,
            again=RECHECK,
        )
    if world.gpu_pods:
        return _occupied(world, version, world.gpu_pods, now)
    report = _working(before, version, f"driver {version} is being made to match")
    return Step(report=report, wanted=version, cordon=True, daemon_set=(mode, driver), again=RECHECK)


def _occupied(world: World, version: str, pods: Sequence[GpuPod], now: datetime) -> Step:
    """Evict pods with GPUs where that is allowed, else leave the node as it was and try again later."""
    before = state.read(world.node.annotations)
    ours = any(pod.is_run for pod in pods)
    if world.evict and not ours:
        text = f"evicting pods with GPUs: {_names(pods)}"
        report = _working(before, version, text, "DriverDraining")
        return Step(report=report, cordon=True, evict=tuple(pods), again=RECHECK)
    advice = (
        "a run of MLPerf is never evicted, and nothing else while one is there; it goes on when they have ended"
        if ours
        else "it goes on when they have ended, or with chart value driver.evictGpuPods"
    )
    text = f"pods use its GPUs: {_names(pods)}; {advice}"
    busy = NodeState(phase=Phase.WAITING, reason=Reason.GPU_IN_USE.value, message=text, version=version)
    return _failure(world, busy, now)


def _names(pods: Sequence[GpuPod]) -> str:
    more = f" and {len(pods) - MAX_NAMED} more" if len(pods) > MAX_NAMED else ""
    return ", ".join(str(pod) for pod in pods[:MAX_NAMED]) + more


def _working(
    before: NodeState | None, version: str | None, message: str, reason: str = "DriverInstalling"
) -> NodeState:
    attempts = _attempts(before, version)
    return NodeState(phase=Phase.WORKING, reason=reason, message=message, version=version, attempts=attempts)


def _attempts(before: NodeState | None, version: str | None) -> int:
    return before.attempts if before is not None and before.version == version else 0


def _failure(world: World, found: NodeState, now: datetime) -> Step:
    """Leave the node as far as it is ours, uncordoned, and try again later."""
    before = state.read(world.node.annotations)
    report = state.failed(before, found, now, world.pause)
    return Step(report=report, again=report.due - now if report.due is not None else None)


def _watched(world: World, version: str | None, now: datetime) -> Step:
    """Follow the driver pod: the labels say what it found."""
    mode, node, before = world.node.mode, world.node, state.read(world.node.annotations)
    driver = world.driver if version is not None else None
    daemon_set = (mode, driver) if mode is not None and (version is None or driver is not None) else None
    # Closed only for a run that waits, and while the package manager may be at work.
    at_work = any(not pod.ensured and not pod.waits_for for pod in world.pods)
    cordon = mode != "Verify" and _ours(node) and (bool(world.claim.runs) or at_work)
    keep = Step(report=before, wanted=version, cordon=cordon, daemon_set=daemon_set)
    pod = next((p for p in world.pods if (p.mode, p.version) == (mode, version or "") and not p.deleting), None)
    if mode != "Verify" and _ours(node) and not cordon and (pod is None or not pod.ensured):
        return _given_up(version)
    if pod is None:
        report = _working(before, version, "its driver pod has not come yet; see `kubectl get daemonsets -A`")
        return replace(keep, report=report, again=RECHECK)
    return _followed(world, keep, pod, now)


def _followed(world: World, keep: Step, pod: DriverPodRecord, now: datetime) -> Step:
    if _outdated(world, pod) and (world.node.mode == "Verify" or (not world.claim.runs and world.gpu_pods == ())):
        return replace(keep, loaded=world.node.loaded, ready=None, delete=(pod,), again=RECHECK)
    if pod.failed:
        return _attempt_failed(world, keep, pod, now)
    if not pod.ensured:
        text = pod.waits_for or "its driver pod is at work"
        report = _working(keep.report, keep.wanted, text, *_blocked_reason(pod))
        return replace(keep, report=report, again=RECHECK)
    if not pod.ready:
        return _unready(world, keep, pod, now)
    return _loaded(world, keep, pod)


def _blocked_reason(pod: DriverPodRecord) -> tuple[str, ...]:
    return ("DriverPodBlocked",) if pod.waits_for else ()


def _outdated(world: World, pod: DriverPodRecord) -> bool:
    return bool(world.digest) and pod.digest != world.digest and not pod.deleting


def _ours(node: NodeRecord) -> bool:
    return naming.DRIVER_CORDON_ANNOTATION in node.annotations


def _attempt_failed(world: World, keep: Step, pod: DriverPodRecord, now: datetime) -> Step:
    """Take the pod away and try again later; where nobody waits for it, the kubelet's own restarts do."""
    report = parsed(pod.report)
    if report is None:
        text = f"the driver pod {pod.name} ended without a report; see its log"
        report = NodeReport(ready=False, reason=Reason.INSTALL_FAILED.value, message=text)
    found = state.of_report(Phase.FAILED, keep.wanted, report)
    if keep.wanted is not None and (world.claim.runs or _ours(world.node)):
        return _failure(world, found, now)
    return replace(keep, report=found, cordon=False)


def parsed(text: str) -> NodeReport | None:
    """Return a driver pod's report, or None where it is none."""
    try:
        return NodeReport.model_validate_json(text)
    except ValueError:
        return None


def _unready(world: World, keep: Step, pod: DriverPodRecord, now: datetime) -> Step:
    """The driver was there and something does not match any more, or the first look is not over."""
    before, told, version = state.read(world.node.annotations), world.told, keep.wanted
    if told is None or told.ready:
        text = pod.waits_for or "its driver pod verifies"
        return replace(keep, report=_working(before, version, text, *_blocked_reason(pod)), again=RECHECK)
    found = state.of_report(Phase.FAILED, version, told).model_copy(update={"attempts": _attempts(before, version)})
    report = state.follow(before, found, now)
    since = datetime.fromisoformat(report.since)
    if version is not None and world.somebody_waits and now >= since + UNREADY_GRACE:
        return _failure(world, report, now)
    # The device plugin stays while the driver itself works.
    loaded = told.driver if told.driver is not None and told.driver == world.node.loaded else None
    return replace(keep, report=report, loaded=loaded, cordon=False, again=RECHECK)


def _loaded(world: World, keep: Step, pod: DriverPodRecord) -> Step:
    report = world.told or parsed(pod.report)
    if report is None or not report.ready or report.driver is None:
        return replace(keep, report=_working(keep.report, keep.wanted, "its driver pod verifies"), again=RECHECK)
    if report.gpus and world.node.gpus == report.gpus:
        found = state.of_report(Phase.READY, keep.wanted, report)
        return replace(keep, report=found, loaded=report.driver, ready=report.driver, cordon=False)
    text = (
        f"driver {report.driver} works, and {world.node.gpus} of {report.gpus} GPUs are allocatable as nvidia.com/gpu; "
        "a device plugin has to offer them (chart value driver.devicePlugin.enabled)"
    )
    found = state.of_report(Phase.WAITING, keep.wanted, report)
    found = found.model_copy(update={"reason": "GPUNotAllocatable", "message": text})
    return replace(keep, report=found, loaded=report.driver, cordon=False, again=RECHECK)
