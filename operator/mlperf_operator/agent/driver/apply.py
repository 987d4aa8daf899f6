"""The change itself: each function one step or a few, none of which needs the network."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from mlperf_operator.agent.driver import modules, services, toolkit
from mlperf_operator.agent.driver import record as records
from mlperf_operator.agent.driver.attempt import Attempt, installed
from mlperf_operator.agent.driver.errors import DriverError
from mlperf_operator.agent.driver.judge import findings
from mlperf_operator.agent.driver.look import look_for
from mlperf_operator.agent.driver.parse import is_toolkit_package
from mlperf_operator.agent.driver.report import joined
from mlperf_operator.agent.driver.sources import base, runfile
from mlperf_operator.agent.driver.sources.base import Change
from mlperf_operator.catalogue import Package, RunFileSource
from mlperf_operator.driver_report import Reason

_FABRIC_SECONDS = 60.0
_HOLD_SECONDS = 120.0
_PAUSE_SECONDS = 2.0
_DKMS_SECONDS = 1800.0


def release(attempt: Attempt) -> None:
    """Stop the driver's services and unload its modules."""
    work, record = attempt.work, attempt.record
    if not work.drives and not work.driver:
        return
    stopping = tuple(unit for unit in services.running(attempt.host) if work.reload or unit == services.FABRIC_MANAGER)
    attempt.step("StopServices", stopped=tuple(dict.fromkeys((*record.stopped, *stopping))))
    attempt.changed = True
    services.stop(attempt.host, stopping)
    if work.reload:
        loaded = modules.loaded(attempt.host)
        attempt.step("Unload", unloaded=tuple(dict.fromkeys((*record.unloaded, *loaded))))
        modules.unload(attempt.host)


def install(attempt: Attempt, change: Change) -> None:
    """Change the packages, and run the run file."""
    work = attempt.work
    if work.uninstall_run_file:
        attempt.step("UninstallRunFile", owned=True, run_file=None)
        attempt.committed = True
        begun = math.floor(time.time())
        done = base.run(attempt.host, runfile.uninstall())
        if not done.ok:
            raise runfile.failed(attempt.host, done.output, done.code, since=begun)
    if change:
        _transaction(attempt, change)
    if work.run_file:
        _run_file(attempt)
    attempt.committed = True


def _transaction(attempt: Attempt, change: Change) -> None:
    toolkit_too = any(is_toolkit_package(package.name) for package in change.install)
    driver_too = attempt.work.driver
    record = attempt.record
    attempt.step("Install", owned=record.owned or driver_too, toolkit=record.toolkit or toolkit_too)
    attempt.changed = attempt.committed = True
    for command in attempt.manager.install(change):
        attempt.must(command, "installing the packages")
    there = installed(attempt.host, attempt.goal.source.manager)
    wrong = [
        f"{package.name} is {there.installed.get(package.name, 'not there')}"
        for package in change.install
        if there.installed.get(package.name) != package.version or package.name in there.broken
    ]
    if wrong:
        raise DriverError(Reason.INSTALL_FAILED, f"after the installation {', '.join(wrong)}")


def _run_file(attempt: Attempt) -> None:
    source = attempt.goal.source
    if not isinstance(source, RunFileSource):
        return
    runfile.check(attempt.host, source)
    attempt.step("RunFile", owned=True, run_file=records.AT_WORK)
    attempt.changed = attempt.committed = True
    base.run(attempt.host, runfile.temporary_folder())
    begun = math.floor(time.time())
    done = base.run(attempt.host, runfile.install(source))
    if not done.ok:
        raise runfile.failed(attempt.host, done.output, done.code, since=begun)
    attempt.journal("RunFile", run_file=source.sha256)


def hold(attempt: Attempt) -> None:
    """Hold what is ours, in the versions that it has."""
    there = installed(attempt.host, attempt.goal.source.manager)
    wanted = _ours(attempt)
    names = tuple(package.name for package in wanted)
    loose = tuple(package for package in wanted if package.name not in there.held)
    if not loose and names == attempt.record.held:
        return
    attempt.step("Hold", held=names)
    if loose:
        attempt.changed = True
        _hold(attempt, loose)


def _hold(attempt: Attempt, packages: Sequence[Package]) -> None:
    """Hold packages. dpkg does not wait for another one, and for a lock of seconds no driver is taken down again."""
    deadline = time.monotonic() + _HOLD_SECONDS
    while True:
        try:
            attempt.must(attempt.manager.hold(packages), "holding the packages")
        except DriverError as error:
            if error.reason != Reason.PACKAGE_MANAGER_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE_SECONDS)
        else:
            return


def _ours(attempt: Attempt) -> tuple[Package, ...]:
    """Return the packages that we hold; what somebody else held before, in the same version, stays theirs."""
    goal, foreign = attempt.goal, set(attempt.seen.packages.held) - set(attempt.record.held)
    driver = goal.driver_packages(attempt.seen.facts.nvswitches) if attempt.record.owned else ()
    tools = goal.toolkit_packages() if attempt.record.toolkit else ()
    return tuple(package for package in (*driver, *tools) if package.name not in foreign)


def load(attempt: Attempt) -> None:
    """Load the modules, built for this kernel first where the packages are there and the module is not."""
    if not attempt.work.reload:
        return
    host = attempt.host
    if not modules.built(host, attempt.kernel) and host.has("dkms"):
        attempt.step("Build")
        host.run(["dkms", "autoinstall", "-k", attempt.kernel], seconds=_DKMS_SECONDS)
    attempt.step("Load")
    attempt.changed = True
    if modules.loaded(host):
        # Whoever asks for a GPU meanwhile, such as a monitor, makes nvidia-modprobe load what is there.
        services.stop(host, services.running(host))
        modules.unload(host)
    modules.load(host, attempt.kernel, attempt.record.unloaded)


def serve(attempt: Attempt) -> None:
    """Start the driver's services."""
    if attempt.work.reload:
        attempt.step("Persistenced")
        services.start_persistenced(attempt.host)
    # How many NVSwitches there are is surest once the driver is loaded; the packages went by the PCI bus.
    if attempt.work.fabric:
        attempt.step("FabricManager")
        attempt.changed = True
        services.start_fabric_manager(attempt.host)


def configure_runtime(attempt: Attempt) -> None:
    """Let containerd know the runtime `nvidia`, and restart it if that is news to it."""
    wanted = attempt.target.toolkit
    if not attempt.work.configure or wanted is None:
        return
    attempt.step("Toolkit")
    if toolkit.configure(attempt.host, wanted):
        attempt.changed = True
        attempt.step("Containerd")
        toolkit.restart(attempt.host, wanted)


def verify(attempt: Attempt) -> DriverError | None:
    """Look at the node again and return what is still wrong. An NVLink fabric may take a while to form."""
    attempt.step("Verify")
    deadline = time.monotonic() + _FABRIC_SECONDS
    while True:
        error = joined(findings(look_for(attempt.host, attempt.target), attempt.target))
        forming = error is not None and error.reason == Reason.FABRIC_NOT_READY
        if not forming or attempt.termination.asked or time.monotonic() > deadline:
            return error
        time.sleep(_PAUSE_SECONDS)
