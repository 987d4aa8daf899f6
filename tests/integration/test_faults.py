"""A few of the faults of `make bench-chaos`, in small numbers, on a fleet of KWOK nodes: no invariant breaks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from chaos import network, process, tampering, world
from chaos.lab import Lab
from chaos.scene import Scenario, play
from fleet.stages import Delays
from integration.fleets import played

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600), pytest.mark.asyncio(loop_scope="module")]

SEED = 1
COUNTS = {"killed": 10, "answers-lost": 4, "gone": 4, "leader-hangs": 1, "children-edited": 4}
"""Faults of each kind: seconds here, where the bench takes minutes."""

SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for scenario in (*network.SCENARIOS, *process.SCENARIOS, *world.SCENARIOS, *tampering.SCENARIOS)
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lab(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lab]:
    """A fleet of this session's own."""
    delays = Delays(prepare=100, run=300, collect=100, delete=100)
    folder: Path = tmp_path_factory.mktemp("faults")
    async with played("faults", 8, delays) as made, Lab.on(made, folder) as found:
        yield found


@pytest.mark.parametrize("name", COUNTS)
async def test_no_invariant_breaks(lab: Lab, name: str) -> None:
    played = await play(lab, SCENARIOS[name], SEED, count=COUNTS[name])
    assert list(played.broken) == []
    assert played.injections > 0
    assert played.runs > 0
