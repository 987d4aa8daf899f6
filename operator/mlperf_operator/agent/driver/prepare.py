"""Everything that can be found out, and downloaded, before the running driver is touched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from mlperf_operator.agent.driver import record as records
from mlperf_operator.agent.driver.attempt import Attempt, installed
from mlperf_operator.agent.driver.errors import DriverError
from mlperf_operator.agent.driver.parse import is_driver_package, is_toolkit_package
from mlperf_operator.agent.driver.sources import base, failures, runfile
from mlperf_operator.agent.driver.sources.base import ARCHIVES, STATE, Change, Command
from mlperf_operator.agent.driver.users import gpu_users
from mlperf_operator.catalogue import Repository, RunFileSource
from mlperf_operator.driver_report import Reason


def prepare(attempt: Attempt) -> Change:
    """Configure and ask the repositories, and download; return the packages' transaction.

    Raises:
        DriverError: it cannot be done; the host is as it was.
    """
    if not attempt.work.change and attempt.work.repair:
        _repair(attempt)
    written: dict[str, str | None] = {}
    try:
        change = _packages(attempt, written) if attempt.work.change else Change()
        if attempt.work.run_file and isinstance(attempt.goal.source, RunFileSource):
            attempt.step("Fetch")
            runfile.fetch(attempt.host, attempt.goal.source)
        _still_idle(attempt)
    except (DriverError, OSError):
        _as_before(attempt, written)
        raise
    return change


def _still_idle(attempt: Attempt) -> None:
    """Look again who uses a GPU: downloads take minutes, and without its fabric manager a process computes no more."""
    using = gpu_users(attempt.host) if attempt.work.drives or attempt.work.driver else ()
    if using:
        names = ", ".join(f"{user.command} ({user.pid})" for user in using[:6])
        raise DriverError(Reason.GPU_IN_USE, f"processes began to use the GPUs meanwhile: {names}", users=using)


def _packages(attempt: Attempt, written: dict[str, str | None]) -> Change:
    attempt.step("Configure")
    _configure(attempt, written)
    attempt.step("Refresh")
    for command in attempt.manager.refresh(_repositories(attempt)):
        done = base.run(attempt.host, command)
        if attempt.manager.stale(done):
            raise base.failed(done, "reading the repository", Reason.REPOSITORY_UNREACHABLE)
    if attempt.work.repair:
        _repair(attempt)
    if not attempt.manager.plans_with_holds:
        _unhold(attempt)
    attempt.step("Simulate")
    change = _possible(attempt)
    attempt.step("Download")
    # apt makes the folder for its archives only where it lies in apt's own.
    base.run(attempt.host, Command(("mkdir", "-p", f"{ARCHIVES}/partial")))
    attempt.must(attempt.manager.download(change), "downloading the packages")
    _keep(attempt)
    if attempt.manager.plans_with_holds:
        _unhold(attempt)
    return change


def _repositories(attempt: Attempt) -> tuple[Repository, ...]:
    return base.distinct(attempt.goal.repositories())


def _configure(attempt: Attempt, written: dict[str, str | None]) -> None:
    host, manager = attempt.host, attempt.manager
    pins = (*attempt.goal.driver_packages(attempt.seen.facts.nvswitches), *attempt.goal.toolkit_packages())
    for path, text in manager.files(_repositories(attempt), pins, _host_sources(attempt)).items():
        before = host.read(path)
        if before == text:
            continue
        written[path] = before
        try:
            host.write(path, text, _mode(path))
        except OSError as error:
            raise records.unwritable(path, error) from error


def _mode(path: str) -> int:
    """Return a file's mode. Copies of what only root may read, such as a mirror's line with a password, stay so."""
    return 0o600 if path.startswith(f"{STATE}/") else 0o644


def _host_sources(attempt: Attempt) -> Mapping[str, str]:
    host, texts = attempt.host, {}
    for place in attempt.manager.source_folders():
        names = host.names(place)
        for path in [f"{place}/{name}" for name in names] or [place]:
            if (text := host.read(path)) is not None:
                texts[path] = text
    return texts


def _repair(attempt: Attempt) -> None:
    """Finish what an earlier attempt of ours left half done. Where that fails, the transaction itself may mend it."""
    attempt.step("Repair")
    attempt.changed = True
    for command in attempt.manager.repair():
        done = base.run(attempt.host, command)
        if not attempt.manager.succeeded(done):
            attempt.host.say(f"not repaired by {command.argv[0]}: {failures.words(done.output)}")


def _unhold(attempt: Attempt) -> None:
    ours = _held_by_us(attempt)
    attempt.step("Unhold", held_before=attempt.record.held_before or ours)
    if ours:
        attempt.must(attempt.manager.unhold(ours), "releasing our holds")


def _held_by_us(attempt: Attempt) -> tuple[str, ...]:
    return tuple(name for name in attempt.seen.packages.held if name in attempt.record.held)


def _possible(attempt: Attempt) -> Change:
    """Return the change as it can be done: with the removals if that goes, else with those alone that must be.

    Raises:
        DriverError: it cannot be done, or would take away what is no driver, or change what somebody else holds.
    """
    found = _simulated(attempt)
    if isinstance(found, DriverError) and found.reason == Reason.PACKAGE_MANAGER_BROKEN:
        # Dependencies of the host's own repositories, whose lists may be missing or old.
        attempt.host.say("dependencies are missing from the host's lists: all are read again")
        for command in attempt.manager.refresh_all():
            base.run(attempt.host, command)
        found = _simulated(attempt)
    if isinstance(found, DriverError):
        if found.reason == Reason.PACKAGE_MANAGER_BROKEN and not attempt.seen.packages.broken:
            raise DriverError(Reason.PACKAGES_NOT_FOUND, found.detail)
        raise found
    return found


def _simulated(attempt: Attempt) -> Change | DriverError:
    whole = attempt.work.change
    # A package of the wanted driver may depend on one of those that we would rather see gone.
    choices = [whole] if not (whole.install and whole.remove) else [whole, replace(whole, remove=())]
    errors = []
    for change in choices:
        done = [base.run(attempt.host, command) for command in attempt.manager.simulate(change)]
        unplanned = next((one for one in done if not attempt.manager.succeeded(one)), None)
        if unplanned is not None:
            errors.append(base.failed(unplanned, "planning the change of packages"))
            continue
        planned = _joined([attempt.manager.planned(one.output) for one in done])
        wanted = sorted(_wanted(attempt) & set(planned.removes))
        if not wanted:
            _permitted(attempt, planned)
            return change
        # What is wanted and there already is no part of the change, so the package manager is free to take it away.
        text = f"this change of packages would remove {', '.join(wanted[:6])}, which shall be there"
        errors.append(DriverError(Reason.PACKAGES_NOT_FOUND, text))
    return errors[-1]


def _joined(plans: Sequence[base.Planned]) -> base.Planned:
    installs = {name: version for plan in plans for name, version in plan.installs.items()}
    removes = tuple(dict.fromkeys(name for plan in plans for name in plan.removes))
    return base.Planned(installs, removes, tuple(name for plan in plans for name in plan.held))


def _wanted(attempt: Attempt) -> set[str]:
    nvswitches = attempt.seen.facts.nvswitches
    return {package.name for package in (*attempt.goal.driver_packages(nvswitches), *attempt.goal.toolkit_packages())}


def _permitted(attempt: Attempt, planned: base.Planned) -> None:
    strange = [name for name in planned.removes if not is_driver_package(name) and not is_toolkit_package(name)]
    if strange:
        raise DriverError(
            Reason.PACKAGES_NOT_FOUND, f"installing these versions would remove {', '.join(strange[:6])}, too"
        )
    ours = set(attempt.record.held)
    changing = {*planned.installs, *planned.removes}
    held = [name for name in {*planned.held, *(changing & set(attempt.seen.packages.held))} if name not in ours]
    if held:
        raise DriverError(Reason.PACKAGE_HELD, f"on hold, and not by us: {', '.join(sorted(held)[:6])}")


def _keep(attempt: Attempt) -> None:
    """Download the packages that are there, to put them back should the change fail. They may no longer be had."""
    record = attempt.record
    there = {name: version for name, version in attempt.seen.packages.installed.items() if is_driver_package(name)}
    resumed = attempt.seen.resumed
    previous = record.previous if resumed else (there if attempt.work.driver else {})
    attempt.step("Keep", previous=previous)
    if not previous or resumed:
        return
    keep = attempt.manager.keep([base.present(name, version) for name, version in previous.items()])
    done = base.run(attempt.host, keep)
    if not attempt.manager.succeeded(done):
        attempt.host.say(f"the present packages cannot be downloaded again: {failures.words(done.output)}")


def _as_before(attempt: Attempt, written: Mapping[str, str | None]) -> None:
    """Take back what was prepared: our files, and the holds that were released."""
    for path, text in written.items():
        if text is None:
            attempt.host.remove(path)
        else:
            attempt.host.write(path, text, _mode(path))
    now = installed(attempt.host, attempt.goal.source.manager)
    released = [name for name in _held_by_us(attempt) if name in now.installed and name not in now.held]
    if released:
        held = [base.present(name, now.installed[name]) for name in released]
        base.run(attempt.host, attempt.manager.hold(held))
