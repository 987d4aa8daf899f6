"""What forbids a change is known before anything is touched; what does not concern it does not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mlperf_operator.agent.driver.errors import DriverError
from mlperf_operator.agent.driver.facts import Packages
from mlperf_operator.agent.driver.prechecks import FOLDERS, Case, refusals
from mlperf_operator.agent.driver.record import Record
from mlperf_operator.agent.driver.work import Seen, Work, wanted, work
from mlperf_operator.catalogue import Mode, PackageSource
from mlperf_operator.driver_report import GpuUser, Reason
from unit.agent.driver.facts_of import facts_of, target_of

NEW, OLD = "550.54.14", "535.161.08"
OLD_PACKAGES = Packages({"nvidia-driver-535-server": f"{OLD}-1"})
OURS = Record(
    state="Complete", digest="d", version=OLD, source="Packages", owned=True, held=("nvidia-driver-535-server",)
)


def case(
    mode: Mode = "Install", *, record: Record | None = OURS, packages: Packages = OLD_PACKAGES, **facts: Any
) -> Case:
    """An upgrade of a driver of ours."""
    target = target_of(mode, NEW)
    seen_facts = facts_of(**{"loaded": OLD, "nvswitches": 0, **facts})
    goal = wanted(target, seen_facts)
    mismatch = DriverError(Reason.DRIVER_MISMATCH, f"the loaded driver is {seen_facts.loaded}")
    free = dict.fromkeys(FOLDERS, 1 << 40)
    seen = Seen(facts=seen_facts, packages=packages, record=record, findings=(mismatch,), free=free)
    return Case(seen, goal, work(seen, goal), mode)


def reasons(judged: Case) -> list[Reason]:
    return [error.reason for error in refusals(judged)]


def test_an_upgrade_of_our_own_driver_is_permitted() -> None:
    assert reasons(case()) == []


def test_a_driver_of_somebody_else_is_refused_and_named_unless_it_may_be_adopted() -> None:
    [error] = refusals(case(record=None))
    assert error.reason == Reason.DRIVER_PRESENT
    assert "nvidia-driver-535-server 535.161.08-1, loaded module 535.161.08" in error.detail
    assert reasons(case("Adopt", record=None)) == []


def test_a_driver_that_we_only_began_to_prepare_for_is_somebody_elses() -> None:
    begun = Record(state="Changing", step="Download", digest="d", version=NEW, source="Packages")
    assert reasons(case(record=begun)) == [Reason.DRIVER_PRESENT]


def test_a_driver_container_at_work_is_refused() -> None:
    assert reasons(case(foreign_lock=True)) == [Reason.NODE_LOCKED]


def test_nouveau_is_refused() -> None:
    assert reasons(case(nouveau=True)) == [Reason.NOUVEAU_LOADED]


@pytest.mark.parametrize(("signed", "expected"), [(False, [Reason.SECURE_BOOT]), (True, [])])
def test_secure_boot_wants_a_signed_module(signed: bool, expected: list[Reason]) -> None:
    secure = case(secure_boot=True)
    assert isinstance(secure.goal.source, PackageSource)
    source = secure.goal.source.model_copy(update={"signed_module": signed})
    assert reasons(replace(secure, goal=replace(secure.goal, source=source))) == expected


@pytest.mark.parametrize(("builds", "expected"), [(True, [Reason.HEADERS_MISSING]), (False, [])])
def test_a_module_that_is_built_wants_headers(builds: bool, expected: list[Reason]) -> None:
    bare = case(headers=False)
    source = bare.goal.source.model_copy(update={"builds_module": builds})
    assert reasons(replace(bare, goal=replace(bare.goal, source=source))) == expected


def test_a_module_that_a_new_kernel_lacks_wants_headers_and_one_that_is_there_does_not() -> None:
    exact = Packages({"nvidia-driver-550-server": f"{NEW}-1"}, held=("nvidia-driver-550-server",))
    rebooted = case(packages=exact, loaded=None, headers=False)
    assert rebooted.work == Work(reload=True)
    assert reasons(rebooted) == [Reason.HEADERS_MISSING]
    assert reasons(replace(rebooted, seen=replace(rebooted.seen, built=True))) == []


def test_too_little_space_is_refused_and_the_folder_named() -> None:
    full = case()
    [error] = refusals(replace(full, seen=replace(full.seen, free={"/usr": 1 << 40, "/var": 1 << 30})))
    assert error.reason == Reason.DISK_FULL
    assert error.detail == "/var has 1.0 GiB free; 3.0 GiB are needed"


def test_a_half_configured_package_is_refused_and_named_unless_our_own_attempt_left_it() -> None:
    broken = replace(OLD_PACKAGES, broken=("postfix",))
    [error] = refusals(case(packages=broken))
    assert error.reason == Reason.PACKAGE_MANAGER_BROKEN
    assert "postfix" in error.detail
    resumed = OURS.during("Install")
    assert reasons(case(packages=broken, record=resumed)) == []


def test_a_hold_of_somebody_else_is_refused_and_named_and_ours_is_not() -> None:
    held = replace(OLD_PACKAGES, held=("nvidia-driver-535-server",))
    assert reasons(case(packages=held)) == []
    [error] = refusals(case(packages=held, record=OURS.model_copy(update={"held": ()})))
    assert error.reason == Reason.PACKAGE_HELD
    assert "nvidia-driver-535-server" in error.detail


def test_users_of_a_gpu_are_refused_and_named() -> None:
    user = GpuUser(pid=7, command="python3", pod_uid="uid")
    [error] = refusals(case(users=(user,)))
    assert error.reason == Reason.GPU_IN_USE
    assert "python3 (7)" in error.detail
    assert error.users == (user,)


def test_users_of_a_gpu_do_not_mind_the_toolkit() -> None:
    busy = case(users=(GpuUser(pid=7, command="python3"),), secure_boot=True, nouveau=True)
    assert reasons(replace(busy, work=Work(configure=True))) == []


def test_everything_that_forbids_it_is_told_the_most_fundamental_first() -> None:
    bad = case(record=None, headers=False, users=(GpuUser(pid=7, command="python3"),), foreign_lock=True)
    assert reasons(bad) == [Reason.NODE_LOCKED, Reason.DRIVER_PRESENT, Reason.HEADERS_MISSING, Reason.GPU_IN_USE]
