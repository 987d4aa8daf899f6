"""What every source has in common: the interface of the package managers, and how their commands are run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from mlperf_operator.agent.driver.errors import DriverError
from mlperf_operator.agent.driver.host import TIMED_OUT, Done, Host
from mlperf_operator.agent.driver.sources import failures
from mlperf_operator.catalogue import Package, Repository
from mlperf_operator.driver_report import Reason

NAME = "mlperf-operator"
"""How the files that configure our repositories are named."""

STATE = f"/var/lib/{NAME}"
CACHE = f"/var/cache/{NAME}"
ARCHIVES = f"{CACHE}/archives"
"""Packages lie here between download and the end of a change, where no hook of the host's clears them away."""

LOCK_SECONDS = 20
"""How long a package manager waits for another one before it says that it is busy."""

QUICK, SLOW, TRANSACTION = 120.0, 1800.0, 3600.0
"""Seconds: questions; downloads; transactions, which are never cut short for building a module slowly."""


@dataclass(frozen=True)
class Command:
    """A program of the host's and the seconds that it may take."""

    argv: tuple[str, ...]
    seconds: float = QUICK


@dataclass(frozen=True)
class Change:
    """One transaction: packages in exact versions, and packages that go."""

    install: tuple[Package, ...] = ()
    remove: tuple[str, ...] = ()
    again: bool = False
    """Whether what is to be installed may be there already, by halves."""

    def __bool__(self) -> bool:
        return bool(self.install or self.remove)


@dataclass(frozen=True)
class Planned:
    """What a package manager would do."""

    installs: Mapping[str, str]
    """Version by name, dependencies too."""
    removes: tuple[str, ...]
    held: tuple[str, ...] = ()
    """Packages on hold that it would change all the same."""


class PackageManager(Protocol):
    """The command lines and files of a package manager. Nothing here runs anything."""

    name: str
    plans_with_holds: bool
    """Whether it can plan and download a change of what is held; otherwise holds are released before."""

    def files(
        self, repositories: Sequence[Repository], pins: Sequence[Package], sources: Mapping[str, str]
    ) -> dict[str, str]:
        """Return the files that configure repositories, signed, and pin versions.

        Args:
            repositories: ours, without double ones.
            pins: exact versions that outrank any other.
            sources: the host's own files that name repositories: its text by path.
        """

    def source_folders(self) -> tuple[str, ...]:
        """Return files and folders where the host names its repositories."""

    def refresh(self, repositories: Sequence[Repository]) -> tuple[Command, ...]:
        """Read the lists of our repositories again, and of no others: those may be broken."""

    def refresh_all(self) -> tuple[Command, ...]:
        """Read the lists of all repositories again."""

    def stale(self, done: Done) -> bool:
        """Say whether a refresh did not reach a repository, whatever it returned."""

    def succeeded(self, done: Done) -> bool:
        """Say whether a command did what it should: not every manager says that by returning 0."""

    def simulate(self, change: Change) -> tuple[Command, ...]:
        """Say what a change would do, without doing it, each command a part."""

    def planned(self, output: str) -> Planned:
        """Return what a simulation said."""

    def download(self, change: Change) -> Command:
        """Download everything that a change needs."""

    def keep(self, packages: Sequence[Package]) -> Command:
        """Download packages that are installed, so that they can be put back."""

    def install(self, change: Change) -> tuple[Command, ...]:
        """Do a change that was downloaded."""

    def hold(self, packages: Sequence[Package]) -> Command:
        """Keep packages as they are, whoever upgrades the host."""

    def unhold(self, names: Sequence[str]) -> Command:
        """Let packages change."""

    def repair(self) -> tuple[Command, ...]:
        """Finish what an interrupted transaction left."""

    def clean(self) -> Command:
        """Remove what was downloaded."""


def distinct(repositories: Sequence[Repository]) -> tuple[Repository, ...]:
    """Return repositories without those that only repeat another, whose key counts."""
    found: dict[tuple[str, str, tuple[str, ...]], Repository] = {}
    for repository in repositories:
        found.setdefault((repository.url.rstrip("/"), repository.suite, repository.components), repository)
    return tuple(found.values())


def key_name(key: str) -> str:
    """Return the name of a key's file without its ending: different keys never share one."""
    return f"{NAME}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"


def present(name: str, version: str) -> Package:
    """Return a package as the host's package manager names it. The catalogue's patterns have no `libcuda1:i386`."""
    return Package.model_construct(name=name, version=version)


def run(host: Host, command: Command) -> Done:
    """Run a command on the host and return how it ended."""
    return host.run(command.argv, seconds=command.seconds)


def must(host: Host, manager: PackageManager, command: Command, what: str) -> Done:
    """Run a command of a package manager that has to succeed.

    Args:
        host: where.
        manager: whose command it is.
        command: what is run.
        what: what failed, for the message, such as `installing the packages`.

    Raises:
        DriverError: it failed, with the reason that its words tell.
    """
    done = run(host, command)
    if not manager.succeeded(done):
        raise failed(done, what)
    return done


def failed(done: Done, what: str, fallback: Reason = Reason.INSTALL_FAILED) -> DriverError:
    """Return the error for a command that failed."""
    words = failures.words(done.output) or f"it ended with {done.code}"
    if done.code == TIMED_OUT:
        words = f"it did not end in time: {words}"
    return DriverError(failures.reason(done.output) or fallback, f"{what} failed: {words}")
