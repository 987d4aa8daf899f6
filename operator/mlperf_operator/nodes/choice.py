"""Which node a run gets its driver on: pure, from the nodes as they are.

A run claims one node and never another one, so it never causes more than one node to change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from mlperf_operator import driver_signs, naming
from mlperf_operator.api.v1alpha1 import DriverPolicy, MLPerfRun, Toleration
from mlperf_operator.catalogue import Catalogue, Driver
from mlperf_operator.nodes import claims, state
from mlperf_operator.nodes.claims import Claim
from mlperf_operator.nodes.records import NodeRecord, Taint
from mlperf_operator.observed import Blocked
from mlperf_operator.suites import Suite

UNSCHEDULABLE_TAINT = "node.kubernetes.io/unschedulable"
MAX_NAMED = 5
"""How many nodes a message names."""

IsAlive = Callable[[str, str], bool]


@dataclass(frozen=True)
class Fleet:
    """The nodes, and what is to be known about them to choose."""

    nodes: Sequence[NodeRecord]
    foreign: Mapping[str, tuple[str, ...]]
    """Driver pods of others by node."""
    is_alive: IsAlive
    """Whether a run, by key and uid, has not finished."""
    gpus: int = 0
    """How many GPUs the run needs."""
    product: str | None = None
    """Which ones."""


@dataclass(frozen=True)
class Use:
    """The run has its node, whose driver is ready."""

    node: NodeRecord
    version: str


@dataclass(frozen=True)
class Take:
    """The run shall claim one of these nodes, the best first."""

    nodes: tuple[NodeRecord, ...]
    version: str


Choice = Use | Take | Blocked


def wanted_driver(run: MLPerfRun, suite: Suite, catalogue: Catalogue | None, fleet: Fleet) -> Driver | None:
    """Return the driver that the operator is to bring for a run, or None where preflight alone verifies."""
    policy = run.spec.driver.policy
    if catalogue is None or not suite.uses_gpu or policy in (DriverPolicy.VERIFY, DriverPolicy.IGNORE):
        return None
    driver = catalogue.find(run.spec.driver.version)
    # With a claim the question was answered: a node that is away for a while, as in an installation, is waited for.
    if driver is None or policy is DriverPolicy.ENSURE or claimed_by(run, fleet.nodes) is not None:
        return driver
    return driver if any(not obstacle(run, node, fleet) for node in fleet.nodes if is_opted_in(node)) else None


def is_opted_in(node: NodeRecord) -> bool:
    """Say whether the administrator lets drivers be installed on a node."""
    return node.mode in ("Install", "Adopt")


def obstacle(run: MLPerfRun, node: NodeRecord, fleet: Fleet) -> str:
    """Return why a run cannot use a node that was opted in, or nothing."""
    if run.status.node not in (None, node.name):
        return f"is not {run.status.node}, which the run had claimed before"
    return _not_selected(run, node) or _not_ours(node, fleet) or _not_schedulable(run, node) or _other_gpus(node, fleet)


def _not_selected(run: MLPerfRun, node: NodeRecord) -> str:
    wrong = [f"{key}={value}" for key, value in run.spec.node_selector.items() if node.labels.get(key) != value]
    return f"has not {', '.join(wrong)} of nodeSelector" if wrong else ""


def _not_ours(node: NodeRecord, fleet: Fleet) -> str:
    manager = driver_signs.manager_of(node.labels, node.annotations, fleet.foreign.get(node.name, ()))
    return f"is managed by {manager}" if manager else ""


def _not_schedulable(run: MLPerfRun, node: NodeRecord) -> str:
    if not node.ready:
        return "is not Ready"
    if node.unschedulable and naming.DRIVER_CORDON_ANNOTATION not in node.annotations:
        return "is cordoned"
    taint = next((t for t in node.taints if not _tolerated(t, run.spec.tolerations)), None)
    return f"has the taint {taint.key}={taint.value}:{taint.effect}" if taint is not None else ""


def _other_gpus(node: NodeRecord, fleet: Fleet) -> str:
    """Return how the node's GPUs, where a driver pod has seen them, differ from the system under test."""
    told = node.told
    if told is None or not told.gpus:
        return ""
    if told.gpus < fleet.gpus:
        return f"has {told.gpus} GPUs and the run needs {fleet.gpus}"
    # Before the driver is loaded the name is the PCI database's.
    if told.driver and told.product and fleet.product and fleet.product not in told.product:
        return f"has {told.product} and the system has {fleet.product}"
    return ""


def _tolerated(taint: Taint, tolerations: Iterable[Toleration]) -> bool:
    if taint.effect == "PreferNoSchedule" or taint.key == UNSCHEDULABLE_TAINT:
        return True
    return any(_matches(taint, toleration) for toleration in tolerations)


def _matches(taint: Taint, toleration: Toleration) -> bool:
    if toleration.effect is not None and toleration.effect != taint.effect:
        return False
    if toleration.key is not None and toleration.key != taint.key:
        return False
    return toleration.operator == "Exists" or (toleration.value or "") == taint.value


def choose(run: MLPerfRun, driver: Driver, fleet: Fleet) -> Choice:
    """Return the node that a run uses, those that it may claim, or what it waits for."""
    own = claimed_by(run, fleet.nodes)
    if own is not None:
        return _claimed(run, driver, own, fleet)
    opted_in = [node for node in fleet.nodes if is_opted_in(node)]
    obstacles = {node.name: obstacle(run, node, fleet) for node in opted_in}
    fitting = [node for node in opted_in if not obstacles[node.name]]
    if not fitting:
        return _none_fits(obstacles)
    free = [node for node in fitting if not _others(node, driver, fleet).runs]
    if not free:
        return _conflict(fitting, driver, fleet)
    there_is_room = [node for node in free if not node.claim.pruned(fleet.is_alive).is_full]
    if not there_is_room:
        text = f"{claims.MAX_RUNS} runs have claimed {', '.join(node.name for node in free[:MAX_NAMED])} already"
        return Blocked("NodeClaimsFull", f"{text}, and a node takes no more; the run goes on when some have ended")
    return Take(tuple(sorted(there_is_room, key=lambda node: _rank(node, driver, fleet))), driver.version)


def claimed_by(run: MLPerfRun, nodes: Iterable[NodeRecord]) -> NodeRecord | None:
    """Return the node that a run has claimed, or None."""
    return next((node for node in nodes if run.metadata.uid in node.claim.runs), None)


def _conflict(nodes: Sequence[NodeRecord], driver: Driver, fleet: Fleet) -> Blocked:
    holders = [f"{node.name} by {_named(_others(node, driver, fleet))}" for node in nodes[:MAX_NAMED]]
    return Blocked(
        "NodeDriverConflict",
        f"every node that fits is in use with another driver than {driver.version}: {'; '.join(holders)}; the run "
        "goes on when one is free",
    )


def _claimed(run: MLPerfRun, driver: Driver, node: NodeRecord, fleet: Fleet) -> Choice:
    version = node.claim.version
    if node.driver_ready == version == driver.version:
        return Use(node, version)
    if not is_opted_in(node):
        text = f"node {node.name} has not the label {naming.DRIVER_OPT_IN_LABEL}=install or adopt any more"
        return Blocked("NodeNotOptedIn", f"{text}; the run goes on when it has, or create it again for another node")
    if version != driver.version:
        # The catalogue changed under a run that waits: the node is asked for the driver that is meant now.
        others = _others(node, driver, fleet).runs.keys() - {run.metadata.uid}
        return _conflict([node], driver, fleet) if others else Take((node,), driver.version)
    told = node.told
    if told is not None and told.version == version:
        return Blocked(told.reason, f"node {node.name}: {told.message}")
    return Blocked("DriverInstalling", f"node {node.name} gets driver {version}")


def _others(node: NodeRecord, driver: Driver, fleet: Fleet) -> Claim:
    """Return the claim of living runs that want another version of a node."""
    claim = node.claim.pruned(fleet.is_alive)
    return claim if claim.version != driver.version else Claim()


def _rank(node: NodeRecord, driver: Driver, fleet: Fleet) -> tuple[int, int, str]:
    """Sort key: ready nodes, then those that nobody uses, then those that others wait for; the least used first.

    Last comes where this driver failed before: a run has but one node, and another one may do.
    """
    users = len(node.claim.pruned(fleet.is_alive).runs)
    if node.driver_ready == driver.version:
        return (0, users, node.name)
    told = node.told
    if told is not None and told.phase is state.Phase.FAILED and told.version == driver.version:
        return (3, users, node.name)
    return (2 if users else 1, users, node.name)


def _none_fits(obstacles: Mapping[str, str]) -> Blocked:
    if not obstacles:
        return Blocked(
            "NoNodeOptedIn",
            f"no node has the label {naming.DRIVER_OPT_IN_LABEL}=install or adopt, with which its administrator lets "
            "the operator install drivers; or set driver.policy to Verify",
        )
    reasons = [f"{name} {reason}" for name, reason in obstacles.items()]
    managed = all(reason.startswith("is managed") for reason in obstacles.values())
    more = f"; and {len(reasons) - MAX_NAMED} more" if len(reasons) > MAX_NAMED else ""
    return Blocked(
        "NodeManaged" if managed else "NoNodeFits",
        f"none of the {len(obstacles)} opted-in nodes fits: {'; '.join(reasons[:MAX_NAMED])}{more}",
    )


def _named(claim: Claim) -> str:
    return f"{', '.join(sorted(claim.runs.values())[:MAX_NAMED])} ({claim.version})"
