"""What a node lacks: pure, from what was seen of it and what it shall have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from mlperf_operator.agent.driver.errors import DriverError
from mlperf_operator.agent.driver.facts import Facts, Packages
from mlperf_operator.agent.driver.parse import is_driver_package
from mlperf_operator.agent.driver.record import Record
from mlperf_operator.agent.driver.sources.base import Change
from mlperf_operator.catalogue import (
    Driver,
    Package,
    PackageSource,
    Repository,
    RunFileSource,
    Target,
    ToolkitSource,
    upstream,
)
from mlperf_operator.driver_report import Reason

_OTHER_DRIVER = frozenset(
    {
        Reason.DRIVER_NOT_LOADED,
        Reason.DRIVER_MISMATCH,
        Reason.FABRIC_MANAGER_MISSING,
        Reason.FABRIC_MANAGER_MISMATCH,
        Reason.FABRIC_MANAGER_FAILED,
    }
)
"""Findings that a change of the driver or its services may end. The others are of the hardware, or the toolkit's."""

_WITHOUT_DRIVER = frozenset(
    {
        "StopServices",
        "Unload",
        "UninstallRunFile",
        "Install",
        "RunFile",
        "Hold",
        "Build",
        "Load",
        "Persistenced",
        "Undo",
    }
)
"""Steps at which modules may be missing, or services that had run."""

_FABRIC = frozenset({Reason.FABRIC_MANAGER_MISSING, Reason.FABRIC_MANAGER_MISMATCH, Reason.FABRIC_MANAGER_FAILED})


@dataclass(frozen=True)
class Wanted:
    """What a node shall have, from the sources that fit its system."""

    driver: Driver
    source: PackageSource | RunFileSource
    tools: ToolkitSource | None

    def repositories(self) -> tuple[Repository, ...]:
        """Return where packages come from."""
        found = (self.source.repository, self.tools.repository if self.tools else None)
        return tuple(repository for repository in found if repository is not None)

    def driver_packages(self, nvswitches: int) -> tuple[Package, ...]:
        """Return the driver's packages; the fabric manager's only where there is an NVSwitch to manage."""
        packages = self.source.driver if isinstance(self.source, PackageSource) else ()
        return (*packages, *(self.source.fabric_manager if nvswitches else ()))

    def toolkit_packages(self) -> tuple[Package, ...]:
        """Return the container toolkit's packages."""
        return self.tools.packages if self.tools else ()


@dataclass(frozen=True)
class Seen:
    """A node before anything is done."""

    facts: Facts
    packages: Packages
    record: Record | None = None
    findings: tuple[DriverError, ...] = ()
    uninstaller: bool = False
    """Whether a driver from a run file is there."""
    containerd_pending: bool = False
    """Whether an attempt was ended between writing containerd's configuration and restarting it."""
    built: bool = False
    """Whether there is a module of a driver for the running kernel."""
    free: Mapping[str, int] = field(default_factory=dict)
    """Free bytes by folder."""

    @property
    def ours(self) -> bool:
        """Whether the driver that is there, or half there, was brought by us."""
        return self.record is not None and self.record.owned

    @property
    def present(self) -> tuple[str, ...]:
        """Signs of a driver."""
        installed = (
            f"{name} {version}" for name, version in self.packages.installed.items() if is_driver_package(name)
        )
        signs = [*installed]
        if self.facts.loaded is not None:
            signs.append(f"loaded module {self.facts.loaded}")
        if self.uninstaller:
            signs.append("a driver from a run file")
        return tuple(signs)

    @property
    def resumed(self) -> bool:
        """Whether an attempt of ours was ended after it began to change packages."""
        return self.record is not None and self.record.state == "Changing" and self.record.owned

    @property
    def unloading(self) -> bool:
        """Whether an attempt was ended when modules may have been missing, or services that had run."""
        if self.record is None or self.record.state == "Complete":
            return False
        return self.record.step in _WITHOUT_DRIVER or bool(self.record.unloaded)

    def finds(self, reasons: Iterable[Reason]) -> bool:
        """Say whether one of these is among the findings."""
        return any(error.reason in set(reasons) for error in self.findings)


@dataclass(frozen=True)
class Work:
    """What is to be done. All false: nothing."""

    install: tuple[Package, ...] = ()
    remove: tuple[str, ...] = ()
    hold: tuple[Package, ...] = ()
    repair: bool = False
    """Finish what an attempt of ours that was ended left half configured."""
    run_file: bool = False
    uninstall_run_file: bool = False
    reload: bool = False
    """Unload the driver's modules, if they are loaded, and load them again."""
    fabric: bool = False
    """Start the fabric manager, again if it runs."""
    configure: bool = False
    """Let containerd know the toolkit's runtime."""

    def __bool__(self) -> bool:
        return bool(self.change) or bool(self.hold) or self.repair or self.drives or self.configure

    @property
    def change(self) -> Change:
        """The packages' transaction."""
        return Change(self.install, self.remove, again=self.repair)

    @property
    def drives(self) -> bool:
        """Whether the driver or its services are touched, which nobody may be using then."""
        return self.run_file or self.uninstall_run_file or self.reload or self.fabric

    @property
    def driver(self) -> bool:
        """Whether driver packages or a run file are changed."""
        return self.run_file or self.uninstall_run_file or any(is_driver_package(name) for name in self._names())

    def _names(self) -> tuple[str, ...]:
        return (*(package.name for package in self.install), *self.remove)


def wanted(target: Target, facts: Facts) -> Wanted:
    """Return what this system shall have.

    Raises:
        DriverError: UNSUPPORTED_OS, because the catalogue has no source for it.
    """
    if target.driver is None:
        raise DriverError(Reason.UNSUPPORTED_OS, "no driver is wanted")
    source = next((source for source in target.driver.sources if facts.os.fits(source.os)), None)
    if source is None:
        raise DriverError(
            Reason.UNSUPPORTED_OS, f"driver {target.driver.version} has no source for {facts.os} in the catalogue"
        )
    tools = None
    if target.toolkit is not None:
        tools = next((tools for tools in target.toolkit.sources if facts.os.fits(tools.os)), None)
        if tools is None and not facts.runtime_configured:
            raise DriverError(Reason.UNSUPPORTED_OS, f"the container toolkit has no source for {facts.os}")
    return Wanted(target.driver, source, tools)


def work(seen: Seen, goal: Wanted) -> Work:
    """Return what is to be done so that the node has what it shall have."""
    toolkit = _toolkit_packages(seen, goal)
    configure = goal.tools is not None and (not seen.facts.runtime_configured or seen.containerd_pending)
    if seen.present and not seen.ours and not seen.finds(_OTHER_DRIVER):
        # Somebody else's, and exactly what is wanted: it stays as it is.
        install = _inexact(toolkit, seen.packages)
        return Work(install=install, hold=_loose(toolkit, seen.packages), configure=configure or bool(install))
    return _driver_work(seen, goal, toolkit, configure=configure)


def _driver_work(seen: Seen, goal: Wanted, toolkit: tuple[Package, ...], *, configure: bool) -> Work:
    packages = (*goal.driver_packages(seen.facts.nvswitches), *toolkit)
    install = _inexact(packages, seen.packages)
    # What a run file installs is for one kernel: for another one it is run again.
    run_file = isinstance(goal.source, RunFileSource) and not (_has_run_file(seen, goal.source) and seen.built)
    uninstall = isinstance(goal.source, PackageSource) and seen.uninstaller
    fabric_names = {package.name for package in goal.source.fabric_manager}
    modules = any(is_driver_package(package.name) and package.name not in fabric_names for package in install)
    reload = modules or run_file or uninstall or seen.facts.loaded != goal.driver.version or seen.unloading
    fabric_changes = any(package.name in fabric_names for package in install)
    driver_changes = modules or fabric_changes or run_file
    return Work(
        install=install,
        # A change of the container toolkit alone leaves the driver's packages alone, whatever they are.
        remove=_unwanted(seen, goal, packages) if driver_changes else (),
        hold=_loose(packages, seen.packages),
        repair=seen.resumed and (bool(install) or bool(seen.packages.broken)),
        run_file=run_file,
        uninstall_run_file=uninstall,
        reload=reload,
        fabric=seen.facts.nvswitches > 0 and (reload or fabric_changes or seen.finds(_FABRIC)),
        configure=configure or any(package in toolkit for package in install),
    )


def _toolkit_packages(seen: Seen, goal: Wanted) -> tuple[Package, ...]:
    """Return the toolkit's packages where they are ours to bring: one that somebody configured stays as it is."""
    ours = seen.record is not None and seen.record.toolkit
    return goal.toolkit_packages() if ours or not seen.facts.runtime_configured else ()


def _inexact(packages: Iterable[Package], there: Packages) -> tuple[Package, ...]:
    return tuple(
        package
        for package in packages
        if there.installed.get(package.name) != package.version or package.name in there.broken
    )


def _loose(packages: Iterable[Package], there: Packages) -> tuple[Package, ...]:
    return tuple(package for package in packages if package.name not in there.held)


def _has_run_file(seen: Seen, source: RunFileSource) -> bool:
    return seen.uninstaller and seen.record is not None and seen.record.run_file == source.sha256


def _unwanted(seen: Seen, goal: Wanted, packages: tuple[Package, ...]) -> tuple[str, ...]:
    """Return driver packages that must go: of other versions, and beside a run file all but the fabric manager.

    What has the wanted version and is not listed came as a dependency.
    """
    listed = {package.name for package in packages}
    beside_run_file = isinstance(goal.source, RunFileSource)
    return tuple(
        name
        for name, version in seen.packages.installed.items()
        if is_driver_package(name)
        and name not in listed
        and (beside_run_file or upstream(version) != goal.driver.version)
    )
