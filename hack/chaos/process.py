"""Scenarios of processes: an operator that is killed, hangs or is replaced, and a control plane that goes away."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from datetime import timedelta

from chaos.replica import FAKETIME, SHORT_LEASE
from chaos.scene import Scenario, Scene
from chaos.weather import Call, Chance, Fault, Lose, Reset, Wait, calm
from fleet import control_plane

_KILLED = ("configmaps", "jobs", "status", "events")
"""Writes of a run at which the operator is killed, by a part of their path."""


async def _killed(scene: Scene, count: int) -> None:
    """Kill the operator again and again, at each kind of write and at any moment, while runs come and go."""
    live = [await scene.create(f"run-{number}") for number in range(3)]
    made = len(live)
    for kill in range(count):
        await (_kill_at_write(scene, kill) if kill % 2 else _kill_at_any_moment(scene))
        scene.injections += 1
        scene.recoveries.append(await scene.replica.ready())
        if kill % 3 == 0:
            live.append(await scene.create(f"run-{made}"))
            made += 1
    await scene.all_end(live)


async def _kill_at_any_moment(scene: Scene) -> None:
    await asyncio.sleep(scene.random.random() * 0.4)
    scene.replica.send(signal.SIGKILL)


async def _kill_at_write(scene: Scene, number: int) -> None:
    """Kill it when the next write of a kind is made: before the server has seen it, or when it is done."""
    kind, late = _KILLED[number // 2 % len(_KILLED)], bool(number // 8 % 2)
    killed = asyncio.Event()

    def weather(call: Call) -> Fault | None:
        if killed.is_set() or not call.write or kind not in call.path:
            return None
        killed.set()
        scene.replica.send(signal.SIGKILL)
        return Lose() if late else Reset()

    scene.weather(weather)
    try:
        await asyncio.wait_for(killed.wait(), 1)
    except TimeoutError:
        scene.replica.send(signal.SIGKILL)
    scene.weather(calm)


async def _stalls(scene: Scene, count: int) -> None:
    """Stop the process for less than its Lease lasts: a blocked event loop, or a node without processor time."""
    runs = []
    for number in range(count):
        runs.append(await scene.create(f"run-{number}"))
        await asyncio.sleep(scene.random.random())
        scene.replica.send(signal.SIGSTOP)
        await asyncio.sleep(0.5 + scene.random.random() * 2)
        scene.replica.send(signal.SIGCONT)
        scene.injections += 1
        scene.recoveries.append(await scene.replica.ready())
    await scene.all_end(runs)


async def leader_of(scene: Scene) -> int:
    """Return the number of the replica that leads, once one does."""
    async with asyncio.timeout(60):
        while True:
            for number, replica in enumerate(scene.replicas):
                if await replica.says() == "leader":
                    return number
            await asyncio.sleep(0.05)


async def _leader_changes(scene: Scene, count: int) -> None:
    """Tell the leader to end, time after time, while runs go on."""
    runs = []
    for number in range(count):
        runs.append(await scene.create(f"run-{number}"))
        await asyncio.sleep(scene.random.random())
        leader = await leader_of(scene)
        scene.replicas[leader].send(signal.SIGTERM)
        scene.injections += 1
        scene.recoveries.append(await scene.replicas[1 - leader].ready())
    await scene.all_end(runs)


async def _hanging_leader(scene: Scene, count: int) -> None:
    """Stop the leader for longer than its Lease, let the other one take over, and let the first one go on."""
    runs = []
    for number in range(count):
        leader = await leader_of(scene)
        runs += [await scene.create(f"run-{number}-{each}") for each in range(3)]
        await asyncio.sleep(scene.random.random() * 1.5)
        scene.replicas[leader].send(signal.SIGSTOP)
        scene.injections += 1
        scene.recoveries.append(await scene.replicas[1 - leader].ready())
        runs.append(await scene.create(f"run-{number}-last"))
        scene.replicas[leader].send(signal.SIGCONT)
        await scene.replicas[leader].ready("standby")
    await scene.all_end(runs)


async def _cut_off_leader(scene: Scene, count: int) -> None:
    """Cut the leader off from the API server for longer than its Lease; what it sent before may come late."""
    runs = []
    for number in range(count):
        leader = await leader_of(scene)
        runs += [await scene.create(f"run-{number}-{each}") for each in range(3)]
        await asyncio.sleep(scene.random.random())
        # Half of what is asked breaks, the other half arrives after the next leader has begun.
        weather = Chance(scene.random, {Reset(): 0.5, Wait(SHORT_LEASE["DURATION"] + 1): 1.0}, leases=True)
        scene.proxies[leader].weather = weather
        scene.recoveries.append(await scene.replicas[1 - leader].ready())
        runs.append(await scene.create(f"run-{number}-last"))
        await asyncio.sleep(2)
        scene.weather(calm)
        await scene.replicas[leader].ready("standby")
    await scene.all_end(runs)


async def _control_plane(scene: Scene, count: int) -> None:
    """Kill the processes of the control plane, each by itself and all of them, and start them again."""
    everything = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
    rounds = (("kube-apiserver",), ("etcd", "kube-apiserver"), ("kube-controller-manager",), everything)
    runs = []
    for number in range(count):
        runs += [await scene.create(f"run-{number}-{each}") for each in range(4)]
        await asyncio.sleep(scene.random.random() * 2)
        names = rounds[number % len(rounds)]
        await kill_components(scene, names)
        await scene.recovered(f"after-{number}")
    await scene.all_end(runs)


async def kill_components(scene: Scene, names: Sequence[str]) -> None:
    """Kill components of the control plane, and start them again a second later, in this order."""
    layout = scene.lab.fleet.layout
    for name in names:
        os.kill(control_plane.pid(layout, name), signal.SIGKILL)
        scene.injections += 1
    await asyncio.sleep(1)
    for name in names:
        await asyncio.to_thread(control_plane.start, layout, name)


async def _clock(scene: Scene, count: int) -> None:
    """Set the operator's clock forward and back by hours while runs start, wait for a node and end."""
    runs = []
    for number in range(count):
        # More than the fleet has room for at once: some wait to start, which is what clocks are read for.
        runs += [await scene.create(f"run-{number}-{each}") for each in range(4)]
        await asyncio.sleep(0.3 + scene.random.random())
        jump = timedelta(hours=scene.random.choice((-30, -2, 2, 30)))
        scene.replica.set_clock(jump)
        scene.injections += 1
        await asyncio.sleep(1)
        await scene.recovered(f"after-{number}")
    await scene.all_end(runs)


SCENARIOS = (
    Scenario("killed", _killed, 200),
    Scenario("stalls", _stalls, 12),
    Scenario("leader-changes", _leader_changes, 12, replicas=2, lease=SHORT_LEASE),
    Scenario("leader-hangs", _hanging_leader, 6, replicas=2, lease=SHORT_LEASE),
    Scenario("leader-cut-off", _cut_off_leader, 4, replicas=2, lease=SHORT_LEASE, late=True),
    Scenario("control-plane-killed", _control_plane, 8),
    *([Scenario("clock-jumps", _clock, 6, clock=True)] if FAKETIME.exists() else []),
)
