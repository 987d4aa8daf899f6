"""Makes the host match what is wanted: looks, refuses, prepares, changes, verifies, and undoes where that fails."""

from __future__ import annotations

import errno

from mlperf_operator.agent.driver import apply, modules, prechecks, toolkit
from mlperf_operator.agent.driver import record as records
from mlperf_operator.agent.driver.attempt import Attempt, Termination, begun, installed
from mlperf_operator.agent.driver.errors import DriverError
from mlperf_operator.agent.driver.facts import Facts
from mlperf_operator.agent.driver.host import Host
from mlperf_operator.agent.driver.judge import findings
from mlperf_operator.agent.driver.look import look_for
from mlperf_operator.agent.driver.prepare import prepare
from mlperf_operator.agent.driver.report import build, joined
from mlperf_operator.agent.driver.sources import base, runfile
from mlperf_operator.agent.driver.undo import NOT_BY_THE_DRIVER, undo
from mlperf_operator.agent.driver.work import Seen, Wanted, wanted, work
from mlperf_operator.catalogue import RunFileSource, Target
from mlperf_operator.driver_report import NodeReport, Reason


def ensure(host: Host, target: Target) -> NodeReport:
    """Make the host match, as far as the mode permits, and return what it has then.

    Each attempt begins by looking, so one that was ended anywhere is simply followed by another. A host that matches
    is not changed, and nothing is asked of the network.
    """
    if target.mode == "Verify" or target.driver is None:
        facts = look_for(host, target)
        return _report(host, target, facts, joined(findings(facts, target)))
    termination = Termination()
    try:
        with records.locked(host), termination.heeded():
            return _ensure(host, target, termination)
    except DriverError as error:
        return _report(host, target, look_for(host, target), error)


def _ensure(host: Host, target: Target, termination: Termination) -> NodeReport:
    facts = look_for(host, target)
    if not facts.gpus:
        raise DriverError(Reason.NO_GPU, "there is no NVIDIA GPU on the PCI bus")
    goal = wanted(target, facts)
    seen = _see(host, target, facts, goal)
    todo = work(seen, goal)
    record = begun(seen, goal, target)
    if not todo:
        _settle(host, seen, record)
        return _report(host, target, facts, joined(seen.findings))
    refused = joined(prechecks.refusals(prechecks.Case(seen, goal, todo, target.mode)))
    if refused is not None:
        raise refused
    attempt = Attempt(host, target, goal, seen, todo, record, termination)
    error = _make(attempt)
    return _report(host, target, look_for(host, target), error, changed=attempt.changed)


def _see(host: Host, target: Target, facts: Facts, goal: Wanted) -> Seen:
    return Seen(
        facts=facts,
        packages=installed(host, goal.source.manager),
        record=records.read(host),
        findings=tuple(findings(facts, target)),
        uninstaller=host.exists(runfile.UNINSTALLER),
        containerd_pending=host.exists(toolkit.BACKUP),
        built=modules.built(host, facts.kernel),
        free={folder: host.free_bytes(folder) for folder in prechecks.FOLDERS},
    )


def _settle(host: Host, seen: Seen, record: records.Record) -> None:
    """Write down that everything is there, where an attempt was ended just before it could, or the digest is new."""
    old = seen.record
    if old is not None and (old.owned or old.toolkit) and (old.state, old.digest) != ("Complete", record.digest):
        records.write(host, record.complete())


def _make(attempt: Attempt) -> DriverError | None:
    """Bring about what is missing; return what is wrong at the end."""
    try:
        try:
            change = prepare(attempt)
        except OSError as error:
            raise _host_failed(error) from error
    except DriverError as error:
        return _unprepared(attempt, error)
    try:
        try:
            return _change(attempt, change)
        except OSError as error:
            raise _host_failed(error) from error
    except DriverError as error:
        attempt.host.say(str(error))
        return undo(attempt, error)


def _unprepared(attempt: Attempt, error: DriverError) -> DriverError:
    """Leave the node untouched, or where an earlier attempt had begun to change it, with its former driver."""
    attempt.host.say(str(error))
    before = attempt.seen.record
    if before is not None and before.state == "Changing" and (before.unloaded or before.stopped or before.previous):
        return undo(attempt, error)
    records.write(attempt.host, before)
    return error


def _change(attempt: Attempt, change: base.Change) -> DriverError | None:
    apply.release(attempt)
    apply.install(attempt, change)
    apply.hold(attempt)
    apply.load(attempt)
    apply.serve(attempt)
    apply.configure_runtime(attempt)
    error = apply.verify(attempt)
    if error is not None and error.reason not in NOT_BY_THE_DRIVER:
        raise error
    attempt.record = attempt.record.complete()
    records.write(attempt.host, attempt.record)
    _clean(attempt, change)
    return error


def _clean(attempt: Attempt, change: base.Change) -> None:
    """Give back the space of what was downloaded."""
    if change:
        base.run(attempt.host, attempt.manager.clean())
    source = attempt.goal.source
    if attempt.work.run_file and isinstance(source, RunFileSource):
        runfile.clean(attempt.host, source)


def _host_failed(error: OSError) -> DriverError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return DriverError(Reason.DISK_FULL if full else Reason.INSTALL_FAILED, f"the host's files: {error}")


def _report(
    host: Host, target: Target, facts: Facts, error: DriverError | None, *, changed: bool = False
) -> NodeReport:
    return build(facts, target, error, changed=changed, managed_by=records.managed_by(host, facts))
