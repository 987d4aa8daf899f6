"""Who is woken by what: nodes by their own changes, their pods' and their runs', runs by nodes."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mlperf_operator import naming
from mlperf_operator.clock import ServerClock
from mlperf_operator.cluster import Cluster
from mlperf_operator.driver_controller import DriverController
from mlperf_operator.node_reconcile import FLEET
from mlperf_operator.nodes.records import decode_node
from mlperf_operator.resources.driver_daemonset import DriverImages, Home
from unit.nodes.builders import SETTINGS

CLAIM = {naming.DRIVER_CLAIM_ANNOTATION: json.dumps({"version": "550.54.14", "runs": {"u": "bench/claims"}})}


class Bench:
    """A controller whose informers are fed by hand, and what it wakes."""

    def __init__(self) -> None:
        self.runs: list[str] = []
        images = DriverImages("operator:1", "IfNotPresent")
        cluster = cast("Cluster", SimpleNamespace(clock=ServerClock()))
        self.controller = DriverController(cluster, SETTINGS, images, Home("mlperf-system"), {}, self.runs.append)

    def node(self, version: int = 1, gone: bool = False, **changes: Any) -> None:
        meta = {"name": "node-1", "uid": "u", "resourceVersion": str(version), **changes}
        record = decode_node({"metadata": meta})
        self.controller.nodes._put("/node-1", None if gone else record)

    async def woken(self) -> set[str]:
        queue, found = self.controller._queue, set()
        while len(queue):
            key = await queue.get()
            queue.done(key)
            found.add(key)
        return found


async def test_a_node_that_comes_changes_or_goes_is_looked_at() -> None:
    bench = Bench()
    bench.node()
    assert await bench.woken() == {"node-1", FLEET}
    bench.node(2, annotations=CLAIM)
    assert await bench.woken() == {"node-1"}
    bench.node(3, labels={naming.DRIVER_WANTED_LABEL: "550.54.14"})
    assert await bench.woken() == {"node-1", FLEET}
    bench.node(4, gone=True)
    assert await bench.woken() == {"node-1", FLEET}


async def test_a_heartbeat_wakes_nobody() -> None:
    bench = Bench()
    bench.node(annotations=CLAIM)
    await bench.woken()
    bench.runs.clear()
    bench.node(2, annotations=CLAIM)
    assert await bench.woken() == set()
    assert bench.runs == []


async def test_runs_that_wait_and_those_that_claimed_the_node_are_woken_by_its_change() -> None:
    bench = Bench()
    bench.controller.keeper.waiting.add("bench/waits")
    bench.node(annotations=CLAIM)
    assert bench.runs == ["bench/waits", "bench/claims"]


async def test_a_node_is_looked_at_when_a_run_that_claimed_it_changes() -> None:
    bench = Bench()
    bench.node(annotations=CLAIM)
    await bench.woken()
    bench.controller.run_changed("bench/other")
    assert await bench.woken() == set()
    bench.controller.run_changed("bench/claims")
    assert await bench.woken() == {"node-1"}


@pytest.mark.parametrize("informer", ["pods", "foreign"])
async def test_a_node_is_looked_at_when_a_driver_pod_on_it_comes_or_goes(informer: str) -> None:
    bench = Bench()
    fed = getattr(bench.controller, informer)
    for body in (None, {"nodeName": "node-1"}):
        record = fed._decode({"metadata": {"namespace": "n", "name": "p", "uid": "u"}, "spec": body or {}})
        fed._put("n/p", record)
        assert await bench.woken() == ({"node-1"} if body else set())
    fed._put("n/p", None)
    assert await bench.woken() == {"node-1"}


async def test_every_node_is_looked_at_again_from_time_to_time() -> None:
    bench = Bench()
    bench.node()
    await bench.woken()
    bench.controller.resync()
    assert await bench.woken() == {"node-1", FLEET}


async def test_only_pods_of_the_operators_own_namespace_count_as_ours() -> None:
    controller = Bench().controller
    assert controller.pods.resource.namespace == "mlperf-system"
    assert controller.foreign.resource.namespace is None
    assert len(controller.informers) == 3
