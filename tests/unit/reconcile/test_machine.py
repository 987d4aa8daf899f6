"""Any story of a cluster: an operator that dies, lags behind and is refused, under a run that goes as runs go."""

from __future__ import annotations

import copy
from collections.abc import Coroutine
from contextlib import suppress
from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from mlperf_operator.cluster import ApiError
from unit.reconcile.nature import Nature
from unit.reconcile.world import CrashError, Operator, Trouble, new_world

ERRORS = (
    ApiError(409, "Conflict", "the object has been modified"),
    ApiError(410, "Expired", "too old resource version"),
    ApiError(429, "TooManyRequests", "later", 1.0),
    ApiError(500, "InternalError", "etcdserver: leader changed"),
    ApiError(0, "TimeoutError", "no answer"),
    CrashError(),
)
TROUBLES = st.lists(
    st.none() | st.builds(Trouble, st.sampled_from(ERRORS), st.booleans()),
    max_size=8,
)
REFUSALS = st.sampled_from((403, 422)).map(lambda code: Trouble(ApiError(code, "Refused", "exceeded quota: jobs")))
ENDS = ("Succeeded", "Finished", "ResultsValid", "AccuracyMet", "ExpectationsMet")
RARELY = st.sampled_from((False, False, False, True))
PAUSES = st.sampled_from((1, 4, 31, 65, 400)).map(lambda seconds: timedelta(seconds=seconds))


def at_once(work: Coroutine[Any, Any, timedelta | None]) -> timedelta | None:
    """Run a coroutine that never waits, as none does against a world in memory."""
    try:
        work.send(None)
    except StopIteration as end:
        found: timedelta | None = end.value
        return found
    raise AssertionError("it waits")


class Story(RuleBasedStateMachine):
    """The operator against the cluster, and what must hold whatever happens."""

    @initialize(backoff=st.sampled_from((0, 2)), lasting=st.booleans(), suspend=RARELY)
    def begin(self, *, backoff: int, lasting: bool, suspend: bool) -> None:
        results = {"results": {"claimName": "results"}} if lasting else {}
        self.world = new_world({"startTimeoutSeconds": 60, "backoffLimit": backoff, "suspend": suspend, **results})
        self.nature = Nature(self.world)
        self.operator = Operator(self.world)
        self.operator.look()
        self.before: dict[str, Any] = {}

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.world.run()["status"]
        return found

    def conditions(self) -> dict[str, dict[str, Any]]:
        return {c["type"]: c for c in self.status().get("conditions", ())}

    def finished(self) -> bool:
        return self.conditions().get("Finished", {}).get("status") == "True"

    def deleted(self) -> bool:
        return "deletionTimestamp" in self.world.run()["metadata"]

    # The operator

    @rule(troubles=TROUBLES)
    def reconcile(self, troubles: list[Trouble | None]) -> None:
        self.world.troubles = list(troubles)
        try:
            at_once(self.operator.reconcile(look=False))
        except ApiError:
            pass
        except CrashError:
            self.operator = Operator(self.world)
            self.operator.look()
        self.world.troubles = []

    @rule(refusal=REFUSALS, after=st.integers(0, 3))
    def reconcile_while_nothing_may_be_created(self, refusal: Trouble, after: int) -> None:
        self.world.troubles = [*[None] * after, refusal]
        if not self.finished() and self.nature.job() is None:
            self.nature.excuses |= {"QuotaExceeded"}
        with suppress(ApiError):
            at_once(self.operator.reconcile(look=False))
        self.world.troubles = []

    @rule(kind=st.sampled_from(("MLPerfRun", "Job", "Pod")))
    def one_informer_catches_up(self, kind: str) -> None:
        self.operator.look({kind})

    @rule()
    def a_standby_takes_over(self) -> None:
        self.operator = Operator(self.world)
        self.operator.look()

    @rule(pause=PAUSES)
    def time_passes(self, pause: timedelta) -> None:
        # An informer is seconds behind, not minutes: health ends a process whose streams are silent.
        self.operator.look()
        self.nature.pass_time(pause)

    @rule(times=st.integers(1, 4))
    def all_is_calm(self, times: int) -> None:
        for _ in range(times):
            self._calm_step()

    # The cluster

    @rule()
    def the_job_controller_looks(self) -> None:
        self.nature.sync_job()

    @rule(times=st.integers(1, 16))
    def containers_end_well(self, times: int) -> None:
        for _ in range(times):
            self.nature.next_container()

    @precondition(lambda self: self.nature.running())
    @rule(code=st.sampled_from((1, 64, 65, 137)))
    def a_container_ends_badly(self, code: int) -> None:
        self.nature.fail(code)
        self.operator.look({"Job"})  # its watch may well be faster than that of the pods
        try:
            at_once(self.operator.reconcile(look=False))
        except ApiError as error:
            # So may it be than that of the run, whose status is then refused and made anew the next time.
            if error.reason != "Conflict":
                raise

    @precondition(lambda self: self.nature.pod() is not None)
    @rule(pause=PAUSES)
    def the_node_is_drained(self, pause: timedelta) -> None:
        if self.nature.running():
            self.nature.pass_time(pause)
        self.nature.evict()
        at_once(self.operator.reconcile())

    @precondition(lambda self: self.nature.running())
    @rule()
    def collect_is_killed_and_the_job_completes(self) -> None:
        pod = self.nature.pod()
        if pod is not None:
            self.nature.complete(pod, report=False)

    @rule()
    def the_recovery_job_runs(self) -> None:
        self.nature.read_again()

    # Its users

    @rule(wanted=RARELY)
    def somebody_sets_suspend(self, wanted: bool) -> None:
        self.world.run()["spec"]["suspend"] = wanted
        self.world.put(self.world.run())

    @precondition(lambda self: self.nature.pod() is not None)
    @rule(sure=RARELY, pause=PAUSES)
    def somebody_deletes_the_pod(self, sure: bool, pause: timedelta) -> None:
        if sure and self.nature.running():
            at_once(self.operator.reconcile())
            self.nature.pass_time(pause)
        if sure:
            self.nature.lose_pod()
            self.operator.look()

    @precondition(lambda self: self.status().get("jobName") is not None)
    @rule(sure=RARELY)
    def somebody_deletes_the_job(self, sure: bool) -> None:
        # A Job that goes before any status told of it is made again; nobody can have relied on it.
        if sure:
            self.nature.delete_job()

    @precondition(lambda self: not self.deleted())
    @rule(sure=RARELY)
    def somebody_deletes_the_run(self, sure: bool) -> None:
        if sure:
            self.nature.delete_run()
            self.operator.look()

    @rule(pause=PAUSES)
    def somebody_suspends_for_a_while(self, pause: timedelta) -> None:
        for wanted in (True, False):
            self.world.run()["spec"]["suspend"] = wanted
            self.world.put(self.world.run())
            at_once(self.operator.reconcile())
            self.conditions_move_as_they_may()
            if wanted:
                self.nature.sync_job()
                self.nature.pass_time(pause)
        self.operator.look()

    # What must hold

    @invariant()
    def no_run_gets_a_second_job(self) -> None:
        assert self.world.created.count("Job demo") <= 1
        assert self.world.created.count("Job demo-collect") <= 1

    @invariant()
    def nothing_is_made_for_a_run_that_is_deleted(self) -> None:
        assert not (self.deleted() and self.nature.job())

    @invariant()
    def success_has_a_report(self) -> None:
        if self.conditions().get("Succeeded", {}).get("status") == "True":
            assert self.nature.reported
            assert self.status()["results"]

    @invariant()
    def no_run_fails_without_an_excuse(self) -> None:
        succeeded = self.conditions().get("Succeeded", {})
        if succeeded.get("status") == "False":
            assert succeeded["reason"] in self.nature.excuses, succeeded

    @invariant()
    def conditions_move_as_they_may(self) -> None:
        """An end is never taken back, and a transition time moves with its status only."""
        before, now = self.before, self.conditions()
        if before.get("Finished", {}).get("status") == "True":
            assert {kind: before[kind] for kind in ENDS} == {kind: now[kind] for kind in ENDS}
        for kind, condition in now.items():
            stored = before.get(kind)
            if stored is not None and stored["status"] == condition["status"]:
                assert stored["lastTransitionTime"] == condition["lastTransitionTime"], kind
        self.before = copy.deepcopy(now)

    def teardown(self) -> None:
        """Let the faults stop: the run comes to an end, and then nothing is written any more."""
        if not hasattr(self, "world") or self.deleted():
            return
        self.world.run()["spec"]["suspend"] = False
        self.world.put(self.world.run())
        for _ in range(60):
            if self.finished():
                break
            self._calm_step()
        assert self.finished(), self.conditions()
        self._calm_step()
        self.no_run_gets_a_second_job()
        self.world.writes.clear()
        for _ in range(2):
            self._calm_step()
            self.operator = Operator(self.world)
        assert self.world.writes == []

    def _calm_step(self) -> None:
        at_once(self.operator.reconcile())
        self.conditions_move_as_they_may()
        self.nature.sync_job()
        for _ in range(3):
            self.nature.next_container()
        self.nature.pass_time(timedelta(seconds=20))


def test_every_story_ends_well() -> None:
    profile = settings(
        max_examples=200,
        stateful_step_count=30,
        phases=[Phase.generate],  # shrinking a story takes minutes
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Story, settings=profile)
