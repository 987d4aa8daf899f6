"""Which request meets which fault: pure, and the same again for the same seed and the same requests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random


@dataclass(frozen=True)
class Call:
    """A request to the API server, as far as faults look at it."""

    method: str
    path: str
    query: Mapping[str, str]

    @property
    def watch(self) -> bool:
        """Whether it opens a watch."""
        return self.query.get("watch") in ("1", "true")

    @property
    def write(self) -> bool:
        """Whether it changes anything."""
        return self.method != "GET"

    @property
    def lease(self) -> bool:
        """Whether it is about leadership."""
        return "/leases" in self.path


@dataclass(frozen=True)
class Answer:
    """The server's refusal in place of its answer; the request never reaches it."""

    status: int
    reason: str
    retry_after: int | None = None


@dataclass(frozen=True)
class Wait:
    """Seconds that a request takes longer."""

    seconds: float


@dataclass(frozen=True)
class Reset:
    """The connection breaks before the server has seen the request."""


@dataclass(frozen=True)
class Lose:
    """The connection breaks after the server has done what was asked: only the answer is lost."""


@dataclass(frozen=True)
class Silence:
    """A watch stays open and brings nothing more after so many seconds."""

    after: float


@dataclass(frozen=True)
class Cut:
    """A watch breaks off after so many seconds, within an event if one comes."""

    after: float


@dataclass(frozen=True)
class Expire:
    """A watch ends after so many seconds by an ERROR event of code 410, as when its history was compacted."""

    after: float


@dataclass(frozen=True)
class Lag:
    """What a watch brings comes so many seconds late: the cache of an API server that is behind."""

    seconds: float


Fault = Answer | Wait | Reset | Lose | Silence | Cut | Expire | Lag
Weather = Callable[[Call], Fault | None]

GONE = Answer(410, "Expired")
CONFLICT = Answer(409, "Conflict")
BUSY = Answer(429, "TooManyRequests", retry_after=1)
BROKEN = (Answer(500, "InternalError"), Answer(503, "ServiceUnavailable"))


def calm(_call: Call) -> Fault | None:
    """No fault at all."""
    return None


def fits(fault: Fault, call: Call) -> bool:
    """Say whether a request can meet a fault at all."""
    match fault:
        case Silence() | Cut() | Expire() | Lag():
            return call.watch
        case Answer(status=410):
            return call.watch or "continue" in call.query
        case Answer(status=409):
            # To a creation 409 says that the object is there, which would be a lie.
            return call.method in ("PATCH", "PUT", "DELETE")
        case Lose():
            return call.write
        case _:
            return True


@dataclass
class Chance:
    """Weather by chance: each fault with its probability among the requests that can meet it."""

    random: Random
    odds: Mapping[Fault, float]
    leases: bool = False
    """Whether requests about leadership are met too."""

    def __call__(self, call: Call) -> Fault | None:
        """Say what a request meets; of several faults that fit the first that chance takes."""
        if call.lease and not self.leases:
            return None
        hits = (fault for fault, odds in self.odds.items() if fits(fault, call) and self.random.random() < odds)
        return next(hits, None)
