"""What counts as growth of memory, and what as noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import pytest

from soak.slope import BLOCK_SECONDS, LIMIT_MB_PER_HOUR, WARM_UP_SECONDS, blocks, longest_life, slope

EVERY = 30
RANDOM = Random(1)  # noqa: S311 - noise is no secret


def points(hours: float, rss: Callable[[float], float]) -> list[tuple[float, float]]:
    """Return samples of every half minute; `rss` says how much it is after so many hours."""
    return [(float(at), rss(at / 3600)) for at in range(0, int(hours * 3600), EVERY)]


def noise(spread: float) -> float:
    return RANDOM.gauss(0, spread)


def test_steady_memory_with_scatter_is_within_noise() -> None:
    found = slope(points(1.7, lambda _: 90 + noise(0.5)))
    assert found is not None
    assert found.low < 0 < found.high < LIMIT_MB_PER_HOUR


def test_a_leak_of_a_kilobyte_a_run_is_found() -> None:
    leak = 50 * 60 * 1000 / 1e6
    found = slope(points(1.7, lambda hours: 90 + leak * hours + noise(0.5)))
    assert found is not None
    assert found.estimate == pytest.approx(leak, abs=0.5)
    assert found.high > LIMIT_MB_PER_HOUR


def test_a_process_that_frees_memory_is_within_noise() -> None:
    found = slope(points(1.7, lambda hours: 90 - 5 * hours))
    assert found is not None
    assert found.high == pytest.approx(-5)


def test_scatter_that_would_hide_a_leak_is_not_taken_for_steadiness() -> None:
    # Nearly the same scatter in each five minutes, so that medians do not take it away.
    steps = [RANDOM.gauss(0, 6) for _ in range(40)]
    found = slope(points(1.7, lambda hours: 90 + steps[int(hours * 3600 / BLOCK_SECONDS)]))
    assert found is not None
    assert found.high > LIMIT_MB_PER_HOUR


def test_single_samples_far_off_and_the_start_of_the_process_do_not_matter() -> None:
    def rss(hours: float) -> float:
        if hours * 3600 < WARM_UP_SECONDS:
            return 40 + hours * 300
        return 200.0 if RANDOM.random() < 0.1 else 90.0

    found = slope(points(1.7, rss))
    assert found is not None
    assert (found.estimate, found.low, found.high) == (0, 0, 0)


@pytest.mark.parametrize("minutes", [0, 3, 10, 39])
def test_a_short_life_has_no_slope(minutes: float) -> None:
    assert slope(points(minutes / 60, lambda _: 90.0)) is None


def test_a_block_is_five_whole_minutes_after_the_warm_up() -> None:
    found = blocks(points((WARM_UP_SECONDS + 2.5 * BLOCK_SECONDS) / 3600, lambda hours: hours))
    assert [at for at, _ in found] == pytest.approx([WARM_UP_SECONDS + 135, WARM_UP_SECONDS + 435])


@dataclass(frozen=True)
class Seen:
    at: float
    pid: int


def test_a_process_that_was_killed_begins_a_new_series() -> None:
    samples = [Seen(0, 1), Seen(30, 1), Seen(60, 2), Seen(120, 2), Seen(180, 2), Seen(210, 1), Seen(240, 1)]
    assert longest_life(samples) == [Seen(60, 2), Seen(120, 2), Seen(180, 2)]
    assert longest_life(()) == []
