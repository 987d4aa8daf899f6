"""A run whose driver the operator brings: its Job waits for the node, and its status says how that stands."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import cast

import pytest

from mlperf_operator.api.v1alpha1 import MLPerfRun
from mlperf_operator.cluster import ApiError
from mlperf_operator.driver_keeper import DriverKeeper
from mlperf_operator.inputs import NotReadyError
from mlperf_operator.observed import Blocked, DriverView
from mlperf_operator.suites import Suite
from unit.reconcile.world import Operator, World, new_world

GPU_RUN = {
    "suite": "nvidia-v4.1",
    "system": "A100_SXM4_40GBx8",
    "benchmarks": [{"name": "bert", "scenarios": ["Offline"]}],
    "scratch": {"claimName": "scratch"},
    "startTimeoutSeconds": 60,
}
FULL = Blocked("DiskFull", "node node-1: 2 GB are free; free space on the node")


class Keeper:
    """What a keeper answers, by hand: a version, or an error."""

    def __init__(self, answer: str | Exception | None) -> None:
        self.answer = answer
        self.asked: list[str | None] = []
        self.shows: DriverView | None = None

    async def driver_for(self, run: MLPerfRun, suite: Suite) -> str | None:
        assert (run.metadata.name, suite.name) == ("demo", "nvidia-v4.1")
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def view(self, run: MLPerfRun, node: str | None) -> DriverView | None:
        self.asked.append(node)
        return self.shows


@pytest.fixture
def world() -> World:
    """A cluster with a run of a suite that needs GPUs."""
    return new_world(GPU_RUN)


@pytest.fixture
def operator(world: World) -> Callable[[Keeper], Operator]:
    """Makes an operator whose runs get their drivers by this keeper."""

    def make(keeper: Keeper) -> Operator:
        found = Operator(world)
        found.reconciler._keeper = cast("DriverKeeper", keeper)
        return found

    return make


def _view(**changes: bool) -> DriverView:
    states = {"ready": False, "working": False, "claimed": True, **changes}
    return DriverView(
        "node-1",
        **states,
        reason="DiskFull",
        message="m",
        version="550.54.14",
        fabric_manager=None,
        managed_by=None,
    )


async def test_no_job_is_made_before_the_node_is_ready_and_the_status_says_why(
    world: World, operator: Callable[[Keeper], Operator]
) -> None:
    keeper = Keeper(NotReadyError(FULL))
    keeper.shows = _view()
    running = operator(keeper)
    assert await running.reconcile() is not None
    assert world.created == []
    assert world.condition("Succeeded") == ("Unknown", "DiskFull")
    assert world.condition("DriverReady") == ("False", "DiskFull")
    assert [event["reason"] for event in world.events][-1] == "DiskFull"
    keeper.answer, keeper.shows = "550.54.14", _view(ready=True)
    await running.reconcile()
    assert world.created[-1] == "Job demo"
    assert "550.54.14" in str(world.objects["Job", "demo"]["spec"]["template"]["spec"]["affinity"])
    assert world.condition("DriverReady") == ("True", "NodeReady")


async def test_a_run_whose_node_never_gets_ready_ends_with_what_it_waited_for(
    world: World, operator: Callable[[Keeper], Operator]
) -> None:
    running = operator(Keeper(NotReadyError(FULL)))
    await running.reconcile()
    world.now += timedelta(seconds=60)
    await running.reconcile()
    assert world.condition("Succeeded") == ("False", "DiskFull")
    assert world.condition("Finished")[0] == "True"
    assert world.created == []


async def test_a_node_that_changed_while_it_was_claimed_is_tried_again_and_nothing_is_said(
    world: World, operator: Callable[[Keeper], Operator]
) -> None:
    with pytest.raises(ApiError):
        await operator(Keeper(ApiError(409, "Conflict", "modified"))).reconcile()
    assert world.writes == []


async def test_without_a_driver_to_bring_the_job_is_made_as_ever(
    world: World, operator: Callable[[Keeper], Operator]
) -> None:
    await operator(Keeper(None)).reconcile()
    assert "affinity" not in world.objects["Job", "demo"]["spec"]["template"]["spec"]


async def test_a_suspended_run_that_waits_for_a_node_is_suspended_for_as_long_as_it_likes(
    world: World, operator: Callable[[Keeper], Operator]
) -> None:
    world.run()["spec"]["suspend"] = True
    keeper = Keeper(NotReadyError(Blocked("Suspended", "no node is claimed")))
    running = operator(keeper)
    await running.reconcile()
    world.now += timedelta(hours=5)
    await running.reconcile()
    assert world.condition("Suspended") == ("True", "Suspended")
    assert world.condition("Finished")[0] == "False"


async def test_a_run_that_was_suspended_for_long_has_its_whole_time_to_start_when_it_goes_on(
    world: World, operator: Callable[[Keeper], Operator]
) -> None:
    world.run()["spec"]["suspend"] = True
    keeper = Keeper(NotReadyError(Blocked("Suspended", "no node is claimed")))
    running = operator(keeper)
    await running.reconcile()
    world.now += timedelta(hours=5)
    world.run()["spec"]["suspend"] = False
    world.put(world.run())
    keeper.answer = NotReadyError(FULL)
    await running.reconcile()
    assert world.condition("Suspended")[0] == "False"
    assert world.condition("Finished")[0] == "False"
    world.now += timedelta(seconds=60)
    await running.reconcile()
    assert world.condition("Finished") == ("True", "DiskFull")


async def test_the_driver_is_shown_of_the_node_that_the_pod_is_on_or_was(
    world: World, operator: Callable[[Keeper], Operator]
) -> None:
    keeper = Keeper(None)
    running = operator(keeper)
    await running.reconcile()
    assert keeper.asked == [None]
    name = world.start_pod()
    await running.reconcile()
    assert keeper.asked[-1] == "node-1"
    del world.objects["Pod", name]
    await running.reconcile()
    assert keeper.asked[-1] == "node-1"
