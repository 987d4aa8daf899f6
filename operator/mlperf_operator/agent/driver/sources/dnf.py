"""Packages by dnf 4: RHEL and its relatives."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from mlperf_operator.agent.driver.host import Done
from mlperf_operator.agent.driver.sources.base import (
    NAME,
    SLOW,
    TRANSACTION,
    Change,
    Command,
    Planned,
    key_name,
)
from mlperf_operator.catalogue import Package, Repository

SOURCES = f"/etc/yum.repos.d/{NAME}.repo"
KEYS = "/etc/pki/rpm-gpg"
VERSIONLOCK = "python3-dnf-plugin-versionlock"
"""dnf 4 holds a package only with this plugin: it comes with the first transaction."""

_OURS = ("--disablerepo=*", f"--enablerepo={NAME}-*")
_EXACTLY = ("--allowerasing", "--setopt=install_weak_deps=False", "--setopt=keepcache=True")
_LOCK = "--setopt=exit_on_lock=True"
_ABORTED = "Operation aborted"
"""How dnf ends after --assumeno where it could have gone on."""

_ROW = re.compile(r" (\S+)\s+\S+\s+(\S+)\s+\S+\s+[\d.]+ ?[kMG]?\s*(?=\n|$)")
_SECTION = re.compile(r"^(\w[\w ]*):\n((?:[ \t].*\n?)+)", re.MULTILINE)


class Dnf:
    """dnf, with its versionlock plugin."""

    name = "dnf"
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
        """Return keys and repositories. module_hotfixes shows packages of streams that are not the default one."""
        keys = {key_file(repository): repository.key for repository in repositories}
        stanzas = [
            f"[{NAME}-{number}]\nname={NAME} {number}\nbaseurl={repository.url}\nenabled=1\ngpgcheck=1\n"
            f"gpgkey=file://{key_file(repository)}\nskip_if_unavailable=0\nmodule_hotfixes=1\n"
            for number, repository in enumerate(repositories, 1)
        ]
        return {**keys, SOURCES: "\n".join(stanzas)}

    def refresh(self, repositories: Sequence[Repository]) -> tuple[Command, ...]:  # noqa: ARG002 - a file has them
        """Read our metadata again."""
        return (Command(("dnf", "-y", "makecache", "--refresh", *_OURS, _LOCK), SLOW),)

    def refresh_all(self) -> tuple[Command, ...]:
        """Read all metadata again."""
        return (Command(("dnf", "-y", "makecache", "--refresh", _LOCK), SLOW),)

    def stale(self, done: Done) -> bool:
        """Say whether a repository did not answer."""
        return not done.ok

    def succeeded(self, done: Done) -> bool:
        """Say whether a command did what it should."""
        return done.ok or ("--assumeno" in done.argv and _ABORTED in done.output)

    def simulate(self, change: Change) -> tuple[Command, ...]:
        """Resolve, and answer no; the removal too, which takes along whatever depends on what is to go."""
        install = Command(("dnf", "--assumeno", "install", *_EXACTLY, _LOCK, *_words(change.install)), SLOW)
        remove = Command(("dnf", "--assumeno", "remove", "--noautoremove", _LOCK, *change.remove), SLOW)
        return (install, remove) if change.remove else (install,)

    def planned(self, output: str) -> Planned:
        """Return what the table says that is printed before the question."""
        installs: dict[str, str] = {}
        removes: list[str] = []
        for title, body in _SECTION.findall(output):
            rows = _ROW.findall(body)
            if title.startswith("Removing"):
                removes += [name for name, _ in rows]
            elif title.startswith(("Installing", "Upgrading", "Downgrading", "Reinstalling")):
                installs.update(rows)
        return Planned(installs, tuple(removes))

    def download(self, change: Change) -> Command:
        """Download."""
        return Command(("dnf", "-y", "install", "--downloadonly", *_EXACTLY, _LOCK, *_words(change.install)), SLOW)

    def keep(self, packages: Sequence[Package]) -> Command:
        """Download what is installed."""
        argv = ("dnf", "-y", "reinstall", "--downloadonly", "--setopt=keepcache=True", _LOCK)
        return Command((*argv, *(spec(package) for package in packages)), SLOW)

    def install(self, change: Change) -> tuple[Command, ...]:
        """Install in one transaction, which erases what conflicts; then remove what did not conflict and is unwanted.

        dnf has no command that does both. In this order no moment is without a driver.
        """
        commands = []
        if change.install:
            argv = ("dnf", "-y", "install", "--cacheonly", *_EXACTLY, _LOCK, *_words(change.install))
            commands.append(Command(argv, TRANSACTION))
        if change.remove:
            commands.append(Command(("dnf", "-y", "remove", "--noautoremove", _LOCK, *change.remove), TRANSACTION))
        return tuple(commands)

    def hold(self, packages: Sequence[Package]) -> Command:
        """Lock versions."""
        return Command(("dnf", "-y", "versionlock", "add", *(spec(package) for package in packages)))

    def unhold(self, names: Sequence[str]) -> Command:
        """Release."""
        return Command(("dnf", "-y", "versionlock", "delete", *names))

    def repair(self) -> tuple[Command, ...]:
        """Rebuild the database, which takes away stale locks, and remove the doubles of an interrupted upgrade."""
        return (
            Command(("rpm", "--rebuilddb"), SLOW),
            Command(("dnf", "-y", "remove", "--duplicates", "--noautoremove", _LOCK), TRANSACTION),
        )

    def clean(self) -> Command:
        """Remove our packages from the cache."""
        return Command(("dnf", "clean", "packages", *_OURS))


def key_file(repository: Repository) -> str:
    """Return where the key of a repository lies."""
    return f"{KEYS}/{key_name(repository.key)}.asc"


def spec(package: Package) -> str:
    """Return how dnf names an exact package: NAME-[EPOCH:]VERSION-RELEASE."""
    return f"{package.name}-{package.version}"


def _words(packages: Sequence[Package]) -> tuple[str, ...]:
    return (*(spec(package) for package in packages), VERSIONLOCK)
