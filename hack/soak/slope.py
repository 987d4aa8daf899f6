"""Whether memory grows: a robust slope over the life of one process, and what counts as noise. Pure.

The slope is Theil and Sen's, the median of the slopes between every two points, with Sen's interval of 95 % (Sen 1968,
https://doi.org/10.1080/01621459.1968.10480934; computed by scipy). One sample says little of the next: an allocator
keeps what it has, so that samples of 30 s are steps, not independent draws, and an interval over them would be far too
narrow. So the points are medians of five minutes, longer than any period of the operator's own (a watch lasts 290 s,
a silent one 80 s) and than any fault. The first ten minutes of a process are left out: imports, pools and caches.

Within noise means: the whole interval lies below 1 MB an hour. A rule by which zero has only to be in the interval
would be met the better the worse is measured; by this one, too little data or too much scatter is a miss. At 50 runs a
minute 1 MB an hour is 333 bytes a run, less than one run's uid costs that stays behind in a dictionary with one object
of a few fields (about 400 bytes); a task or a record costs a kilobyte or more.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol, TypeVar

from scipy import stats

WARM_UP_SECONDS = 600.0
BLOCK_SECONDS = 300.0
LEAST_BLOCKS = 6
"""Fewer points have no interval worth its name."""

LIMIT_MB_PER_HOUR = 1.0

Point = tuple[float, float]
"""Seconds and megabytes."""


class OfAProcess(Protocol):
    """A sample, as far as lives are concerned."""

    @property
    def at(self) -> float:
        """When it was taken, in seconds."""

    @property
    def pid(self) -> int:
        """The process."""


S = TypeVar("S", bound=OfAProcess)


@dataclass(frozen=True)
class Slope:
    """How memory changes, in MB an hour: the estimate and its interval of 95 %."""

    estimate: float
    low: float
    high: float
    blocks: int


def longest_life(samples: Sequence[S]) -> list[S]:
    """Return the samples of the process that was seen for the longest time without another one in between."""
    lives = [list(group) for _, group in groupby(samples, key=lambda sample: sample.pid)]
    return max(lives, key=lambda life: life[-1].at - life[0].at, default=[])


def blocks(points: Sequence[Point]) -> list[Point]:
    """Return the medians of each whole five minutes after the warm-up."""
    if not points:
        return []
    begin = points[0][0] + WARM_UP_SECONDS
    whole = int((points[-1][0] - begin) // BLOCK_SECONDS)
    grouped = groupby((p for p in points if p[0] >= begin), key=lambda point: int((point[0] - begin) // BLOCK_SECONDS))
    return [_median(list(group)) for number, group in grouped if number < whole]


def _median(points: Sequence[Point]) -> Point:
    return statistics.median(at for at, _ in points), statistics.median(value for _, value in points)


def slope(points: Sequence[Point]) -> Slope | None:
    """Return the slope of a process's memory, None where it was seen for too short a time to have one."""
    medians = blocks(points)
    if len(medians) < LEAST_BLOCKS:
        return None
    hours = [at / 3600 for at, _ in medians]
    estimate, _, low, high = stats.theilslopes([value for _, value in medians], hours, alpha=0.95)
    return Slope(float(estimate), float(low), float(high), len(medians))
