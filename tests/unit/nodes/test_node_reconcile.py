"""Whole reconciliations of a node: what is read, in which order things are written, and what survives errors."""

from __future__ import annotations

import json
import logging
from datetime import timedelta
from typing import Any

import pytest

from mlperf_operator import naming
from mlperf_operator.cluster import ApiError
from mlperf_operator.driver_report import encode
from mlperf_operator.node_reconcile import SOON, node_patch
from mlperf_operator.nodes.claims import Claim
from mlperf_operator.nodes.records import decode_node
from mlperf_operator.nodes.step import Step
from unit.nodes.api import DRIVER_OWNER, SYSTEM, Api, Body, Operator, at_once, finish, gpu_pod, new_node, new_run
from unit.nodes.builders import EMPTY, NEW, OLD, SETTINGS, claimed, cordoned, labelled, node, report, world
from unit.nodes.nature import Nature
from unit.reconcile.world import Trouble

EVICTING = SETTINGS.model_copy(update={"evict_gpu_pods": True})
SET = "mlperf-driver-550-54-14"
OWNER = f"GET ConfigMap {DRIVER_OWNER}"


class Lab:
    """A cluster with one node, and one run that has claimed it."""

    def __init__(self, *, opt_in: str | None = "install", claim: bool = True) -> None:
        self.api = Api()
        new_node(self.api, opt_in=opt_in)
        if claim:
            new_run(self.api)
            text = json.dumps({"runs": {"uid-a": "bench/a"}, "version": NEW})
            self.api.node()["metadata"]["annotations"][naming.DRIVER_CLAIM_ANNOTATION] = text
        self.nature = Nature(self.api)
        self.operator = Operator(self.api)

    def labels(self) -> dict[str, str]:
        return {k: v for k, v in self.api.node()["metadata"]["labels"].items() if k != naming.DRIVER_OPT_IN_LABEL}

    def told(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.api.node()["metadata"]["annotations"][naming.DRIVER_REPORT_ANNOTATION])
        return found

    def pod(self) -> Body:
        [pod] = self.nature.driver_pods()
        return pod

    async def until_ready(self) -> None:
        for _ in range(8):
            await self.operator.reconcile()
            self.nature.sync_daemon_sets()
            self.nature.step_driver_pods()
            self.nature.sync_device_plugin()
        assert self.labels()[naming.DRIVER_READY_LABEL] == NEW


async def test_a_claimed_node_is_cordoned_then_looked_at_then_labelled() -> None:
    lab = Lab()
    await lab.operator.reconcile()
    assert lab.api.requests == ["GET pods on node-1", "patch node-1", "event DriverInstalling"]
    assert lab.api.node()["spec"] == {"unschedulable": True}
    assert lab.labels() == {}
    lab.api.requests.clear()
    assert await lab.operator.reconcile() == timedelta(seconds=5)
    assert lab.api.requests == ["GET pods on node-1", OWNER, f"apply {SET}", "patch node-1"]
    assert lab.labels() == {naming.DRIVER_WANTED_LABEL: NEW}


async def test_a_node_that_somebody_closed_already_is_looked_at_at_once_and_stays_his() -> None:
    lab = Lab()
    lab.api.node()["spec"] = {"unschedulable": True}
    await lab.operator.reconcile()
    assert lab.api.requests[0] == "GET pods on node-1"
    assert naming.DRIVER_CORDON_ANNOTATION not in lab.api.node()["metadata"]["annotations"]
    assert lab.labels() == {naming.DRIVER_WANTED_LABEL: NEW}
    for _ in range(6):
        lab.nature.sync_daemon_sets()
        lab.nature.step_driver_pods()
        lab.nature.sync_device_plugin()
        await lab.operator.reconcile()
    assert lab.labels()[naming.DRIVER_READY_LABEL] == NEW
    assert lab.api.node()["spec"] == {"unschedulable": True}


def _train(api: Api) -> None:
    gpu_pod(api)


async def test_a_pod_that_came_before_the_cordon_is_seen_after_it() -> None:
    lab = Lab()
    lab.api.meanwhile = [lambda: None, lambda: _train(lab.api)]
    await lab.operator.reconcile()
    assert lab.api.node()["spec"] == {"unschedulable": True}
    await lab.operator.reconcile()
    assert lab.told()["reason"] == "GPUInUse"
    assert lab.labels() == {}
    assert not lab.api.node()["spec"].get("unschedulable")


async def test_from_a_claim_to_a_ready_node_and_an_open_one() -> None:
    lab = Lab()
    await lab.until_ready()
    assert set(lab.labels()) == {naming.DRIVER_WANTED_LABEL, naming.DRIVER_LOADED_LABEL, naming.DRIVER_READY_LABEL}
    assert not lab.api.node()["spec"].get("unschedulable")
    assert (lab.told()["phase"], lab.told()["driver"], lab.told()["gpus"]) == ("Ready", NEW, 8)
    assert [event["reason"] for event in lab.api.events] == ["DriverInstalling", "GPUNotAllocatable", "Matched"]
    [first, *_] = lab.api.events
    assert first["involvedObject"]["kind"] == "Node"
    assert first["involvedObject"]["uid"] == lab.api.node()["metadata"]["uid"]


async def test_a_ready_node_costs_no_request() -> None:
    lab = Lab()
    await lab.until_ready()
    lab.api.requests.clear()
    for _ in range(3):
        assert await lab.operator.reconcile() is None
    assert lab.api.requests == []


async def test_a_standby_that_takes_over_writes_nothing_on_a_ready_node_but_the_daemon_set() -> None:
    lab = Lab()
    await lab.until_ready()
    lab.api.requests.clear()
    await Operator(lab.api).reconcile()
    assert lab.api.requests == [f"GET log of {lab.pod()['metadata']['name']}", OWNER, f"apply {SET}"]


async def test_driver_pods_go_with_the_config_map_that_the_chart_takes_away() -> None:
    lab = Lab()
    stored = lab.api.put({"kind": "ConfigMap", "metadata": {"name": DRIVER_OWNER, "namespace": SYSTEM}})
    await lab.until_ready()
    meta = lab.api.objects["DaemonSet", SYSTEM, SET]["metadata"]
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": DRIVER_OWNER, "uid": stored["metadata"]["uid"]}
    assert meta["ownerReferences"] == [owner]


async def test_without_that_config_map_they_belong_to_nobody() -> None:
    lab = Lab()
    await lab.until_ready()
    assert "ownerReferences" not in lab.api.objects["DaemonSet", SYSTEM, SET]["metadata"]


async def test_the_ready_label_follows_the_pod_both_ways() -> None:
    lab = Lab()
    await lab.until_ready()
    lab.nature.hosts["node-1"] = OLD
    lab.nature.step_driver_pods()
    await lab.operator.reconcile()
    assert set(lab.labels()) == {naming.DRIVER_WANTED_LABEL}
    assert lab.told()["reason"] == "DriverMismatch"
    lab.nature.hosts["node-1"] = NEW
    lab.nature.step_driver_pods()
    await lab.operator.reconcile()
    assert lab.labels()[naming.DRIVER_READY_LABEL] == NEW


async def test_a_log_that_cannot_be_read_leaves_the_labels_to_the_pods_readiness() -> None:
    lab = Lab()
    await lab.until_ready()
    lab.api.logs.clear()
    heir = Operator(lab.api)
    await heir.reconcile()
    assert lab.labels()[naming.DRIVER_READY_LABEL] == NEW
    lab.pod()["status"]["containerStatuses"][0]["ready"] = False
    await heir.reconcile()
    assert naming.DRIVER_READY_LABEL not in lab.labels()


async def test_what_a_log_said_before_is_remembered_while_it_cannot_be_read() -> None:
    lab = Lab()
    await lab.until_ready()
    pod = lab.pod()
    lab.api.logs[pod["metadata"]["name"]] = encode(report(ready=False, reason="GPUMissing", message="7 of 8"))
    pod["status"]["containerStatuses"][0]["ready"] = False
    await lab.operator.reconcile()
    assert lab.told()["reason"] == "GPUMissing"
    lab.api.logs.clear()
    await lab.operator.reconcile()
    assert lab.told()["reason"] == "GPUMissing"


async def test_a_log_that_lags_behind_the_probe_is_read_again() -> None:
    lab = Lab()
    await lab.until_ready()
    pod, name = lab.pod(), lab.pod()["metadata"]["name"]
    ready = lab.api.logs[name]
    lab.api.logs[name] = encode(report(ready=False, reason="GPUMissing", message="7 of 8"))
    pod["metadata"]["uid"] = "another"
    lab.api.put(pod)
    assert await lab.operator.reconcile() == timedelta(seconds=5)
    assert naming.DRIVER_READY_LABEL not in lab.labels()
    lab.api.logs[name] = ready
    await lab.operator.reconcile()
    assert lab.labels()[naming.DRIVER_READY_LABEL] == NEW


async def test_a_log_that_is_no_report_is_none() -> None:
    lab = Lab()
    await lab.until_ready()
    lab.api.logs[lab.pod()["metadata"]["name"]] = "Traceback"
    lab.pod()["status"]["containerStatuses"][0]["ready"] = False
    await lab.operator.reconcile()
    assert lab.told()["message"] == "its driver pod verifies"


async def test_pods_with_gpus_are_evicted_and_a_budget_that_forbids_it_is_tried_again() -> None:
    lab = Lab()
    lab.operator = Operator(lab.api, EVICTING)
    gpu_pod(lab.api)
    gpu_pod(lab.api, "guarded")
    lab.api.budgets = {"guarded"}
    await lab.operator.reconcile()
    assert await lab.operator.reconcile() == timedelta(seconds=5)
    assert lab.nature.gpu_pods("node-1") == ["guarded"]
    assert lab.told()["reason"] == "DriverDraining"
    assert lab.api.node()["spec"] == {"unschedulable": True}
    lab.api.budgets = set()
    await lab.operator.reconcile()
    assert lab.nature.gpu_pods("node-1") == []
    await lab.operator.reconcile()
    assert lab.labels() == {naming.DRIVER_WANTED_LABEL: NEW}


async def test_a_node_is_closed_before_the_first_pod_is_evicted() -> None:
    lab = Lab()
    lab.operator = Operator(lab.api, EVICTING)
    gpu_pod(lab.api)
    assert await lab.operator.reconcile() == timedelta(seconds=5)
    assert lab.api.writes() == ["patch node-1", "evict team/train"]
    assert lab.api.node()["spec"] == {"unschedulable": True}


async def test_another_error_of_an_eviction_is_one() -> None:
    lab = Lab()
    lab.operator = Operator(lab.api, EVICTING)
    gpu_pod(lab.api)
    lab.api.troubles = [None, None, None, Trouble(ApiError(403, "Forbidden", "no"))]
    with pytest.raises(ApiError):
        await lab.operator.reconcile()
    assert lab.api.requests[-1] == "evict team/train"


async def test_a_run_that_is_on_the_node_is_waited_for_and_its_neighbours_are_not_evicted() -> None:
    lab = Lab()
    lab.operator = Operator(lab.api, EVICTING)
    gpu_pod(lab.api, "benchmark", labels={naming.RUN_UID_LABEL: "u"})
    gpu_pod(lab.api)
    for _ in range(2):
        assert await lab.operator.reconcile() == timedelta(seconds=15)
        assert lab.told()["reason"] == "GPUInUse"
        assert not lab.api.node()["spec"].get("unschedulable")
    # Looked at each time, and written and told once.
    assert lab.api.requests == ["GET pods on node-1", "patch node-1", "event GPUInUse", "GET pods on node-1"]


async def test_a_node_goes_from_one_driver_to_another_without_a_moment_that_nobody_asked_for() -> None:
    lab = Lab()
    await lab.until_ready()
    before = lab.labels()
    finish(lab.api, "a")
    new_run(lab.api, "b", "535")
    text = json.dumps({"runs": {"uid-b": "bench/b"}, "version": OLD})
    lab.api.node()["metadata"]["annotations"][naming.DRIVER_CLAIM_ANNOTATION] = text
    gpu_pod(lab.api)
    for _ in range(2):
        assert await lab.operator.reconcile() == timedelta(seconds=15)
        await lab.operator.reconcile("")
        lab.nature.sync_daemon_sets()
        lab.nature.step_driver_pods()
    assert (lab.labels(), lab.told()["reason"], lab.told()["version"]) == (before, "GPUInUse", OLD)
    assert not lab.api.node()["spec"].get("unschedulable")
    del lab.api.objects["Pod", "team", "train"]
    await lab.operator.reconcile()
    assert (lab.labels(), lab.api.node()["spec"]["unschedulable"]) == (before, True)
    await lab.operator.reconcile()
    assert lab.labels() == {}
    await lab.operator.reconcile()
    assert (lab.labels(), lab.told()["message"]) == ({}, "the driver pod that was there ends first")
    for _ in range(8):
        lab.nature.sync_daemon_sets()
        lab.nature.step_driver_pods()
        lab.nature.sync_device_plugin()
        await lab.operator.reconcile()
    assert set(lab.labels().values()) == {OLD}
    assert lab.nature.hosts == {"node-1": OLD}
    assert not lab.api.node()["spec"].get("unschedulable")


async def test_a_change_that_failed_is_undone_with_its_last_run_and_nothing_changes_any_more() -> None:
    lab = Lab()
    lab.nature.hosts["node-1"] = OLD
    lab.nature.broken = {"node-1"}
    for _ in range(4):
        await lab.operator.reconcile()
        lab.nature.sync_daemon_sets()
        lab.nature.step_driver_pods()
    await lab.operator.reconcile()
    assert (lab.labels(), lab.told()["reason"], lab.told()["driver"]) == ({}, "DiskFull", OLD)
    lab.nature.broken = set()
    finish(lab.api, "a")
    for _ in range(6):
        await lab.operator.reconcile()
        await lab.operator.reconcile("")
        lab.nature.sync_daemon_sets()
        lab.nature.step_driver_pods()
        lab.nature.sync_device_plugin()
        assert not lab.api.node()["spec"].get("unschedulable")
    await lab.operator.reconcile()
    assert set(lab.labels().values()) == {OLD}
    assert naming.DRIVER_READY_LABEL in lab.labels()
    assert lab.nature.hosts == {"node-1": OLD}
    lab.api.requests.clear()
    assert await lab.operator.reconcile() is None
    assert lab.api.requests == []


async def test_a_node_that_changed_meanwhile_is_looked_at_again_at_once_and_nothing_more_is_done() -> None:
    lab = Lab()
    lab.operator = Operator(lab.api, EVICTING)
    gpu_pod(lab.api)
    lab.operator.look()
    lab.api.put(lab.api.node())
    assert await lab.operator.reconcile(look=False) == SOON
    assert lab.api.requests == ["GET pods on node-1", "patch node-1"]


async def test_another_error_of_the_api_server_is_one() -> None:
    lab = Lab()
    for before in ([], ["GET pods on node-1"]):
        lab.api.requests.clear()
        lab.api.troubles = [*[None for _ in before], Trouble(ApiError(500, "InternalError", "no"))]
        with pytest.raises(ApiError):
            await lab.operator.reconcile()
        assert len(lab.api.requests) == len(before) + 1
        assert lab.api.requests[:-1] == before


async def test_an_event_that_cannot_be_written_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    lab = Lab()
    lab.api.troubles = [None, None, Trouble(ApiError(403, "Forbidden", "no"))]
    with caplog.at_level(logging.WARNING):
        await lab.operator.reconcile()
    assert "event DriverInstalling of node node-1 was not written" in caplog.text
    assert lab.api.node()["spec"] == {"unschedulable": True}


async def test_a_container_that_has_not_started_is_no_news_and_a_kubelet_that_does_not_answer_is(
    caplog: pytest.LogCaptureFixture,
) -> None:
    lab = Lab()
    await lab.until_ready()
    for status, level in ((400, logging.DEBUG), (502, logging.INFO)):
        heir = Operator(lab.api)
        caplog.clear()
        lab.api.troubles = [Trouble(ApiError(status, "Trouble", "no"))]
        with caplog.at_level(logging.DEBUG, "mlperf_operator"):
            await heir.reconcile()
        assert [r.levelno for r in caplog.records if "cannot be read" in r.message] == [level]


@pytest.mark.parametrize("opt_in", [None, "true"])
async def test_a_node_that_is_not_ours_costs_no_request(opt_in: str | None) -> None:
    lab = Lab(opt_in=opt_in, claim=False)
    assert await lab.operator.reconcile() is None
    assert await lab.operator.reconcile("node-9") is None
    assert lab.api.requests == []


async def test_a_label_that_somebody_put_on_a_node_without_opt_in_is_taken_off() -> None:
    lab = Lab(opt_in=None, claim=False)
    for label in (naming.DRIVER_WANTED_LABEL, naming.DRIVER_LOADED_LABEL, naming.DRIVER_READY_LABEL):
        lab.api.node()["metadata"]["labels"][label] = NEW
        await lab.operator.reconcile()
        assert lab.labels() == {}


async def test_the_claim_of_a_run_that_ended_is_taken_off_and_the_driver_stays() -> None:
    lab = Lab()
    await lab.until_ready()
    finish(lab.api, "a")
    await lab.operator.reconcile()
    assert naming.DRIVER_CLAIM_ANNOTATION not in lab.api.node()["metadata"]["annotations"]
    assert lab.labels()[naming.DRIVER_READY_LABEL] == NEW


async def test_a_driver_pod_of_an_older_template_is_replaced_once_the_node_is_idle() -> None:
    lab = Lab()
    await lab.until_ready()
    finish(lab.api, "a")
    lab.operator = Operator(lab.api, SETTINGS.model_copy(update={"verify_port": 10400}))
    gpu_pod(lab.api)
    await lab.operator.reconcile()
    name = lab.pod()["metadata"]["name"]
    assert lab.labels()[naming.DRIVER_READY_LABEL] == NEW
    del lab.api.objects["Pod", "team", "train"]
    lab.api.requests.clear()
    await lab.operator.reconcile()
    assert lab.api.requests == ["GET pods on node-1", "patch node-1", f"delete Pod {name}"]
    assert naming.DRIVER_READY_LABEL not in lab.labels()
    for _ in range(5):
        lab.nature.sync_daemon_sets()
        lab.nature.step_driver_pods()
        await lab.operator.reconcile()
    assert lab.pod()["metadata"]["name"] != name
    assert lab.labels()[naming.DRIVER_READY_LABEL] == NEW


async def test_verify_has_one_daemon_set_whatever_the_driver() -> None:
    lab = Lab(opt_in="verify", claim=False)
    lab.nature.hosts["node-1"] = OLD
    for _ in range(6):
        await lab.operator.reconcile()
        lab.nature.sync_daemon_sets()
        lab.nature.step_driver_pods()
        lab.nature.sync_device_plugin()
    assert [body["metadata"]["name"] for body in lab.api.all("DaemonSet")] == ["mlperf-driver-verify"]
    assert lab.labels() == {naming.DRIVER_LOADED_LABEL: OLD, naming.DRIVER_READY_LABEL: OLD}


async def test_a_managed_node_that_is_only_verified_has_ready_and_never_loaded() -> None:
    lab = Lab(opt_in="verify", claim=False)
    lab.api.node()["metadata"]["labels"]["nvidia.com/gpu.deploy.driver"] = "true"
    lab.nature.hosts["node-1"] = OLD
    lab.nature.own_plugin = True
    for _ in range(6):
        await lab.operator.reconcile()
        assert naming.DRIVER_LOADED_LABEL not in lab.labels()
        lab.nature.sync_daemon_sets()
        lab.nature.step_driver_pods()
        lab.nature.sync_device_plugin()
    assert lab.labels()[naming.DRIVER_READY_LABEL] == OLD
    assert lab.told()["managedBy"].startswith("NVIDIA's GPU operator")
    lab.nature.hosts.clear()
    lab.nature.step_driver_pods()
    await lab.operator.reconcile()
    assert lab.labels() == {"nvidia.com/gpu.deploy.driver": "true"}


# DaemonSets


async def test_a_daemon_set_that_somebody_deleted_is_made_again() -> None:
    lab = Lab()
    await lab.until_ready()
    del lab.api.objects["DaemonSet", SYSTEM, SET]
    lab.nature.sync_daemon_sets()
    lab.nature.step_driver_pods()
    await lab.operator.reconcile()
    assert ("DaemonSet", SYSTEM, SET) in lab.api.objects
    await lab.until_ready()


async def test_daemon_sets_that_no_node_needs_are_deleted_and_others_stay() -> None:
    lab = Lab()
    await lab.until_ready()
    new_node(lab.api, "node-2", "verify")
    await lab.operator.reconcile("node-2")
    await lab.operator.reconcile("")
    assert {body["metadata"]["name"] for body in lab.api.all("DaemonSet")} == {SET, "mlperf-driver-verify"}
    for name in ("node-1", "node-2"):
        del lab.api.node(name)["metadata"]["labels"][naming.DRIVER_OPT_IN_LABEL]
        await lab.operator.reconcile(name)
    assert await lab.operator.reconcile("") is None
    assert lab.api.all("DaemonSet") == []


async def test_a_daemon_set_of_another_program_with_the_same_component_stays() -> None:
    lab = Lab()
    labels = {naming.COMPONENT_LABEL: naming.DRIVER_AGENT, naming.MANAGED_BY_LABEL: "another"}
    lab.api.put({"kind": "DaemonSet", "metadata": {"name": "other", "namespace": SYSTEM, "labels": labels}})
    await lab.operator.reconcile("")
    assert [body["metadata"]["name"] for body in lab.api.all("DaemonSet")] == ["other"]


async def test_the_daemon_set_of_a_driver_that_left_the_catalogue_stays_where_it_is_used() -> None:
    lab = Lab()
    await lab.until_ready()
    finish(lab.api, "a")
    heir = Operator(lab.api, EMPTY)
    await heir.reconcile()
    await heir.reconcile("")
    assert lab.labels()[naming.DRIVER_READY_LABEL] == NEW
    assert [body["metadata"]["name"] for body in lab.api.all("DaemonSet")] == [SET]
    del lab.api.node()["metadata"]["labels"][naming.DRIVER_WANTED_LABEL]
    await heir.reconcile("")
    assert lab.api.all("DaemonSet") == []


async def test_a_sweep_does_not_take_the_daemon_set_of_a_node_that_is_labelled_just_now() -> None:
    lab = Lab()
    await lab.operator.reconcile()

    def label_meanwhile() -> None:
        at_once(lab.operator.reconcile())

    lab.api.meanwhile = [label_meanwhile]
    await lab.operator.reconcile("")
    assert lab.labels() == {naming.DRIVER_WANTED_LABEL: NEW}
    assert ("DaemonSet", SYSTEM, SET) in lab.api.objects


async def test_a_daemon_set_that_is_applied_while_it_is_swept_is_applied_again() -> None:
    lab = Lab()
    await lab.until_ready()
    finish(lab.api, "a")
    del lab.api.node()["metadata"]["labels"][naming.DRIVER_WANTED_LABEL]
    lab.operator.look()

    def want_meanwhile() -> None:
        lab.api.node()["metadata"]["labels"][naming.DRIVER_WANTED_LABEL] = NEW
        at_once(lab.operator.reconcile())

    # Between the decision to delete and the deletion.
    lab.api.meanwhile = [lambda: None, want_meanwhile]
    await lab.operator.reconcile("")
    assert lab.api.all("DaemonSet") == []
    await lab.operator.reconcile()
    assert ("DaemonSet", SYSTEM, SET) in lab.api.objects


# The patch


def test_a_step_that_leaves_a_node_as_it_is_patches_nothing() -> None:
    assert node_patch(world(node()), Step(report=None)) == {}
    ready = labelled(claimed(node(), NEW, {"u": "k"}), wanted=NEW, loaded=NEW, ready=NEW)
    step = Step(report=None, wanted=NEW, loaded=NEW, ready=NEW)
    written = decode_node({"metadata": {"name": "n", "uid": "u", "resourceVersion": "1", **_meta(ready)}})
    assert node_patch(world(written, claim=Claim(NEW, {"u": "k"})), step) == {}


def _meta(record: Any) -> dict[str, Any]:
    claim = json.dumps({"runs": {"u": "k"}, "version": NEW}, sort_keys=True)
    return {"labels": dict(record.labels), "annotations": {naming.DRIVER_CLAIM_ANNOTATION: claim}}


@pytest.mark.parametrize(
    ("closed", "by_us", "wish", "spec", "mark"),
    [
        (False, False, True, {"unschedulable": True}, "true"),
        (True, False, True, None, None),
        (True, True, True, None, "true"),
        (False, True, True, {"unschedulable": True}, "true"),
        (True, True, False, {"unschedulable": None}, None),
        (True, False, False, None, None),
        (False, False, False, None, None),
        (False, True, False, {"unschedulable": None}, None),
    ],
)
def test_only_our_own_cordon_is_set_and_taken_back(
    closed: bool, by_us: bool, wish: bool, spec: dict[str, Any] | None, mark: str | None
) -> None:
    record = cordoned(node(), by_us=by_us)
    record = decode_node(
        {
            "metadata": {"name": "n", "uid": "u", "resourceVersion": "1", "annotations": dict(record.annotations)},
            "spec": {"unschedulable": closed},
        }
    )
    patch = node_patch(world(record, claim=Claim()), Step(report=None, cordon=wish))
    assert patch.get("spec") == spec
    after = {**record.annotations, **patch.get("metadata", {}).get("annotations", {})}
    assert after.get(naming.DRIVER_CORDON_ANNOTATION) == mark


def test_a_patch_names_only_what_differs() -> None:
    old = labelled(node(), wanted=OLD, loaded=OLD, ready=OLD)
    patch = node_patch(world(old), Step(report=None, wanted=NEW, loaded=OLD))
    assert patch == {
        "metadata": {"labels": {naming.DRIVER_WANTED_LABEL: NEW, naming.DRIVER_READY_LABEL: None}},
    }
