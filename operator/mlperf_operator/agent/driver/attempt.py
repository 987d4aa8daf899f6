"""One attempt at making a node match: what it knows, and the journal of its steps."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Literal

from mlperf_operator.agent.driver import record as records
from mlperf_operator.agent.driver.errors import DriverError
from mlperf_operator.agent.driver.facts import Packages
from mlperf_operator.agent.driver.host import Done, Host
from mlperf_operator.agent.driver.look import packages
from mlperf_operator.agent.driver.record import Record
from mlperf_operator.agent.driver.sources import base, failures, manager
from mlperf_operator.agent.driver.sources.base import Command, PackageManager
from mlperf_operator.agent.driver.work import Seen, Wanted, Work
from mlperf_operator.catalogue import Target
from mlperf_operator.driver_report import Reason


@dataclass
class Termination:
    """Whether the pod was told to end. Nobody may come after it, so the node is left with a driver, old or new."""

    asked: bool = False

    @contextmanager
    def heeded(self) -> Iterator[None]:
        """Note SIGTERM instead of dying of it, for as long as this lasts."""

        def note(_number: int, _frame: FrameType | None) -> None:
            self.asked = True

        before = signal.signal(signal.SIGTERM, note)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)


@dataclass
class Attempt:
    """What an attempt knows. Only `record`, `changed` and `committed` change meanwhile."""

    host: Host
    target: Target
    goal: Wanted
    seen: Seen
    work: Work
    record: Record
    termination: Termination
    changed: bool = False
    """Whether the host was changed beyond our own files."""
    committed: bool = False
    """Whether the shortest way to a driver that works is on, not back: what is left then takes seconds."""
    manager: PackageManager = field(init=False)

    def __post_init__(self) -> None:
        self.manager = manager(self.goal.source.manager)

    @property
    def kernel(self) -> str:
        """Release of the running kernel."""
        return self.seen.facts.kernel

    def step(self, name: str, **changes: object) -> None:
        """Begin a step: journal it, so that whoever comes after a crash knows.

        Raises:
            DriverError: INTERRUPTED where the pod was told to end and the way back is the shorter one.
        """
        if self.termination.asked and not self.committed:
            raise DriverError(Reason.INTERRUPTED, f"the pod was told to end before the step {name}")
        self.journal(name, **changes)

    def journal(self, name: str, **changes: object) -> None:
        """Journal a step that is not to be left out."""
        self.record = self.record.during(name, **changes)
        records.write(self.host, self.record)
        self.host.say(f"step {name}")

    def must(self, command: Command, what: str) -> Done:
        """Run a command of the package manager that has to succeed."""
        return base.must(self.host, self.manager, command, what)


def installed(host: Host, manager_name: Literal["apt", "dnf", "zypper"]) -> Packages:
    """Return what the package manager knows.

    Raises:
        DriverError: it does not answer; where that is for want of space, a full disk is the reason.
    """
    try:
        return packages(host, manager_name)
    except DriverError as error:
        raise DriverError(failures.reason(error.detail) or error.reason, error.detail) from error


def begun(seen: Seen, goal: Wanted, target: Target) -> Record:
    """Return the record at the start of an attempt: what an earlier one, ended in the middle, knew goes on."""
    old = seen.record
    fresh = Record(
        state="Changing",
        digest=records.digest(target, seen.facts.kernel),
        version=goal.driver.version,
        source=goal.source.type,
    )
    if old is None:
        return fresh
    kept = old.model_dump(exclude={"state", "step", "digest", "version", "source"})
    owned_before = old.owned if old.state == "Complete" else old.owned_before
    return fresh.model_copy(update={**kept, "owned_before": owned_before})
