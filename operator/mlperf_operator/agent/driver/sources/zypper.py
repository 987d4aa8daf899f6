"""Packages by zypper: SUSE."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from mlperf_operator.agent.driver.host import Done
from mlperf_operator.agent.driver.sources.base import (
    NAME,
    SLOW,
    STATE,
    TRANSACTION,
    Change,
    Command,
    Planned,
    key_name,
)
from mlperf_operator.catalogue import Package, Repository

SOURCES = f"/etc/zypp/repos.d/{NAME}.repo"
KEYS = f"{STATE}/keys"

_ZYPPER = ("zypper", "--non-interactive")
_OFFLINE = (*_ZYPPER, "--no-refresh")
_EXACTLY = ("--oldpackage", "--no-recommends", "--force-resolution", "--auto-agree-with-licenses")
_INFORMATION = frozenset({0, 100, 101, 102, 103})
"""Exit codes of success; above 99 with news: updates there, reboot or restart advised (zypper(8), EXIT CODES)."""

_SECTION = re.compile(r"^The following .*? going to be ([\w-]+):\n((?:[ \t]+.*\n?)+)", re.MULTILINE)


class Zypper:
    """zypper and rpm."""

    name = "zypper"
    plans_with_holds = False

    def source_folders(self) -> tuple[str, ...]:
        """Return nothing: a repository may be named twice."""
        return ()

    def files(
        self,
        repositories: Sequence[Repository],
        pins: Sequence[Package],  # noqa: ARG002 - exact versions are asked for and locked
        sources: Mapping[str, str],  # noqa: ARG002 - as source_folders says
    ) -> dict[str, str]:
        """Return keys and repositories."""
        keys = {key_file(repository): repository.key for repository in repositories}
        stanzas = [
            f"[{alias}]\nname={alias}\nbaseurl={repository.url}\nenabled=1\nautorefresh=0\ngpgcheck=1\n"
            f"keeppackages=1\ngpgkey=file://{key_file(repository)}\n"
            for alias, repository in zip(_aliases(repositories), repositories, strict=True)
        ]
        return {**keys, SOURCES: "\n".join(stanzas)}

    def refresh(self, repositories: Sequence[Repository]) -> tuple[Command, ...]:
        """Trust the catalogue's keys and no others, and read our metadata again."""
        keys = dict.fromkeys(key_file(repository) for repository in repositories)
        return (
            *(Command(("rpm", "--import", key)) for key in keys),
            Command((*_ZYPPER, "refresh", "--force", *_aliases(repositories)), SLOW),
        )

    def refresh_all(self) -> tuple[Command, ...]:
        """Read all metadata again."""
        return (Command((*_ZYPPER, "refresh"), SLOW),)

    def stale(self, done: Done) -> bool:
        """Say whether a repository did not answer."""
        return not done.ok

    def succeeded(self, done: Done) -> bool:
        """Say whether a command did what it should."""
        return done.code in _INFORMATION

    def simulate(self, change: Change) -> tuple[Command, ...]:
        """Simulate."""
        return (Command((*_OFFLINE, "install", "--dry-run", *_EXACTLY, *_words(change)), SLOW),)

    def planned(self, output: str) -> Planned:
        """Return what a dry run said; it names no versions."""
        installs: dict[str, str] = {}
        removes: list[str] = []
        for verb, body in _SECTION.findall(output):
            if verb.upper() == "REMOVED":
                removes += body.split()
            else:
                installs.update(dict.fromkeys(body.split(), ""))
        return Planned(installs, tuple(removes))

    def download(self, change: Change) -> Command:
        """Download."""
        return Command((*_OFFLINE, "install", "--download-only", *_EXACTLY, *_words(change)), SLOW)

    def keep(self, packages: Sequence[Package]) -> Command:
        """Download what is installed."""
        return Command(
            (*_OFFLINE, "install", "--force", "--download-only", *_EXACTLY, *_words(Change(tuple(packages)))), SLOW
        )

    def install(self, change: Change) -> tuple[Command, ...]:
        """Install and remove in one transaction; the packages are in the cache."""
        return (Command((*_OFFLINE, "install", *_EXACTLY, *_words(change)), TRANSACTION),)

    def hold(self, packages: Sequence[Package]) -> Command:
        """Lock."""
        return Command((*_ZYPPER, "addlock", *(package.name for package in packages)))

    def unhold(self, names: Sequence[str]) -> Command:
        """Release."""
        return Command((*_ZYPPER, "removelock", *names))

    def repair(self) -> tuple[Command, ...]:
        """Rebuild the database and complete what is missing."""
        return (
            Command(("rpm", "--rebuilddb"), SLOW),
            Command((*_OFFLINE, "verify", "--no-recommends"), TRANSACTION),
        )

    def clean(self) -> Command:
        """Remove our packages from the cache. Other repositories keep nothing by default."""
        return Command((*_ZYPPER, "clean"))


def key_file(repository: Repository) -> str:
    """Return where the key of a repository lies."""
    return f"{KEYS}/{key_name(repository.key)}.asc"


def _aliases(repositories: Sequence[Repository]) -> list[str]:
    return [f"{NAME}-{number}" for number, _ in enumerate(repositories, 1)]


def _words(change: Change) -> tuple[str, ...]:
    return (
        *(f"{package.name}={package.version}" for package in change.install),
        *(f"!{name}" for name in change.remove),
    )
