"""Puts the former driver back where a change failed after the running driver was touched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mlperf_operator.agent.driver import modules, services
from mlperf_operator.agent.driver import record as records
from mlperf_operator.agent.driver.attempt import Attempt, installed
from mlperf_operator.agent.driver.errors import DriverError
from mlperf_operator.agent.driver.parse import is_driver_package
from mlperf_operator.agent.driver.record import Record
from mlperf_operator.agent.driver.sources import base, runfile
from mlperf_operator.agent.driver.sources.base import Change
from mlperf_operator.catalogue import RunFileSource
from mlperf_operator.driver_report import Reason

NOT_BY_THE_DRIVER = frozenset(
    {
        *(Reason.TOOLKIT_FAILED, Reason.TOOLKIT_MISSING),
        *(Reason.GPU_MISSING, Reason.FABRIC_NOT_READY),
    }
)
"""Failures that another driver would not mend: the next attempt goes on, or a person is needed."""


def undo(attempt: Attempt, error: DriverError) -> DriverError:
    """Put the former driver back, if there was one, and return the error with what came of that.

    Without a former driver nothing is put back: the next attempt goes on from what is there.
    """
    record = attempt.record
    if error.reason in NOT_BY_THE_DRIVER or not (record.previous or record.unloaded or record.stopped):
        return error
    if error.reason == Reason.INTERRUPTED and attempt.seen.resumed:
        # An earlier attempt left packages between two versions: both ways are long.
        return error
    try:
        outcome = _put_back(attempt)
    except (DriverError, OSError) as second:
        outcome = f"putting the former driver back failed too: {second}"
    return DriverError(error.reason, f"{error.detail}; {outcome}", users=error.users)


def _put_back(attempt: Attempt) -> str:
    record, host = attempt.record, attempt.host
    attempt.journal("Undo")
    there = installed(host, attempt.goal.source.manager)
    change = _way_back(record.previous, there.installed, there.broken) if record.previous else Change()
    if change or _ran_run_file(attempt):
        running = services.running(host)
        record = _noted(attempt, running)
        services.stop(host, running)
        modules.unload(host)
        _packages_back(attempt, change)
    _hold_again(attempt)
    if record.unloaded:
        modules.load(host, attempt.kernel, record.unloaded)
    if services.PERSISTENCED in record.stopped:
        services.start_persistenced(host)
    if services.FABRIC_MANAGER in record.stopped:
        services.start_fabric_manager(host)
    attempt.record = attempt.record.undone()
    records.write(host, attempt.record)
    return "the former driver is back" if change else "the driver that was there runs again"


def _noted(attempt: Attempt, running: Sequence[str]) -> Record:
    """Journal what is taken down only now: a change of the fabric manager alone had left modules and services."""
    record, loaded = attempt.record, modules.loaded(attempt.host)
    stopped = tuple(dict.fromkeys((*record.stopped, *running)))
    attempt.journal("Undo", stopped=stopped, unloaded=tuple(dict.fromkeys((*record.unloaded, *loaded))))
    return attempt.record


def _ran_run_file(attempt: Attempt) -> bool:
    """Say whether the driver that is there came of this change: an older run file's is the one to go back to."""
    source = attempt.goal.source
    ours = isinstance(source, RunFileSource) and attempt.record.run_file in (records.AT_WORK, source.sha256)
    return attempt.work.run_file and ours and attempt.host.exists(runfile.UNINSTALLER)


def _packages_back(attempt: Attempt, change: Change) -> None:
    if _ran_run_file(attempt):
        base.run(attempt.host, runfile.uninstall())
        attempt.journal("Undo", run_file=None)
    if not change:
        return
    # Whatever the failed transaction left: dpkg begins no other one before.
    base.run(attempt.host, attempt.manager.repair()[0])
    held = [name for name in installed(attempt.host, attempt.goal.source.manager).held if name in attempt.record.held]
    if held:
        attempt.must(attempt.manager.unhold(held), "releasing our holds")
    for command in attempt.manager.install(change):
        attempt.must(command, "putting the former packages back")


def _hold_again(attempt: Attempt) -> None:
    there = installed(attempt.host, attempt.goal.source.manager)
    names = [name for name in attempt.record.held_before if name in there.installed and name not in there.held]
    if names:
        held = [base.present(name, there.installed[name]) for name in names]
        attempt.must(attempt.manager.hold(held), "holding the former packages again")


def _way_back(previous: Mapping[str, str], there: Mapping[str, str], broken: tuple[str, ...]) -> Change:
    """Return the transaction from what is there to what was there."""
    exact = tuple(
        base.present(name, version)
        for name, version in previous.items()
        if there.get(name) != version or name in broken
    )
    gone = tuple(name for name in there if is_driver_package(name) and name not in previous)
    return Change(exact, gone, again=any(package.name in broken for package in exact))
