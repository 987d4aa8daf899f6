"""A run's way to its driver: what it claims, what it waits for, and what is told of its node."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from mlperf_operator import naming
from mlperf_operator.api.v1alpha1 import MLPerfRun
from mlperf_operator.cluster import ApiError
from mlperf_operator.driver_keeper import BUSY_SECONDS, MAX_LOOKS
from mlperf_operator.nodes import claims
from mlperf_operator.nodes.claims import Claim
from mlperf_operator.observed import Blocked, DriverView
from unit.nodes.api import Api, Body, Operator, finish, gpu_pod, new_node, new_run
from unit.nodes.builders import NEW, OLD, SETTINGS

EVICTING = SETTINGS.model_copy(update={"evict_gpu_pods": True})


@pytest.fixture
def api() -> Api:
    """A cluster with one node that was opted in and one run that wants a driver."""
    found = Api()
    new_node(found)
    new_run(found)
    return found


def _claim(api: Api, name: str = "node-1") -> Claim:
    return claims.read(api.node(name)["metadata"].get("annotations") or {})


def _make_ready(api: Api, name: str = "node-1", version: str = NEW, **said: Any) -> Body:
    node = api.node(name)
    for label in (naming.DRIVER_WANTED_LABEL, naming.DRIVER_LOADED_LABEL, naming.DRIVER_READY_LABEL):
        node["metadata"]["labels"][label] = version
    state = {"phase": "Ready", "reason": "Matched", "version": version, "driver": version, "gpus": 8, **said}
    node["metadata"]["annotations"][naming.DRIVER_REPORT_ANNOTATION] = json.dumps(state)
    return api.put(node)


def _run(api: Api, name: str = "a") -> MLPerfRun:
    return MLPerfRun.model_validate(api.objects["MLPerfRun", "bench", name])


async def test_a_run_claims_a_node_and_waits_for_its_driver(api: Api) -> None:
    operator = Operator(api)
    assert await operator.driver_for("bench/a") == Blocked("DriverInstalling", f"node node-1 gets driver {NEW}")
    assert _claim(api) == Claim(NEW, {"uid-a": "bench/a"})
    assert operator.keeper.waiting == {"bench/a"}
    _make_ready(api)
    assert await operator.driver_for("bench/a") == NEW
    assert operator.keeper.waiting == set()


async def test_a_node_that_has_the_driver_is_claimed_and_used_at_once(api: Api) -> None:
    new_node(api, "node-0")
    _make_ready(api)
    assert await Operator(api).driver_for("bench/a") == NEW
    assert api.requests == ["patch node-1"]
    assert "bench/a" in _claim(api).runs.values()


async def test_before_the_informer_saw_the_claim_the_run_keeps_its_node(api: Api) -> None:
    new_node(api, "node-0")
    operator = Operator(api)
    await operator.driver_for("bench/a")
    claimed = [name for name in ("node-0", "node-1") if _claim(api, name).runs]
    for _ in range(2):
        await operator.driver_for("bench/a", look=False)
    assert [name for name in ("node-0", "node-1") if _claim(api, name).runs] == claimed
    assert sum(request.startswith("patch") for request in api.requests) == 1


async def test_a_node_that_changed_meanwhile_is_an_error_that_is_tried_again(api: Api) -> None:
    operator = Operator(api)
    api.put(api.node())
    with pytest.raises(ApiError) as caught:
        await operator.driver_for("bench/a", look=False)
    assert caught.value.status == 409
    assert not _claim(api).runs
    await operator.driver_for("bench/a")
    assert _claim(api).runs


def _touch(api: Api) -> None:
    api.put(api.node())


async def test_two_runs_that_look_at_the_same_moment_do_not_both_get_the_node(api: Api) -> None:
    new_run(api, "b", "535")
    operator = Operator(api)
    api.meanwhile = [lambda: None, lambda: _touch(api)]
    with pytest.raises(ApiError):
        await operator.driver_for("bench/b")
    await operator.driver_for("bench/a")
    blocked = await operator.driver_for("bench/b")
    assert isinstance(blocked, Blocked)
    assert blocked.reason == "NodeDriverConflict"


async def test_a_suspended_run_claims_nothing(api: Api) -> None:
    api.objects["MLPerfRun", "bench", "a"]["spec"]["suspend"] = True
    operator = Operator(api)
    blocked = await operator.driver_for("bench/a")
    assert isinstance(blocked, Blocked)
    assert blocked.reason == "Suspended"
    assert api.requests == []
    assert operator.keeper.waiting == set()


async def test_a_run_whose_driver_is_not_ours_to_bring_waits_for_nothing(api: Api) -> None:
    api.objects["MLPerfRun", "bench", "a"]["spec"]["driver"]["policy"] = "Verify"
    operator = Operator(api)
    operator.keeper.waiting.add("bench/a")
    assert await operator.driver_for("bench/a") is None
    assert operator.keeper.waiting == set()


async def test_the_claims_of_runs_that_ended_go_with_the_next_claim(api: Api) -> None:
    operator = Operator(api)
    await operator.driver_for("bench/a")
    finish(api, "a")
    new_run(api, "b", "535")
    await operator.driver_for("bench/b")
    assert _claim(api) == Claim(OLD, {"uid-b": "bench/b"})


# Whether a run holds its node


@pytest.mark.parametrize(
    ("spec", "status", "alive"),
    [
        ({}, {}, True),
        ({}, {"conditions": [{"type": "Finished", "status": "False"}]}, True),
        ({}, {"conditions": [{"type": "Finished", "status": "True"}]}, False),
        ({"suspend": True}, {}, False),
        ({"suspend": True}, {"jobName": "a"}, True),
        ({"suspend": True}, {"jobName": "a", "conditions": [{"type": "Finished", "status": "True"}]}, False),
    ],
)
def test_a_run_holds_its_node_until_it_ends_and_suspended_only_with_a_job(
    api: Api, spec: dict[str, Any], status: dict[str, Any], alive: bool
) -> None:
    body = api.objects["MLPerfRun", "bench", "a"]
    body["spec"].update(spec)
    body["status"] = status
    keeper = Operator(api).keeper
    assert keeper.is_alive("bench/a", "uid-a") is alive
    assert keeper.has_no_job("bench/a") is ("jobName" not in status)


def test_a_run_that_is_gone_or_was_made_anew_holds_nothing(api: Api) -> None:
    keeper = Operator(api).keeper
    assert not keeper.is_alive("bench/other", "uid-a")
    assert not keeper.is_alive("bench/a", "uid-of-an-earlier-one")
    assert not keeper.has_no_job("bench/other")


async def test_runs_that_ended_or_went_while_they_waited_are_forgotten_with_the_next_that_waits(api: Api) -> None:
    operator = Operator(api)
    for name in ("b", "c", "d"):
        new_run(api, name)
        await operator.driver_for(f"bench/{name}")
    assert operator.keeper.waiting == {"bench/b", "bench/c", "bench/d"}
    finish(api, "b")
    del api.objects["MLPerfRun", "bench", "c"]
    await operator.driver_for("bench/a")
    assert operator.keeper.waiting == {"bench/a", "bench/d"}


# Idle nodes


async def test_an_idle_node_is_preferred_and_a_busy_one_is_named(api: Api) -> None:
    gpu_pod(api)
    operator = Operator(api)
    blocked = await operator.driver_for("bench/a")
    assert isinstance(blocked, Blocked)
    assert blocked.reason == "GPUInUse"
    assert "every node that fits are in use: node-1 by team/train" in blocked.message
    assert not _claim(api).runs
    new_node(api, "node-2")
    await operator.driver_for("bench/a")
    assert _claim(api, "node-2").runs


async def test_a_busy_node_is_claimed_where_its_pods_may_be_evicted_but_not_one_with_a_run(api: Api) -> None:
    gpu_pod(api, labels={naming.RUN_UID_LABEL: "u"})
    operator = Operator(api, EVICTING)
    assert isinstance(await operator.driver_for("bench/a"), Blocked)
    assert not _claim(api).runs
    new_node(api, "node-2")
    gpu_pod(api, "other", "node-2")
    await operator.driver_for("bench/a")
    assert _claim(api, "node-2").runs


async def test_a_node_that_others_wait_for_is_shared_without_a_look(api: Api) -> None:
    operator = Operator(api)
    await operator.driver_for("bench/a")
    new_run(api, "b")
    gpu_pod(api)
    api.requests.clear()
    await operator.driver_for("bench/b")
    assert set(_claim(api).runs) == {"uid-a", "uid-b"}
    assert api.requests == ["patch node-1"]


async def test_in_a_large_fleet_each_try_looks_at_other_nodes(api: Api) -> None:
    for n in range(2 * MAX_LOOKS):
        new_node(api, f"node-a{n:02}")
        gpu_pod(api, f"train-{n}", f"node-a{n:02}")
    gpu_pod(api)
    operator = Operator(api)
    for found in (f"{MAX_LOOKS} of 17 nodes that fit", "16 of 17 nodes that fit", "every node that fits"):
        blocked = await operator.driver_for("bench/a")
        assert isinstance(blocked, Blocked)
        assert f"the GPUs of {found} are in use: node-1 by team/train; " in blocked.message
    assert len(api.requests) == len(set(api.requests)) == 2 * MAX_LOOKS + 1


async def test_runs_that_wait_share_what_they_saw_and_each_says_the_same_as_before(api: Api) -> None:
    for n in range(2 * MAX_LOOKS - 1):
        new_node(api, f"node-a{n:02}")
        gpu_pod(api, f"train-{n}", f"node-a{n:02}")
    gpu_pod(api)
    operator, said = Operator(api), set()
    runs = ["bench/a", *(new_run(api, name) for name in "bcdefghij")]
    for _ in range(2):
        for key in runs:
            await operator.driver_for(key)
    for _ in range(6):
        api.requests.clear()
        api.now += timedelta(seconds=10)
        for key in runs:
            said.add(await operator.driver_for(key))
        assert len(api.requests) == 2 * MAX_LOOKS
    assert len(said) == 1


async def test_a_node_that_was_in_use_is_taken_within_seconds_of_its_last_pods_end(api: Api) -> None:
    pod, operator = gpu_pod(api), Operator(api)
    await operator.driver_for("bench/a")
    del api.objects["Pod", "team", pod["metadata"]["name"]]
    assert isinstance(await operator.driver_for("bench/a"), Blocked)
    assert not _claim(api).runs
    api.now += timedelta(seconds=BUSY_SECONDS)
    await operator.driver_for("bench/a")
    assert _claim(api).runs


async def test_a_small_fleet_is_looked_at_in_order_of_preference_whatever_others_looked_at(api: Api) -> None:
    for n in range(2 * MAX_LOOKS):
        new_node(api, f"node-a{n:02}")
        gpu_pod(api, f"train-{n}", f"node-a{n:02}")
    gpu_pod(api)
    operator = Operator(api)
    await operator.driver_for("bench/a")
    for name in ("free-1", "free-2", "free-3"):
        new_node(api, name, free="yes")
    new_run(api, "b", nodeSelector={"free": "yes"})
    await operator.driver_for("bench/b")
    assert _claim(api, "free-1").runs


async def test_a_node_takes_no_more_claims_than_its_annotations_hold(api: Api) -> None:
    many = Claim(NEW, {f"uid-{n}": f"bench/{n}" for n in range(claims.MAX_RUNS)})
    for n in range(claims.MAX_RUNS):
        new_run(api, str(n))
    api.node()["metadata"]["annotations"][naming.DRIVER_CLAIM_ANNOTATION] = claims.write(many)
    operator = Operator(api)
    blocked = await operator.driver_for("bench/a")
    assert isinstance(blocked, Blocked)
    assert blocked.reason == "NodeClaimsFull"
    finish(api, "0")
    await operator.driver_for("bench/a")
    assert "uid-a" in _claim(api).runs


async def test_a_large_fleet_with_one_idle_node_has_it_found(api: Api) -> None:
    for n in range(3 * MAX_LOOKS):
        new_node(api, f"node-a{n:02}")
        gpu_pod(api, f"train-{n}", f"node-a{n:02}")
    operator = Operator(api)
    for _ in range(5):
        await operator.driver_for("bench/a")
    assert _claim(api).runs


@pytest.mark.parametrize(
    ("spec", "said", "word"),
    [
        ({}, {"gpus": 4}, "has 4 GPUs and the run needs 8"),
        ({"gpu": {"count": 4}}, {"gpus": 4}, ""),
        ({}, {"product": "NVIDIA A100-SXM4-80GB"}, "the system has A100-SXM4-40GB"),
        ({}, {"product": "NVIDIA A100-SXM4-40GB"}, ""),
    ],
)
async def test_a_node_whose_gpus_a_driver_pod_has_seen_to_be_others_is_not_claimed(
    api: Api, spec: dict[str, Any], said: dict[str, Any], word: str
) -> None:
    api.objects["MLPerfRun", "bench", "a"]["spec"].update(spec)
    _make_ready(api, version=OLD, **said)
    found = await Operator(api).driver_for("bench/a")
    assert isinstance(found, Blocked)
    assert found.reason == ("NoNodeFits" if word else "DriverInstalling")
    assert word in found.message
    assert bool(_claim(api).runs) is not bool(word)


async def test_a_run_that_was_suspended_gives_its_node_back_and_gets_no_other_one_when_it_goes_on(api: Api) -> None:
    operator, body = Operator(api), api.objects["MLPerfRun", "bench", "a"]
    await operator.driver_for("bench/a")
    await operator.reconcile()
    body["status"]["node"] = "node-1"
    body["spec"]["suspend"] = True
    new_run(api, "b", "535")
    await operator.driver_for("bench/b")
    assert _claim(api) == Claim(OLD, {"uid-b": "bench/b"})
    body["spec"]["suspend"] = False
    new_node(api, "node-0")
    blocked = await operator.driver_for("bench/a")
    assert isinstance(blocked, Blocked)
    assert blocked.reason == "NodeDriverConflict"
    finish(api, "b")
    await operator.driver_for("bench/a")
    assert (_claim(api), _claim(api, "node-0")) == (Claim(NEW, {"uid-a": "bench/a"}), Claim())


PODS: list[tuple[str, dict[str, Any], bool]] = [
    ("a container", {"containers": [{"resources": {"limits": {"nvidia.com/gpu": "1"}}}]}, True),
    (
        "an init container alone",
        {"initContainers": [{"resources": {"limits": {"nvidia.com/gpu": "1"}}}], "containers": [{}]},
        True,
    ),
    ("a slice", {"containers": [{"resources": {"limits": {"nvidia.com/mig-1g.5gb": "1"}}}]}, True),
    ("none", {"containers": [{"resources": {"limits": {"cpu": "1"}}}, {"resources": None}, {}]}, False),
    ("a run with uncounted GPUs", {"labels": {naming.RUN_UID_LABEL: "u"}, "runtimeClassName": "nvidia"}, True),
    ("a run without GPUs", {"labels": {naming.RUN_UID_LABEL: "u"}, "containers": [{}]}, False),
    ("another pod with that runtime class", {"runtimeClassName": "nvidia", "containers": [{}]}, False),
]


@pytest.mark.parametrize(("case", "changes", "busy"), PODS, ids=[case[0] for case in PODS])
async def test_a_pod_has_gpus_when_any_of_its_containers_asks_for_them(
    api: Api, case: str, changes: dict[str, Any], busy: bool
) -> None:
    changes = {"containers": [{}], **changes}
    gpu_pod(api, **changes)
    blocked = await Operator(api).driver_for("bench/a")
    assert isinstance(blocked, Blocked)
    assert (blocked.reason == "GPUInUse") is busy, case


# The fabric manager


@pytest.mark.parametrize(
    ("policy", "said", "goes"),
    [
        ("Required", {"fabricManager": NEW}, True),
        ("Required", {}, False),
        ("Auto", {}, True),
        ("None", {}, True),
    ],
)
async def test_a_run_that_requires_a_fabric_manager_does_not_start_without_one(
    api: Api, policy: str, said: dict[str, str], goes: bool
) -> None:
    api.objects["MLPerfRun", "bench", "a"]["spec"]["driver"]["fabricManager"] = policy
    _make_ready(api, **said)
    found = await Operator(api).driver_for("bench/a")
    if goes:
        assert found == NEW
    else:
        assert isinstance(found, Blocked)
        assert found.reason == "FabricManagerMissing"
        assert "node-1" in found.message


async def test_a_ready_node_without_a_report_has_no_fabric_manager_that_we_know_of(api: Api) -> None:
    api.objects["MLPerfRun", "bench", "a"]["spec"]["driver"]["fabricManager"] = "Required"
    _make_ready(api)
    del api.node()["metadata"]["annotations"][naming.DRIVER_REPORT_ANNOTATION]
    assert isinstance(await Operator(api).driver_for("bench/a"), Blocked)


# What is told of the node


async def test_the_view_is_of_the_claimed_node_until_the_run_is_on_another_one(api: Api) -> None:
    operator = Operator(api)
    await operator.driver_for("bench/a")
    fresh = operator.keeper.view(_run(api), None)
    assert fresh is not None
    assert (fresh.node, fresh.claimed, fresh.working, fresh.version) == ("node-1", True, True, None)
    _make_ready(api, fabricManager=NEW, managedBy="mlperf-operator", message="m")
    new_node(api, "node-2")
    operator.look()
    assert operator.keeper.view(_run(api), "node-2") is None
    assert operator.keeper.view(_run(api), "node-1") == operator.keeper.view(_run(api), None)
    assert operator.keeper.view(_run(api), None) == DriverView(
        node="node-1",
        ready=True,
        working=False,
        claimed=True,
        reason="Matched",
        message="m",
        version=NEW,
        fabric_manager=NEW,
        managed_by="mlperf-operator",
    )


async def test_what_a_node_said_of_its_former_driver_is_not_said_of_the_one_that_was_claimed(api: Api) -> None:
    _make_ready(api, version=OLD)
    operator = Operator(api)
    await operator.driver_for("bench/a")
    operator.look()
    found = operator.keeper.view(_run(api), None)
    assert found is not None
    assert (found.ready, found.working, found.version) == (False, True, None)
    assert (found.reason, found.message) == ("DriverInstalling", f"gets driver {NEW}")


def test_of_a_node_that_was_not_claimed_only_the_pods_is_looked_at(api: Api) -> None:
    _make_ready(api)
    keeper = Operator(api).keeper
    found = keeper.view(_run(api), "node-1")
    assert found is not None
    assert (found.claimed, found.ready) == (False, True)
    assert keeper.view(_run(api), None) is None
    assert keeper.view(_run(api), "node-9") is None


def test_a_label_of_another_driver_than_the_report_says_is_not_ready(api: Api) -> None:
    _make_ready(api, driver=OLD)
    found = Operator(api).keeper.view(_run(api), "node-1")
    assert found is not None
    assert not found.ready
    _make_ready(api, driver=None, phase="Working", reason="DriverInstalling")
    found = Operator(api).keeper.view(_run(api), "node-1")
    assert found is not None
    assert (found.ready, found.working) == (False, True)


def test_while_a_driver_is_installed_the_one_before_is_not_shown(api: Api) -> None:
    _make_ready(api, driver=OLD, fabricManager=OLD, managedBy="mlperf-operator", phase="Working")
    found = Operator(api).keeper.view(_run(api), "node-1")
    assert found is not None
    assert (found.version, found.fabric_manager, found.managed_by) == (None, None, None)
