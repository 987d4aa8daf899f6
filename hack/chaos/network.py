"""Scenarios of the way to the API server: what a client must bear that talks to one through a network."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping

from chaos.scene import Body, Scenario, Scene
from chaos.weather import (
    BROKEN,
    BUSY,
    CONFLICT,
    GONE,
    Chance,
    Cut,
    Expire,
    Fault,
    Lag,
    Lose,
    Reset,
    Silence,
    Wait,
    Weather,
    calm,
)

_APART = 0.15
"""Seconds between two runs: so that they meet the faults in different stages."""


ODDS: Mapping[str, Mapping[Fault, float]] = {
    "gone": {Expire(1.5): 0.6, GONE: 0.2},
    "watches-cut": {Cut(1.5): 0.7, Reset(): 0.05},
    "watches-silent": {Silence(1.0): 1.0},
    "watches-late": {Lag(2.0): 1.0},
    "conflicts": {CONFLICT: 0.5},
    "refusals": {BUSY: 0.4, BROKEN[0]: 0.4, BROKEN[1]: 0.4},
    "slow": {Wait(1.0): 1.0},
    "resets": {Reset(): 0.3},
    "answers-lost": {Lose(): 0.5},
}
"""By scenario: each fault's probability among the requests that can meet it."""


def _under(odds: Mapping[Fault, float], *, leases: bool = False) -> Body:
    """Return a body: runs come and go on under this weather, and once it is over the next one starts at once."""

    async def body(scene: Scene, count: int) -> None:
        await _begin(scene, Chance(scene.random, odds, leases=leases))
        runs = []
        for number in range(count):
            runs.append(await scene.create(f"run-{number}"))
            await asyncio.sleep(_APART)
        await scene.all_end(runs)
        scene.weather(calm)
        await scene.recovered("after")

    return body


async def _begin(scene: Scene, weather: Weather) -> None:
    """Set the weather, and let the replica start anew under it: watches that are open would stay as they are."""
    scene.weather(weather)
    scene.replica.send(signal.SIGKILL)


async def _bursts(scene: Scene, count: int) -> None:
    """Two seconds in which most requests are refused, and two without, until all runs have ended."""
    storm = Chance(scene.random, ODDS["refusals"])
    runs = await scene.create_many(count)
    ending = asyncio.create_task(scene.all_end(runs))
    while not ending.done():
        for weather in (storm, calm):
            scene.weather(weather)
            await asyncio.sleep(2)
    scene.weather(calm)
    await scene.recovered("after")


async def _silence(scene: Scene, count: int) -> None:
    """Every watch falls silent while runs go on; only the client's own patience can find out."""
    await _begin(scene, Chance(scene.random, ODDS["watches-silent"]))
    await scene.replica.ready()
    await asyncio.sleep(1.5)
    scene.weather(calm)
    runs = await scene.create_many(count)
    await scene.recovered("after")
    await scene.all_end(runs)


SCENARIOS = (
    Scenario("calm", _under({}), 12),
    Scenario("gone", _under(ODDS["gone"]), 12),
    Scenario("watches-cut", _under(ODDS["watches-cut"]), 12),
    Scenario("watches-silent", _silence, 4),
    Scenario("watches-late", _under(ODDS["watches-late"]), 12),
    Scenario("conflicts", _under(ODDS["conflicts"]), 12),
    Scenario("refusals", _bursts, 12),
    Scenario("slow", _under(ODDS["slow"], leases=True), 12),
    Scenario("resets", _under(ODDS["resets"]), 12),
    Scenario("answers-lost", _under(ODDS["answers-lost"]), 12),
    Scenario(
        "everything",
        _under(
            {
                GONE: 0.1,
                Expire(1.0): 0.2,
                Cut(1.0): 0.2,
                CONFLICT: 0.1,
                BUSY: 0.05,
                BROKEN[0]: 0.05,
                BROKEN[1]: 0.05,
                Reset(): 0.05,
                Lose(): 0.1,
                Wait(0.3): 0.3,
            },
            leases=True,
        ),
        20,
    ),
)
