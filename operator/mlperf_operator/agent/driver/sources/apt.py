"""Packages by apt: Ubuntu and Debian."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

from mlperf_operator.agent.driver.host import Done
from mlperf_operator.agent.driver.sources.base import (
    ARCHIVES,
    LOCK_SECONDS,
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

SOURCES = f"{STATE}/apt/sources.list.d"
"""Where our commands find repositories: ours, and copies of the host's. In the host's own files ours are not named,
because apt refuses to work at all where two of them name one repository with different keys, now or later."""

OURS = f"{SOURCES}/{NAME}.list"
PREFERENCES = f"/etc/apt/preferences.d/{NAME}"
KEYRINGS = "/etc/apt/keyrings"

_PRIORITY = 1001
"""Above 1000 a version is taken even where that is a downgrade, apt_preferences(5)."""

_ARCHIVES = ("-o", f"Dir::Cache::archives={ARCHIVES}/")
_SOURCES = ("-o", "Dir::Etc::sourcelist=/dev/null", "-o", f"Dir::Etc::sourceparts={SOURCES}")
_LOCK = ("-o", f"DPkg::Lock::Timeout={LOCK_SECONDS}")
_NETWORK = (
    *("-o", "Acquire::Retries=2"),
    *("-o", "Acquire::http::Timeout=20"),
    *("-o", "Acquire::https::Timeout=20"),
)
# Configuration that an administrator changed is kept, and nobody is asked.
_CONFIGURATION = ("-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold")
# -f: together with the change, whatever an attempt that was ended left unmet is met; both are in the plan.
_EXACTLY = (*_SOURCES, "-f", "--no-install-recommends", "--allow-downgrades")
# What is held is told in the plan, and judged there: a hold of ours is released only just before the transaction.
_HELD = "--allow-change-held-packages"

_UNREACHED = re.compile(r"^(Err:|W: Failed to fetch|W: Some index files|E: )", re.MULTILINE)
_INST = re.compile(r"^Inst (\S+?)(?::\S+)? (?:\[[^\]]*\] )?\((\S+)", re.MULTILINE)
_REMV = re.compile(r"^Remv (\S+?)(?::\S+)? ", re.MULTILINE)
_HELD_NAMES = re.compile(r"^The following held packages will be changed:\n((?: +.*\n)+)", re.MULTILINE)
_ONE_LINE = re.compile(r"^\s*deb(?:-src)?\s+(?:\[[^\]]*\]\s+)?(\S+)\s+(\S+)")
_FIELD = re.compile(r"^([A-Za-z-]+):((?:.*)(?:\n[ \t#].*)*)", re.MULTILINE)


class Apt:
    """apt-get, apt-mark and dpkg."""

    name = "apt"
    plans_with_holds = True

    def source_folders(self) -> tuple[str, ...]:
        """Return files and folders where the host names its repositories."""
        return ("/etc/apt/sources.list", "/etc/apt/sources.list.d")

    def files(
        self, repositories: Sequence[Repository], pins: Sequence[Package], sources: Mapping[str, str]
    ) -> dict[str, str]:
        """Return keys, preferences, our sources, and the host's without what would name one of ours twice."""
        ours = frozenset((repository.url.rstrip("/"), repository.suite) for repository in repositories)
        lists = [text for path, text in sources.items() if path.endswith(".list")]
        stanzas = [text for path, text in sources.items() if path.endswith(".sources")]
        return {
            **{_key_path(repository): repository.key for repository in repositories},
            OURS: "".join(_line(repository) for repository in repositories),
            f"{SOURCES}/host.list": "".join(other_lines(text, ours) for text in lists),
            f"{SOURCES}/host.sources": "\n".join(other_stanzas(text, ours) for text in stanzas),
            PREFERENCES: "\n".join(
                f"Package: {package.name}\nPin: version {package.version}\nPin-Priority: {_PRIORITY}\n"
                for package in pins
            ),
        }

    def refresh(self, repositories: Sequence[Repository]) -> tuple[Command, ...]:  # noqa: ARG002 - a file has them
        """Read our lists again. The lists of the host's other repositories stay, however those do."""
        argv = ["apt-get", "update", "-q", *_LOCK, *_NETWORK, "-o", "APT::Update::Error-Mode=any"]
        argv += ["-o", f"Dir::Etc::sourcelist={OURS}", "-o", "Dir::Etc::sourceparts=/dev/null"]
        return (Command((*argv, "-o", "APT::Get::List-Cleanup=0"), SLOW),)

    def refresh_all(self) -> tuple[Command, ...]:
        """Read all lists again."""
        return (Command(("apt-get", "update", "-q", *_LOCK, *_NETWORK, *_SOURCES), SLOW),)

    def stale(self, done: Done) -> bool:
        """Say whether a repository did not answer: before apt 2.1 `apt-get update` returns 0 all the same."""
        return not done.ok or _UNREACHED.search(done.output) is not None

    def simulate(self, change: Change) -> tuple[Command, ...]:
        """Simulate."""
        return (Command(("apt-get", "install", "-s", "-q", _HELD, *_EXACTLY, *_LOCK, *_words(change))),)

    def succeeded(self, done: Done) -> bool:
        """Say whether a command did what it should."""
        return done.ok

    def planned(self, output: str) -> Planned:
        """Return what a simulation said: lines such as `Inst NAME [OLD] (NEW ORIGIN)` and `Remv NAME [OLD]`."""
        installs = {found[1]: found[2] for found in _INST.finditer(output)}
        removes = tuple(name for name in _REMV.findall(output) if name not in installs)
        return Planned(
            installs, removes, tuple(word for names in _HELD_NAMES.findall(output) for word in names.split())
        )

    def download(self, change: Change) -> Command:
        """Download."""
        argv = ["apt-get", "install", "-y", "-q", "--download-only", _HELD, *_EXACTLY, *_ARCHIVES]
        return Command((*argv, *_LOCK, *_NETWORK, *_words(change)), SLOW)

    def keep(self, packages: Sequence[Package]) -> Command:
        """Download what is installed."""
        argv = ["apt-get", "install", "-y", "-q", "--download-only", "--reinstall", _HELD, *_EXACTLY, *_ARCHIVES]
        return Command((*argv, *_LOCK, *_NETWORK, *_words(Change(tuple(packages)))), SLOW)

    def install(self, change: Change) -> tuple[Command, ...]:
        """Install, in one transaction and without the network."""
        argv = ["apt-get", "install", "-y", "-q", "--no-download", *_EXACTLY, *_ARCHIVES, *_CONFIGURATION, *_LOCK]
        return (Command((*argv, *_words(change)), TRANSACTION),)

    def hold(self, packages: Sequence[Package]) -> Command:
        """Hold."""
        return Command(("apt-mark", "hold", *(package.name for package in packages)))

    def unhold(self, names: Sequence[str]) -> Command:
        """Release."""
        return Command(("apt-mark", "unhold", *names))

    def repair(self) -> tuple[Command, ...]:
        """Finish what dpkg was at. What is unmet then, `-f` of the transaction completes."""
        return (Command(("dpkg", "--configure", "-a", "--force-confdef", "--force-confold"), TRANSACTION),)

    def clean(self) -> Command:
        """Remove our archives. `apt-get clean` would remove apt's index of all packages, too."""
        return Command(("rm", "-rf", ARCHIVES))


def other_lines(text: str, ours: AbstractSet[tuple[str, str]]) -> str:
    """Return a file of one-line format (sources.list(5)) without the lines that name one of these URLs and suites."""
    found = ((line, _ONE_LINE.match(line)) for line in text.splitlines())
    return "".join(
        f"{line}\n" for line, match in found if match is None or (match[1].rstrip("/"), match[2]) not in ours
    )


def other_stanzas(text: str, ours: AbstractSet[tuple[str, str]]) -> str:
    """Return a file of deb822 format (sources.list(5)) without the stanzas that name one of these URLs and suites."""
    return "\n".join(
        f"{stanza.strip()}\n" for stanza in re.split(r"\n\s*\n", text) if stanza.strip() and not _names(stanza, ours)
    )


def _names(stanza: str, ours: AbstractSet[tuple[str, str]]) -> bool:
    fields = {name.lower(): value.split() for name, value in _FIELD.findall(stanza)}
    urls = {url.rstrip("/") for url in fields.get("uris", ())}
    return any(url in urls and suite in fields.get("suites", ()) for url, suite in ours)


def _key_path(repository: Repository) -> str:
    return f"{KEYRINGS}/{key_name(repository.key)}.asc"


def _line(repository: Repository) -> str:
    words = [repository.url, repository.suite, *repository.components]
    return f"deb [signed-by={_key_path(repository)}] {' '.join(words)}\n"


def _words(change: Change) -> tuple[str, ...]:
    exact = (f"{package.name}={package.version}" for package in change.install)
    return (*(("--reinstall",) if change.again else ()), *exact, *(f"{name}-" for name in change.remove))
