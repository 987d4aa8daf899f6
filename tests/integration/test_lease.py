"""Leadership against a real API server: won, kept, lost, handed over."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from integration import api_server
from mlperf_operator.cluster import LEASES, Cluster, NotLeaderError
from mlperf_operator.lease import Lease, LostLeadershipError

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1200)]

DURATION = 3
DEADLINE = 1.8
RETRY = 0.2
TESTS = Path(__file__).parents[1]

Make = Callable[[str], Lease]


@pytest.fixture
def candidate(cluster: Cluster, namespace: str) -> Make:
    """Makes candidates for one Lease."""

    def make(identity: str) -> Lease:
        return Lease(
            cluster,
            namespace=namespace,
            name="test",
            identity=identity,
            duration=DURATION,
            renew_deadline=DEADLINE,
            retry_period=RETRY,
        )

    return make


async def spec(cluster: Cluster, namespace: str) -> dict[str, Any]:
    found = await cluster.get(LEASES, namespace, "test")
    assert found is not None
    return dict(found["spec"])


@asynccontextmanager
async def running(
    lease: Lease, lead: Callable[[], Coroutine[Any, Any, None]] | None = None
) -> AsyncIterator[asyncio.Task[None]]:
    async def for_ever() -> None:
        await asyncio.sleep(3600)

    task = asyncio.create_task(lease.run(lead or for_ever))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def held(lease: Lease, seconds: float = 10) -> float:
    """Wait until it is held and return how long that took."""
    started = time.monotonic()
    async with asyncio.timeout(seconds):
        while not lease.held:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)
    return time.monotonic() - started


async def test_one_of_two_leads_and_goes_on_leading(cluster: Cluster, namespace: str, candidate: Make) -> None:
    first, second = candidate("first"), candidate("second")
    async with running(first), running(second):
        async with asyncio.timeout(10):
            while not first.held and not second.held:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.01)
        leader, other = (first, second) if first.held else (second, first)
        before = await spec(cluster, namespace)
        deadline = time.monotonic() + 2 * DURATION
        while time.monotonic() < deadline:
            assert leader.held
            assert not other.held
            await asyncio.sleep(0.05)
        after = await spec(cluster, namespace)
    assert after["renewTime"] > before["renewTime"]
    assert after["acquireTime"] == before["acquireTime"]
    assert after["leaseTransitions"] == before["leaseTransitions"] == 0


async def test_a_leader_that_stops_hands_over_at_once(cluster: Cluster, namespace: str, candidate: Make) -> None:
    first, second = candidate("first"), candidate("second")
    async with running(first) as leading:
        await held(first)
        async with running(second):
            leading.cancel()
            assert await held(second) < DEADLINE
            assert not first.held
            found = await spec(cluster, namespace)
            assert (found["holderIdentity"], found["leaseTransitions"]) == ("second", 1)


async def test_a_leader_whose_work_fails_ends_and_hands_over(cluster: Cluster, namespace: str, candidate: Make) -> None:
    async def crash() -> None:
        raise ZeroDivisionError

    first = candidate("first")
    with pytest.raises(ZeroDivisionError):
        await first.run(crash)
    assert (await spec(cluster, namespace))["holderIdentity"] == ""


async def test_a_killed_leader_is_replaced_once_its_lease_ran_out(
    cluster: Cluster, namespace: str, candidate: Make, kubeconfig: str
) -> None:
    path = os.pathsep.join([str(TESTS), str(TESTS.parent / "operator")])
    argv = [sys.executable, "-m", "integration.lease_candidate", namespace, "victim", str(DURATION)]
    victim = await asyncio.create_subprocess_exec(
        *argv, stdout=asyncio.subprocess.PIPE, env={**os.environ, "KUBECONFIG": kubeconfig, "PYTHONPATH": path}
    )
    assert victim.stdout is not None
    async with asyncio.timeout(20):
        assert await victim.stdout.readline() == b"leading\n"
    second = candidate("second")
    async with running(second):
        await asyncio.sleep(2 * DURATION)
        assert not second.held
        victim.kill()
        await victim.wait()
        took = await held(second)
    # The last renewal was at most one retry period before the kill; two tries more, and a margin for a slow machine.
    assert DURATION - 2 * RETRY <= took <= DURATION + 2 * RETRY + 2


async def test_a_leader_that_cannot_reach_the_server_ends_before_another_may_lead(
    cluster: Cluster, candidate: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = candidate("first")
    async with running(first) as leading:
        await held(first)
        cut = time.monotonic()
        with monkeypatch.context() as unreachable:
            unreachable.setattr(cluster._api.configuration, "_base_path", "https://127.0.0.1:1")
            with pytest.raises(LostLeadershipError):
                await leading
        assert DEADLINE - RETRY - 0.5 < time.monotonic() - cut < DURATION


async def test_a_leader_whose_process_hung_does_not_write_any_more(
    cluster: Cluster, namespace: str, candidate: Make
) -> None:
    first = candidate("first")
    cluster.guard = lambda: first.held
    refused: list[NotLeaderError] = []

    async def hang_then_write() -> None:
        time.sleep(DEADLINE + 0.1)  # noqa: ASYNC251 - a process that hangs is what is tested
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": namespace, "name": "late"}}
        try:
            await cluster.create(body)
        except NotLeaderError as error:
            refused.append(error)

    async with running(first, hang_then_write) as leading:
        await leading
    assert len(refused) == 1


async def test_a_leader_that_lost_its_lease_to_another_ends(cluster: Cluster, namespace: str, candidate: Make) -> None:
    first = candidate("first")
    async with running(first) as leading:
        await held(first)
        await api_server.merge(cluster, LEASES, namespace, "test", {"spec": {"holderIdentity": "other"}})
        async with asyncio.timeout(DURATION):
            with pytest.raises(LostLeadershipError):
                await leading
    assert (await spec(cluster, namespace))["holderIdentity"] == "other"


async def test_whoever_annotates_the_lease_does_not_end_the_leader(
    cluster: Cluster, namespace: str, candidate: Make
) -> None:
    first = candidate("first")
    async with running(first) as leading:
        await held(first)
        for number in range(60):
            patch = {"metadata": {"annotations": {"note": str(number)}}}
            await api_server.merge(cluster, LEASES, namespace, "test", patch)
            await asyncio.sleep(0.03)
        assert not leading.done()
        assert first.held
        found = await cluster.get(LEASES, namespace, "test")
        assert found is not None
        assert found["metadata"]["annotations"] == {"note": "59"}


@pytest.mark.parametrize("times", [(15, 15.0, 2.0), (15, 10.0, 10.0)])
def test_times_that_cannot_fence_are_refused(times: tuple[int, float, float]) -> None:
    duration, deadline, retry = times
    with pytest.raises(ValueError, match="retry period < renew deadline < duration"):
        Lease(
            None,  # type: ignore[arg-type]
            namespace="n",
            name="x",
            identity="i",
            duration=duration,
            renew_deadline=deadline,
            retry_period=retry,
        )
