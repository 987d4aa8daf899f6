"""Any story of drivers on nodes: runs, administrators, other users, and an operator that dies, lags and is refused."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from mlperf_operator import naming
from mlperf_operator.api.v1alpha1 import MLPerfRun
from mlperf_operator.cluster import ApiError
from mlperf_operator.nodes.records import OPT_IN
from mlperf_operator.observed import Blocked
from unit.nodes.api import Api, Body, Operator, at_once, new_node, new_run
from unit.nodes.builders import NEW, OLD, SETTINGS
from unit.nodes.nature import Nature, claim_of
from unit.reconcile.test_machine import ERRORS
from unit.reconcile.world import CrashError, Trouble

NODES = ("node-1", "node-2")
RUNS = ("a", "b", "c")
TROUBLES = st.lists(st.none() | st.builds(Trouble, st.sampled_from(ERRORS), st.booleans()), max_size=5)
VERSIONS = {"550": NEW, "535": OLD}
DEPLOY = "nvidia.com/gpu.deploy.driver"


class Story(RuleBasedStateMachine):
    """Nodes, runs and driver pods, and what must hold whatever happens."""

    @initialize(two=st.booleans(), installed=st.sampled_from((None, OLD)), evict=st.booleans(), plugin=st.booleans())
    def begin(self, *, two: bool, installed: str | None, evict: bool, plugin: bool) -> None:
        self.api = Api()
        self.nature = Nature(self.api)
        self.nature.own_plugin = plugin
        self.settings = SETTINGS.model_copy(update={"evict_gpu_pods": evict})
        self.nodes = NODES if two else NODES[:1]
        self.claimed: dict[str, set[str]] = {}
        """By run: the nodes that were ever claimed for it."""
        self.suspended: set[str] = set()
        """Runs that ever were."""
        self.closed_by_others: set[str] = set()
        for name in self.nodes:
            new_node(self.api, name)
            if installed:
                self.nature.hosts[name] = installed
        self.nature.sync_device_plugin()
        self.api.on_patch = self.look_at_patch
        self.operator = Operator(self.api, self.settings)

    # What is checked with each write

    def look_at_patch(self, before: Body, after: Body) -> None:
        name, claim = after["metadata"]["name"], claim_of(after)
        for uid in claim.runs.keys() - claim_of(before).runs.keys():
            self.claimed.setdefault(uid, set()).add(name)
        lost = claim_of(before).runs.keys() - claim.runs.keys()
        assert not lost & (self.nature.living() - self.suspended), "a run that goes on loses its node"
        self._look_at_wanted(name, before, after)
        if before["spec"].get("unschedulable") and not after["spec"].get("unschedulable"):
            assert name not in self.closed_by_others, f"somebody else's cordon of {name} is taken back"

    def _look_at_wanted(self, name: str, before: Body, after: Body) -> None:
        labels, claim = after["metadata"]["labels"], claim_of(after)
        wanted, had = (
            labels.get(naming.DRIVER_WANTED_LABEL),
            before["metadata"]["labels"].get(naming.DRIVER_WANTED_LABEL),
        )
        if wanted is None or wanted == had:
            return
        assert had is None, f"{name} goes from {had} to {wanted} at once"
        assert labels.get(naming.DRIVER_OPT_IN_LABEL) in ("install", "adopt")
        assert DEPLOY not in labels
        if claim.runs.keys() & self.nature.living():
            assert claim.version == wanted
        elif not claim.runs and wanted == self.nature.hosts.get(name):
            return  # A change failed and is over: the driver that is there is watched again.
        # Cordoned first, then looked at, then labelled.
        assert before["spec"].get("unschedulable"), f"{name} is changed while it is open"
        assert not self.nature.gpu_pods(name), f"{name} is changed under {self.nature.gpu_pods(name)}"

    # The operator

    def _guarded(self, troubles: list[Trouble | None], name: str | None, run: str | None) -> None:
        self.api.troubles = list(troubles)
        try:
            if name is not None:
                at_once(self.operator.reconcile(name, look=False))
            if run is not None:
                self._ask(run)
        except ApiError:
            pass
        except CrashError:
            self.operator = Operator(self.api, self.settings)
        self.api.troubles = []

    def _ask(self, run: str) -> None:
        record = self.operator.runs.get(f"bench/{run}")
        if record is None or not record.body["status"].keys() <= {"node"}:
            return
        answer = at_once(self.operator.driver_for(f"bench/{run}", look=False))
        stored = self.api.objects["MLPerfRun", "bench", run]
        self._keep_node(record.body, stored)
        if answer is None:
            assert not [name for name in self.nodes if f"uid-{run}" in claim_of(self.api.node(name)).runs]
        if (
            not isinstance(answer, Blocked)
            and not stored["spec"].get("suspend")
            and stored["status"].keys() <= {"node"}
        ):
            self.nature.start_job(run, answer)

    def _keep_node(self, seen: Mapping[str, Any], stored: Body) -> None:
        """Write the node that a run claimed into its status, as its own reconciliation does."""
        shown = self.operator.keeper.view(MLPerfRun.model_validate(seen), seen["status"].get("node"))
        if shown is not None and shown.claimed and not stored["status"]:
            stored["status"]["node"] = shown.node
            self.api.put(stored)

    @rule(name=st.sampled_from(NODES), troubles=TROUBLES)
    def a_node_is_reconciled(self, name: str, troubles: list[Trouble | None]) -> None:
        self._guarded(troubles, name, None)

    @rule(name=st.sampled_from(NODES), moment=st.integers(0, 3))
    def a_node_is_reconciled_while_pods_come(self, name: str, moment: int) -> None:
        def come() -> None:
            self.nature.schedule()
            if name in self.nodes:
                self.nature.somebody_trains(name)

        self.api.meanwhile = [*[lambda: None] * moment, come]
        self._guarded([], name, None)
        self.api.meanwhile = []

    @rule(run=st.sampled_from(RUNS), troubles=TROUBLES)
    def a_run_is_reconciled(self, run: str, troubles: list[Trouble | None]) -> None:
        self._guarded(troubles, None, run)

    @rule()
    def the_daemon_sets_are_swept(self) -> None:
        with suppress(ApiError):
            at_once(self.operator.reconcile("", look=False))

    @rule(kind=st.sampled_from(("Node", "MLPerfRun", "Pod")))
    def one_informer_catches_up(self, kind: str) -> None:
        self.operator.look(kind)

    @rule()
    def a_standby_takes_over(self) -> None:
        self.operator = Operator(self.api, self.settings)

    @rule(times=st.integers(1, 4))
    def all_is_calm(self, times: int) -> None:
        for _ in range(times):
            self._calm_step()

    # The cluster

    @rule()
    def the_daemon_set_controller_looks(self) -> None:
        self.nature.sync_daemon_sets()

    @rule()
    def driver_pods_move_on(self) -> None:
        self.nature.step_driver_pods()

    @rule()
    def the_device_plugin_looks(self) -> None:
        self.nature.sync_device_plugin()

    @rule()
    def the_scheduler_looks(self) -> None:
        self.nature.schedule()

    @rule(seconds=st.sampled_from((1, 25, 700)))
    def time_passes(self, seconds: int) -> None:
        self.api.now += timedelta(seconds=seconds)

    @rule(name=st.sampled_from(NODES))
    def a_driver_breaks_or_can_be_installed_again(self, name: str) -> None:
        self.nature.broken ^= {name}

    @rule(name=st.sampled_from(NODES))
    def driver_pods_cannot_start_or_can_again(self, name: str) -> None:
        self.nature.stuck ^= {name}

    @rule(name=st.sampled_from(NODES), leaves=st.sampled_from(("as it was", "without a driver", "changed")))
    def driver_pods_are_killed(self, name: str, leaves: str) -> None:
        self.nature.kill_driver_pods(name, leaves)

    @rule(name=st.sampled_from(NODES), ready=st.sampled_from(("True", "True", "Unknown")))
    def a_kubelet_falls_silent_or_speaks(self, name: str, ready: str) -> None:
        if name in self.nodes:
            self.api.node(name)["status"]["conditions"] = [{"type": "Ready", "status": ready}]
            self.api.put(self.api.node(name))

    # Users

    @rule(
        run=st.sampled_from(RUNS), version=st.sampled_from(("550", "535")), policy=st.sampled_from(("Ensure", "Auto"))
    )
    def somebody_creates_a_run(self, run: str, version: str, policy: str) -> None:
        if ("MLPerfRun", "bench", run) not in self.api.objects:
            new_run(self.api, run, version, driver={"policy": policy})

    @rule(run=st.sampled_from(RUNS))
    def a_run_ends(self, run: str) -> None:
        if ("MLPerfRun", "bench", run) in self.api.objects:
            self.nature.end_run(run)

    @rule(run=st.sampled_from(RUNS), wanted=st.booleans())
    def somebody_sets_suspend(self, run: str, wanted: bool) -> None:
        body = self.api.objects.get(("MLPerfRun", "bench", run))
        if body is not None and "jobName" not in body["status"]:
            # It gives its node back; until its status names that, it may get another one when it goes on.
            if "node" not in body["status"]:
                self.claimed.pop(f"uid-{run}", None)
            self.suspended.add(f"uid-{run}")
            body["spec"]["suspend"] = wanted
            self.api.put(body)

    @rule(name=st.sampled_from(NODES))
    def somebody_trains(self, name: str) -> None:
        if name in self.nodes:
            self.nature.somebody_trains(name)

    @rule(sure=st.sampled_from((True, False, False)))
    def training_ends(self, *, sure: bool) -> None:
        if sure:
            self.nature.training_ends()

    # Administrators

    def _label(self, name: str, key: str, value: str | None) -> None:
        if name in self.nodes:
            node = self.api.node(name)
            node["metadata"]["labels"].pop(key, None)
            node["metadata"]["labels"].update({key: value} if value is not None else {})
            self.api.put(node)

    @rule(name=st.sampled_from(NODES), value=st.sampled_from(("install", "adopt", "verify", None)))
    def the_opt_in_changes(self, name: str, value: str | None) -> None:
        self._label(name, naming.DRIVER_OPT_IN_LABEL, value)

    @rule(name=st.sampled_from(NODES), value=st.sampled_from(("true", None)))
    def nvidias_operator_comes_or_goes(self, name: str, value: str | None) -> None:
        self._label(name, DEPLOY, value)

    @rule(name=st.sampled_from(NODES), closed=st.booleans())
    def an_administrator_cordons_or_uncordons(self, name: str, closed: bool) -> None:
        if name not in self.nodes:
            return
        node = self.api.node(name)
        # To cordon what we have cordoned changes nothing, and what nobody can see later is not promised.
        if closed and not node["spec"].get("unschedulable") and not self._is_ours(name):
            self.closed_by_others.add(name)
        if not closed:
            self.closed_by_others.discard(name)
        node["spec"]["unschedulable"] = closed
        self.api.put(node)

    def _is_ours(self, name: str) -> bool:
        return naming.DRIVER_CORDON_ANNOTATION in (self.api.node(name)["metadata"].get("annotations") or {})

    # What must hold

    @invariant()
    def one_run_changes_one_node_at_most(self) -> None:
        assert all(len(nodes) == 1 for nodes in self.claimed.values()), self.claimed
        claims = [uid for name in self.nodes for uid in claim_of(self.api.node(name)).runs]
        assert len(claims) == len(set(claims))

    @invariant()
    def a_cordon_of_somebody_else_stays(self) -> None:
        for name in self.closed_by_others:
            assert self.api.node(name)["spec"].get("unschedulable"), name

    def _check_settled(self, name: str) -> None:
        """Say what holds of a node once it was reconciled with all that is to be seen."""
        node = self.api.node(name)
        labels, claim = node["metadata"]["labels"], claim_of(node)
        wanted, ready = labels.get(naming.DRIVER_WANTED_LABEL), labels.get(naming.DRIVER_READY_LABEL)
        mode = OPT_IN.get(labels.get(naming.DRIVER_OPT_IN_LABEL, ""))
        if mode not in ("Install", "Adopt") or DEPLOY in labels:
            assert wanted is None
            assert not self._is_ours(name)
        if mode is None or (DEPLOY in labels and mode != "Verify"):
            assert ready is None
        if mode is None or DEPLOY in labels:
            assert labels.get(naming.DRIVER_LOADED_LABEL) is None
        assert claim.runs.keys() <= self.nature.living()
        assert ready in (None, self.nature.hosts.get(name))

    def _calm_step(self) -> None:
        for name in self.nodes:
            at_once(self.operator.reconcile(name))
            self._check_settled(name)
        at_once(self.operator.reconcile(""))
        for run in RUNS:
            self.operator.look()
            self._ask(run)
        self.nature.sync_daemon_sets()
        self.nature.step_driver_pods()
        self.nature.sync_device_plugin()
        self.nature.schedule()

    def teardown(self) -> None:
        """Let the faults stop and the administrators be content: every run gets its driver and ends, and we leave."""
        if not hasattr(self, "api"):
            return
        self.nature.broken = set()
        if self.nature.living():
            self.nature.stuck = set()
        self.nature.training_ends()
        for name in self.nodes:
            self._label(name, naming.DRIVER_OPT_IN_LABEL, "install")
            self._label(name, DEPLOY, None)
            self.a_kubelet_falls_silent_or_speaks(name, "True")
            self.an_administrator_cordons_or_uncordons(name, closed=False)
        for run in self.api.all("MLPerfRun"):
            run["spec"]["suspend"] = False
            self.api.put(run)
        for _ in range(80):
            if not self.nature.living():
                break
            self._calm_step()
            self.one_run_changes_one_node_at_most()
            self.nature.end_runs()
            self.api.now += timedelta(seconds=60)
        assert not self.nature.living(), self.api.all("Node")
        self._had_their_drivers()
        for _ in range(12):
            self._calm_step()
        for name in self.nodes:
            assert not self._is_ours(name)
            assert not self.api.node(name)["spec"].get("unschedulable")
            assert not claim_of(self.api.node(name)).runs
        self.api.requests.clear()
        self.operator = Operator(self.api, self.settings)
        self._calm_step()
        assert [words for words in self.api.writes() if not words.startswith("apply")] == []

    def _had_their_drivers(self) -> None:
        for run, (_, had) in self.nature.ran.items():
            driver = self.api.objects["MLPerfRun", "bench", run]["spec"]["driver"]
            assert had == VERSIONS[driver["version"]] or driver["policy"] == "Auto", (run, had)


PROFILE = settings(
    max_examples=150,
    stateful_step_count=40,
    phases=[Phase.generate],  # shrinking a story takes minutes
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def test_every_story_of_drivers_ends_well() -> None:
    run_state_machine_as_test(Story, settings=PROFILE)


def _calm_story(*wants: str) -> Story:
    story = Story()
    story.begin(two=False, installed=None, evict=False, plugin=False)
    for name, version in zip(RUNS, wants, strict=False):
        new_run(story.api, name, version)
    return story


def test_two_runs_that_want_different_drivers_of_the_only_node_both_end() -> None:
    story = _calm_story("550", "535")
    blocked = None
    for _ in range(6):
        story._calm_step()
        blocked = at_once(story.operator.driver_for("bench/b")) or blocked
    assert isinstance(blocked, Blocked)
    assert blocked.reason == "NodeDriverConflict"
    assert f"bench/a ({NEW})" in blocked.message
    story.teardown()
    assert story.nature.ran == {"a": ("node-1", NEW), "b": ("node-1", OLD)}
    assert story.api.node()["metadata"]["labels"][naming.DRIVER_READY_LABEL] == OLD


def test_a_run_that_ends_before_its_driver_pod_could_start_leaves_the_node_open() -> None:
    story = _calm_story("550")
    story.nature.stuck = {"node-1"}
    for _ in range(4):
        story._calm_step()
    assert story.api.node()["spec"]["unschedulable"]
    story.a_run_ends("a")
    story.teardown()


@pytest.mark.parametrize("died_after", range(14))
def test_an_operator_that_dies_after_any_request_is_continued_by_the_next(died_after: int) -> None:
    story, seen = _calm_story("550"), 0
    while story.nature.living():
        requests = len(story.api.requests)
        if seen <= died_after:
            story.api.troubles = [*[None] * (died_after - seen), Trouble(CrashError(), late=True)]
        with suppress(CrashError):
            story._calm_step()
        story.api.troubles = []
        seen += len(story.api.requests) - requests
        if seen > died_after:
            story.operator = Operator(story.api, story.settings)
        story.nature.end_runs()
    assert story.nature.ran == {"a": ("node-1", NEW)}
    story.teardown()
