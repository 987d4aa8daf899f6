"""What the agent keeps on the node: the lock, and the record of what it brought there and of what it is at."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from pydantic import Field, ValidationError

from mlperf_operator.agent.driver.errors import DriverError
from mlperf_operator.agent.driver.facts import Facts
from mlperf_operator.agent.driver.host import Host
from mlperf_operator.catalogue import Target
from mlperf_operator.driver_report import MANAGED_BY_HOST, MANAGED_HERE, Reason
from mlperf_operator.models import Lenient

RECORD = "/var/lib/mlperf-operator/driver.json"
LOG = "/var/log/mlperf-operator/driver.log"
LOCK = "/run/mlperf-operator/driver.lock"

AT_WORK = ""
"""Record.run_file while a run file is being installed."""

State = Literal["Changing", "Complete"]
_AT_REST: dict[str, object] = {
    "state": "Complete",
    "step": "",
    "previous": {},
    "held_before": (),
    "stopped": (),
    "unloaded": (),
}


class Record(Lenient):
    """What the agent did to this node. It is written before each step, so that a killed pod's successor knows."""

    state: State
    step: str = Field(default="", description="What the agent is at, while Changing.")
    digest: str = Field(description="Digest of what is wanted: see digest().")
    version: str = Field(description="The driver that is wanted.")
    source: str = Field(description="Packages or RunFile.")
    owned: bool = Field(default=False, description="Whether the driver that is there is ours: a package was touched.")
    toolkit: bool = Field(default=False, description="Whether the container toolkit's packages are ours.")
    run_file: str | None = Field(default=None, description="sha256 of the run file that was installed, or AT_WORK.")
    held: tuple[str, ...] = Field(default=(), description="Packages that we hold.")
    held_before: tuple[str, ...] = Field(default=(), description="What of them was held before the change.")
    previous: dict[str, str] = Field(default_factory=dict, description="Driver packages before the change.")
    stopped: tuple[str, ...] = Field(default=(), description="Services that we stopped and that shall run again.")
    unloaded: tuple[str, ...] = Field(default=(), description="Modules that were loaded before the change.")
    owned_before: bool = Field(default=False, description="Whether the driver before the change was ours.")

    def during(self, step: str, **changes: object) -> Record:
        """Return the record at a step of a change."""
        return self.model_copy(update={"state": "Changing", "step": step, **changes})

    def complete(self) -> Record:
        """Return the record after the last step."""
        return self.model_copy(update={**_AT_REST, "owned_before": self.owned})

    def undone(self) -> Record:
        """Return the record after the former driver was put back: what is wanted is not there."""
        return self.model_copy(update={**_AT_REST, "digest": "", "owned": self.owned_before, "held": self.held_before})


def read(host: Host) -> Record | None:
    """Return the record, or None where there is none. One that cannot be understood counts as none, and that is said.

    Without a record nothing on the node is ours, so the worst that follows is a refusal.
    """
    text = host.read(RECORD)
    if text is None:
        return None
    try:
        return Record.model_validate_json(text)
    except ValidationError as error:
        host.say(f"{RECORD} cannot be understood and counts as none: {error.errors()[0]['msg']}")
        return None


def managed_by(host: Host, facts: Facts) -> str | None:
    """Return whose driver it is: ours by the record, or the host's where one is loaded."""
    found = read(host)
    if found is not None and found.owned:
        return MANAGED_HERE
    return MANAGED_BY_HOST if facts.loaded is not None else None


def write(host: Host, record: Record | None) -> None:
    """Write the record so that it outlives a crash; None removes it.

    Raises:
        DriverError: the disk is full, or cannot be written.
    """
    if record is None:
        host.remove(RECORD)
        return
    try:
        host.write(RECORD, record.model_dump_json(by_alias=True, indent=2) + "\n", 0o600)
    except OSError as error:
        raise unwritable(RECORD, error) from error


def unwritable(path: str, error: OSError) -> DriverError:
    """Return the error for a file of the host that cannot be written."""
    return DriverError(Reason.DISK_FULL, f"{path} cannot be written: {error.strerror or error}")


def digest(target: Target, kernel: str) -> str:
    """Return the digest of what is wanted: not of what is permitted, and with the kernel that the module is for."""
    document = target.model_dump(mode="json", exclude={"mode"})
    return hashlib.sha256(json.dumps([document, kernel], sort_keys=True).encode()).hexdigest()


@contextmanager
def locked(host: Host) -> Iterator[None]:
    """Hold the node's lock. The kernel frees it with the process, however that ends.

    Raises:
        DriverError: another process holds it.
    """
    place = host.path(LOCK)
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise DriverError(Reason.NODE_LOCKED, f"process {holder} holds {LOCK}") from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
