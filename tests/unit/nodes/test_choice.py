"""Which node a run gets its driver on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from mlperf_operator.api.v1alpha1 import MLPerfRun, Toleration
from mlperf_operator.nodes.choice import Choice, Fleet, Take, Use, choose, obstacle, wanted_driver
from mlperf_operator.nodes.records import NodeRecord, Taint
from mlperf_operator.nodes.state import Phase
from mlperf_operator.observed import Blocked
from mlperf_operator.suites import BUILT_IN
from unit.core.builders import UID, a100, run
from unit.nodes.builders import (
    EMPTY,
    NEW,
    OLD,
    SETTINGS,
    annotated,
    claimed,
    cordoned,
    driver,
    fleet,
    labelled,
    node,
    told,
)

NVIDIA = BUILT_IN["nvidia-v4.1"]
OTHERS = {"uid-b": "bench/b"}
OWN = {UID: "bench/demo"}
NEWER, OLDER = driver(NEW), driver(OLD)


def _names(choice: Choice) -> list[str]:
    assert isinstance(choice, Take), choice
    return [found.name for found in choice.nodes]


def _blocked(choice: Choice) -> Blocked:
    assert isinstance(choice, Blocked), choice
    return choice


# Which driver


@pytest.mark.parametrize(
    ("wants", "version"),
    [
        (a100(driver={"policy": "Ensure"}), NEW),
        (a100(driver={"policy": "Ensure", "version": OLD}), OLD),
        (a100(driver={"policy": "Ensure", "version": "470"}), None),
        (a100(driver={"policy": "Auto"}), NEW),
        (a100(driver={"policy": "Auto", "version": "470"}), None),
        (a100(driver={"policy": "Verify"}), None),
        (a100(driver={"policy": "Ignore"}), None),
    ],
)
def test_the_policy_and_the_catalogue_say_which_driver_is_brought(wants: MLPerfRun, version: str | None) -> None:
    found = wanted_driver(wants, NVIDIA, SETTINGS, fleet(node()))
    assert (found.version if found else None) == version


def test_a_suite_without_gpus_and_an_operator_without_driver_management_bring_none() -> None:
    assert wanted_driver(run({"driver": {"policy": "Ensure"}}), BUILT_IN["reference-cpu"], SETTINGS, fleet()) is None
    assert wanted_driver(a100(), NVIDIA, None, fleet(node())) is None
    assert wanted_driver(a100(), NVIDIA, EMPTY, fleet(node())) is None


NO_NODE_FOR_US: list[tuple[str, Fleet]] = [
    ("no node", fleet()),
    ("nobody opted in", fleet(node(opt_in=None))),
    ("verify only", fleet(node(opt_in="verify"))),
    ("an opt-in that is no word of ours", fleet(node(opt_in="true"))),
    ("managed", fleet(node(labels={"nvidia.com/gpu.deploy.driver": "true"}))),
    ("a foreign driver pod", fleet(node(), foreign={"node-1": ("gpu-operator/x",)})),
    ("not Ready", fleet(node(ready=False))),
]


@pytest.mark.parametrize(("case", "nodes"), NO_NODE_FOR_US, ids=[case[0] for case in NO_NODE_FOR_US])
def test_auto_falls_back_to_verify_where_no_node_is_ours_to_change_and_ensure_waits(case: str, nodes: Fleet) -> None:
    assert wanted_driver(a100(), NVIDIA, SETTINGS, nodes) is None, case
    assert wanted_driver(a100(driver={"policy": "Ensure"}), NVIDIA, SETTINGS, nodes) == NEWER


def test_auto_stays_with_the_node_that_it_claimed_although_that_is_away_for_a_while() -> None:
    away = claimed(node(ready=False), NEW, OWN)
    assert wanted_driver(a100(), NVIDIA, SETTINGS, fleet(away)) == NEWER


# What stands in the way


def _tainted(key: str = "sku", effect: str = "NoSchedule") -> NodeRecord:
    return node(taints=(Taint(key, "gpu", effect),))


OBSTACLES: list[tuple[str, NodeRecord, Mapping[str, Any], str]] = [
    ("fits", node(), {}, ""),
    ("selected", node(labels={"pool": "gpu"}), {"nodeSelector": {"pool": "gpu"}}, ""),
    ("not selected", node(labels={"pool": "cpu"}), {"nodeSelector": {"pool": "gpu"}}, "has not pool=gpu"),
    ("managed", node(labels={"nvidia.com/gpu.deploy.driver": "true"}), {}, "is managed by NVIDIA's GPU operator"),
    ("not Ready", node(ready=False), {}, "is not Ready"),
    ("cordoned by others", cordoned(node(), by_us=False), {}, "is cordoned"),
    ("cordoned by us", cordoned(node(), by_us=True), {}, ""),
    ("tainted", _tainted(), {}, "has the taint sku=gpu:NoSchedule"),
    ("evicting", _tainted(effect="NoExecute"), {}, "has the taint sku=gpu:NoExecute"),
    ("a mere preference", _tainted(effect="PreferNoSchedule"), {}, ""),
    ("the taint of a cordon", _tainted("node.kubernetes.io/unschedulable"), {}, ""),
]


@pytest.mark.parametrize(("case", "record", "spec", "word"), OBSTACLES, ids=[case[0] for case in OBSTACLES])
def test_what_keeps_a_run_from_a_node_is_named(
    case: str, record: NodeRecord, spec: Mapping[str, Any], word: str
) -> None:
    found = obstacle(a100(**spec), record, fleet(record))
    assert word in found, case
    assert bool(found) == bool(word)


def test_a_driver_pod_of_others_is_an_obstacle_on_its_own_node_only() -> None:
    nodes = fleet(node(), node("node-2"), foreign={"node-1": ("gpu-operator/x",)})
    assert "gpu-operator/x" in obstacle(a100(), nodes.nodes[0], nodes)
    assert obstacle(a100(), nodes.nodes[1], nodes) == ""


@pytest.mark.parametrize(
    ("toleration", "tolerated"),
    [
        ({"key": "sku", "value": "gpu", "effect": "NoSchedule"}, True),
        ({"key": "sku", "value": "gpu"}, True),
        ({"key": "sku", "operator": "Exists"}, True),
        ({"operator": "Exists"}, True),
        ({"key": "sku", "value": "cpu"}, False),
        ({"key": "sku"}, False),
        ({"key": "other", "operator": "Exists"}, False),
        ({"key": "sku", "value": "gpu", "effect": "NoExecute"}, False),
    ],
)
def test_a_taint_is_tolerated_as_the_scheduler_does(toleration: dict[str, str], tolerated: bool) -> None:
    wants = a100(tolerations=[Toleration.model_validate(toleration)])
    assert (obstacle(wants, _tainted(), fleet()) == "") is tolerated


def _has(**said: Any) -> NodeRecord:
    """Return a node on which a driver pod has seen GPUs."""
    seen = {"gpus": 8, "product": "NVIDIA A100-SXM4-40GB", "driver": OLD, **said}
    return told(node(), Phase.READY, "Matched", version=OLD, **seen)


OTHER_GPUS: list[tuple[str, NodeRecord, str]] = [
    ("nobody looked", node(), ""),
    ("exactly those", _has(), ""),
    ("more", _has(gpus=16), ""),
    ("too few", _has(gpus=4), "has 4 GPUs and the run needs 8"),
    ("too few without a driver", _has(gpus=4, driver=None), "has 4 GPUs and the run needs 8"),
    ("no count", _has(gpus=0, product="NVIDIA H200"), ""),
    ("others", _has(product="NVIDIA A100-SXM4-80GB"), "has NVIDIA A100-SXM4-80GB and the system has A100-SXM4-40GB"),
    ("the PCI database's name", _has(product="GA100 [A100 SXM4 40GB]", driver=None), ""),
    ("no name", _has(product=None), ""),
]


@pytest.mark.parametrize(("case", "record", "word"), OTHER_GPUS, ids=[case[0] for case in OTHER_GPUS])
def test_a_node_whose_gpus_are_not_those_of_the_system_under_test_is_not_taken(
    case: str, record: NodeRecord, word: str
) -> None:
    wants = replace(fleet(record), gpus=8, product="A100-SXM4-40GB")
    assert obstacle(a100(), record, wants) == word, case
    assert obstacle(a100(), record, fleet(record)) == "", case


def test_a_run_that_was_suspended_after_its_claim_gets_only_that_node_again() -> None:
    before = a100(driver={"policy": "Ensure"})
    before = before.model_copy(update={"status": before.status.model_copy(update={"node": "node-2"})})
    ready = labelled(node(), wanted=NEW, loaded=NEW, ready=NEW)
    assert _names(choose(before, NEWER, fleet(ready, node("node-2")))) == ["node-2"]
    found = _blocked(choose(before, NEWER, fleet(ready, claimed(node("node-2"), OLD, OTHERS))))
    assert found.reason == "NodeDriverConflict"
    assert "node-2 by bench/b" in found.message
    for away in (fleet(ready), fleet(ready, node("node-2", ready=False))):
        found = _blocked(choose(before, NEWER, away))
        assert found.reason == "NoNodeFits"
        assert "node-1 is not node-2, which the run had claimed before" in found.message


# The choice


def test_ready_comes_before_idle_before_shared_before_what_failed() -> None:
    ready = claimed(labelled(node("z-ready"), wanted=NEW, loaded=NEW, ready=NEW), NEW, OTHERS)
    failed = told(node("a-failed"), Phase.FAILED, "DriverPresent", version=NEW)
    shared = claimed(node("b-shared"), NEW, OTHERS)
    idle = node("c-idle")
    assert _names(choose(a100(), NEWER, fleet(failed, shared, idle, ready))) == [
        *("z-ready", "c-idle", "b-shared", "a-failed"),
    ]


def test_of_equal_nodes_the_least_used_comes_first_then_the_first_by_name() -> None:
    two = claimed(node("a"), NEW, {**OTHERS, "uid-c": "bench/c"})
    one, another = claimed(node("c"), NEW, OTHERS), claimed(node("b"), NEW, OTHERS)
    assert _names(choose(a100(), NEWER, fleet(two, one, another))) == ["b", "c", "a"]


def test_a_failure_of_another_driver_or_one_that_may_pass_says_nothing() -> None:
    nodes = [
        told(node("a"), Phase.FAILED, "PackagesNotFound", version=OLD),
        told(node("b"), Phase.WAITING, "GPUInUse", version=NEW),
        node("c"),
    ]
    assert _names(choose(a100(), NEWER, fleet(*nodes))) == ["a", "b", "c"]


def test_a_node_that_is_ready_with_another_driver_counts_as_idle() -> None:
    other = labelled(node("a"), wanted=OLD, loaded=OLD, ready=OLD)
    assert _names(choose(a100(), NEWER, fleet(other, node("b")))) == ["a", "b"]


def test_a_claim_of_runs_that_have_ended_is_none() -> None:
    stale = claimed(node(), OLD, OTHERS)
    assert _names(choose(a100(), NEWER, fleet(stale, alive=False))) == ["node-1"]


def test_a_run_waits_for_nodes_in_use_with_another_driver_and_is_told_by_whom() -> None:
    found = _blocked(choose(a100(), NEWER, fleet(claimed(node(), OLD, OTHERS), node("node-2", ready=False))))
    assert found.reason == "NodeDriverConflict"
    assert f"node-1 by bench/b ({OLD})" in found.message
    assert NEW in found.message
    assert "node-2" not in found.message


def test_a_conflict_does_not_make_a_run_take_a_node_that_does_not_fit() -> None:
    assert _names(choose(a100(), NEWER, fleet(claimed(node(), OLD, OTHERS), node("node-2")))) == ["node-2"]


def test_where_nobody_opted_in_the_run_is_told_how_to() -> None:
    found = _blocked(choose(a100(), NEWER, fleet(node(opt_in=None), node("b", opt_in="verify"))))
    assert found.reason == "NoNodeOptedIn"
    assert "mlperf.dev/driver-opt-in=install" in found.message


def test_where_no_node_fits_the_first_ones_are_named_with_what_is_wrong() -> None:
    nodes = [node(f"node-{n}", ready=False) for n in range(7)]
    found = _blocked(choose(a100(), NEWER, fleet(*nodes)))
    assert found.reason == "NoNodeFits"
    assert "none of the 7 opted-in nodes fits: node-0 is not Ready" in found.message
    assert "node-4 is not Ready; and 2 more" in found.message
    assert "node-5" not in found.message


def test_where_every_node_is_managed_the_reason_says_so_and_not_when_only_the_first_are() -> None:
    managed = [node(f"node-{n}", labels={"nvidia.com/gpu.deploy.driver": "true"}) for n in range(6)]
    assert _blocked(choose(a100(), NEWER, fleet(*managed))).reason == "NodeManaged"
    last = cordoned(node("node-9"), by_us=False)
    assert _blocked(choose(a100(), NEWER, fleet(*managed, last))).reason == "NoNodeFits"


# The node that is claimed already

MINE = claimed(node("mine"), NEW, OWN)


def test_a_run_keeps_its_own_node_whatever_better_one_comes() -> None:
    better = labelled(node("a-better"), wanted=NEW, loaded=NEW, ready=NEW)
    found = _blocked(choose(a100(), NEWER, fleet(better, MINE)))
    assert (found.reason, found.message) == ("DriverInstalling", f"node mine gets driver {NEW}")


@pytest.mark.parametrize("changes", [{"ready": False}, {"labels": {"nvidia.com/gpu.deploy.driver": "true"}}])
def test_a_run_keeps_its_own_node_although_that_would_not_be_chosen_now(changes: dict[str, Any]) -> None:
    assert isinstance(choose(a100(), NEWER, fleet(claimed(node(**changes), NEW, OWN), node("b"))), Blocked)


def test_a_run_goes_on_once_its_node_has_exactly_its_driver() -> None:
    ready = labelled(MINE, wanted=NEW, loaded=NEW, ready=NEW)
    assert choose(a100(), NEWER, fleet(ready)) == Use(ready, NEW)
    assert isinstance(choose(a100(), NEWER, fleet(labelled(MINE, ready=OLD))), Blocked)


def test_a_run_that_waits_says_what_its_node_says() -> None:
    full = told(MINE, Phase.FAILED, "DiskFull", version=NEW, message="2 GB are free; free space on the node")
    found = _blocked(choose(a100(), NEWER, fleet(full)))
    assert (found.reason, found.message) == ("DiskFull", "node mine: 2 GB are free; free space on the node")


def test_what_the_node_said_of_another_driver_is_not_passed_on() -> None:
    before = told(MINE, Phase.FAILED, "DiskFull", version=OLD)
    assert _blocked(choose(a100(), NEWER, fleet(before))).reason == "DriverInstalling"


def test_a_run_whose_version_means_another_driver_now_asks_its_own_node_for_that() -> None:
    before = claimed(node("mine"), OLD, OWN)
    choice = choose(a100(), NEWER, fleet(node("a"), before))
    assert choice == Take((before,), NEW)


def test_it_does_not_while_another_run_uses_the_driver_that_was_meant_before() -> None:
    shared = claimed(node("mine"), OLD, {**OWN, **OTHERS})
    working = told(labelled(shared, wanted=OLD, loaded=OLD, ready=OLD), Phase.READY, "Matched", version=OLD)
    found = _blocked(choose(a100(), NEWER, fleet(working)))
    assert found.reason == "NodeDriverConflict"
    assert "bench/b" in found.message
    assert choose(a100(), NEWER, fleet(working, alive=False)) == Take((working,), NEW)


@pytest.mark.parametrize("opt_in", [None, "verify"])
def test_a_run_whose_node_was_taken_back_says_so_and_not_that_an_installation_goes_on(opt_in: str | None) -> None:
    taken = told(claimed(node("mine", opt_in=opt_in), NEW, OWN), Phase.READY, "Matched", version=NEW, driver=OLD)
    found = _blocked(choose(a100(), NEWER, fleet(taken)))
    assert found.reason == "NodeNotOptedIn"
    assert "mine" in found.message


def test_a_claim_that_cannot_be_read_keeps_nobody_from_the_node() -> None:
    torn = annotated(node(), {"mlperf.dev/driver-claim": "{"})
    assert _names(choose(a100(), NEWER, fleet(torn))) == ["node-1"]


def test_two_drivers_of_one_fleet_are_chosen_apart() -> None:
    assert _names(choose(a100(), OLDER, fleet(claimed(node(), NEW, OTHERS), node("node-2")))) == ["node-2"]
