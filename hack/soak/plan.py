"""Which fault comes when, and what is done to which run: pure, and the same again for the same seed.

Faults come all the time, one after the other. Those that end the leader's process come in the first sixth of the time
only: each of them begins a new series of memory, and a slope needs a long one. After that the leader has to live
through everything else: the way to the API server, cut watches, a control plane that is killed, a standby that is
killed, and what is done to runs by hand. Of two hours that leaves one process an hour and forty minutes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from random import Random

from chaos.network import ODDS
from mlperf_operator.resources.containers import PREPARE_STAGES, RUN

ROUGH_SHARE = 1 / 6
"""Of the time: in which leaders are ended too."""

KILL_LEADER, END_LEADER, KILL_STANDBY = "kill-leader", "end-leader", "kill-standby"
CUT_WATCHES, KILL_API_SERVER, KILL_ETCD = "cut-watches", "kill-api-server", "kill-etcd"
ENDS_THE_LEADER = frozenset({KILL_LEADER, END_LEADER})

_STEADY: Mapping[str, float] = {
    **dict.fromkeys(ODDS, 1.0),
    # It lasts for 80 s whatever is asked for: the client's own patience.
    "watches-silent": 0.5,
    KILL_STANDBY: 2.0,
    CUT_WATCHES: 2.0,
    KILL_API_SERVER: 0.5,
    KILL_ETCD: 0.5,
}
_ROUGH: Mapping[str, float] = {**_STEADY, KILL_LEADER: 8.0, END_LEADER: 5.0}
"""By kind of fault: how often among the others."""

_FIRST_SECONDS = 15.0
_WEATHER_SECONDS = (10.0, 30.0)
_PAUSE_SECONDS = {True: (5.0, 15.0), False: (10.0, 40.0)}
"""Between two faults, in the rough part and after it."""


@dataclass(frozen=True)
class Step:
    """One fault."""

    at: float
    """Seconds since the first run."""
    kind: str
    seconds: float
    """How long it lasts; 0 where it is done at once."""


def steps(seed: int, seconds: float) -> Iterator[Step]:
    """Return the faults of a soak that lasts so long."""
    random = Random(f"{seed}/steps")  # noqa: S311 - a fault is no secret
    at = _FIRST_SECONDS
    while True:
        rough = at < seconds * ROUGH_SHARE
        odds = _ROUGH if rough else _STEADY
        [kind] = random.choices(tuple(odds), tuple(odds.values()))
        lasts = random.uniform(*_WEATHER_SECONDS) if kind in ODDS else 0.0
        if at + lasts > seconds:
            return
        yield Step(at, kind, lasts)
        at += lasts + random.uniform(*_PAUSE_SECONDS[rough])


RUN_DELETED, EVICTED = "run-deleted", "evicted"
JOB_DELETED, POD_DELETED, MAPS_DELETED = "job-deleted", "pod-deleted", "maps-deleted"
FATES: Mapping[str, float] = {
    "": 0.84,
    RUN_DELETED: 0.06,
    EVICTED: 0.04,
    JOB_DELETED: 0.02,
    POD_DELETED: 0.02,
    MAPS_DELETED: 0.02,
}
"""What is done to a run, and to which share of them; most are left alone."""


@dataclass(frozen=True)
class Fate:
    """What is done to one run."""

    kind: str
    after: float
    """Seconds from its creation to its deletion by hand: from before its Job is there to after its end."""
    stage: str
    """In which its pod is evicted."""


def fate(seed: int, number: int) -> Fate:
    """Return the fate of the run of this number."""
    random = Random(f"{seed}/run-{number}")  # noqa: S311 - a fault is no secret
    [kind] = random.choices(tuple(FATES), tuple(FATES.values()))
    return Fate(kind, random.uniform(0.0, 15.0), random.choice((*PREPARE_STAGES, RUN)))
