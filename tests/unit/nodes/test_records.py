"""What is kept of nodes and driver pods as the API server sends them."""

from __future__ import annotations

from typing import Any

import pytest

from mlperf_operator import naming
from mlperf_operator.nodes.records import Taint, decode_driver_pod, decode_foreign_pod, decode_node

META = {"name": "node-1", "uid": "u", "resourceVersion": "7"}
POD = {"namespace": "mlperf-system", "name": "driver-x", "uid": "p"}
PINNED = {
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "a", "operator": "Exists"}]},
                    {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node-9"]}]},
                ]
            }
        }
    }
}


def _ended(code: int, message: str = "said") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "message": message}}


def _pod(init: dict[str, Any] | None = None, main: dict[str, Any] | None = None, **status: Any) -> dict[str, Any]:
    statuses = {
        "initContainerStatuses": [{"name": "ensure", **init}] if init else [],
        "containerStatuses": [{"name": "other"}, {"name": "verify", **main}] if main else [],
    }
    return {"metadata": POD, "spec": {"nodeName": "node-1"}, "status": {**statuses, **status}}


def test_a_node_keeps_its_labels_our_annotations_and_those_that_show_a_manager() -> None:
    annotations = {
        naming.DRIVER_CLAIM_ANNOTATION: "c",
        "nvidia.com/gpu-driver-upgrade-enabled": "true",
        "csi.volume.kubernetes.io/nodeid": "x" * 999,
    }
    body = {
        "metadata": {**META, "labels": {"a": "b", naming.DRIVER_OPT_IN_LABEL: "adopt"}, "annotations": annotations},
        "spec": {
            "unschedulable": True,
            "taints": [{"key": "sku", "value": "gpu", "effect": "NoSchedule"}, {"key": "k", "effect": "NoExecute"}],
        },
        "status": {
            "conditions": [{"type": "Ready", "status": "True"}, {"type": "DiskPressure", "status": "False"}],
            "allocatable": {"nvidia.com/gpu": "8", "cpu": "96"},
        },
    }
    record = decode_node(body)
    assert set(record.annotations) == set(annotations) - {"csi.volume.kubernetes.io/nodeid"}
    assert (record.name, record.uid, record.resource_version, record.mode) == ("node-1", "u", "7", "Adopt")
    assert (record.unschedulable, record.ready, record.gpus) == (True, True, 8)
    assert record.taints == (Taint("sku", "gpu", "NoSchedule"), Taint("k", "", "NoExecute"))


def test_a_node_that_says_nothing_is_neither_ready_nor_opted_in_and_has_no_gpu() -> None:
    record = decode_node({"metadata": META})
    assert (record.ready, record.gpus, record.mode, record.unschedulable) == (False, 0, None, False)
    assert (record.wanted, record.loaded, record.driver_ready) == (None, None, None)


@pytest.mark.parametrize(
    ("value", "mode"),
    [("install", "Install"), ("adopt", "Adopt"), ("verify", "Verify"), ("true", None), ("Install", None), ("", None)],
)
def test_only_three_words_are_an_opt_in(value: str, mode: str | None) -> None:
    record = decode_node({"metadata": {**META, "labels": {naming.DRIVER_OPT_IN_LABEL: value}}})
    assert record.mode == mode


@pytest.mark.parametrize(("amount", "gpus"), [("8", 8), ("0", 0), ("1k", 0), (4, 4)])
def test_an_amount_that_is_no_plain_number_is_no_gpu(amount: str | int, gpus: int) -> None:
    body = {"metadata": META, "status": {"allocatable": {"nvidia.com/gpu": amount}}}
    assert decode_node(body).gpus == gpus


@pytest.mark.parametrize("ready", ["False", "Unknown"])
def test_a_node_whose_kubelet_is_silent_is_not_ready(ready: str) -> None:
    body = {"metadata": META, "status": {"conditions": [{"type": "Ready", "status": ready}]}}
    assert not decode_node(body).ready


RUNNING: dict[str, Any] = {"running": {}}
STORY: list[tuple[str, dict[str, Any], bool, bool, str]] = [
    ("has not begun", {"state": {"waiting": {"reason": "PodInitializing"}}}, False, False, ""),
    ("at work", {"state": RUNNING}, False, False, ""),
    ("ended well", {"state": _ended(0)}, True, False, "said"),
    ("failed", {"state": _ended(1)}, False, True, "said"),
    ("failed and runs again", {"state": RUNNING, "lastState": _ended(1)}, False, True, "said"),
    (
        "failed and waits to run again",
        {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": _ended(1)},
        *(False, True),
        "said",
    ),
    ("ended well at the second try", {"state": _ended(0, "2"), "lastState": _ended(1, "1")}, True, False, "2"),
    ("runs again after a reboot", {"state": RUNNING, "lastState": _ended(0)}, False, False, "said"),
]


@pytest.mark.parametrize(("case", "init", "ensured", "failed", "report"), STORY, ids=[case[0] for case in STORY])
def test_how_the_init_container_stands(
    case: str, init: dict[str, Any], ensured: bool, failed: bool, report: str
) -> None:
    record = decode_driver_pod(_pod(init))
    assert (record.ensured, record.failed, record.report) == (ensured, failed, report), case
    assert record.waits_for == ""


@pytest.mark.parametrize(
    ("init", "killed"),
    [
        ({"state": _ended(137, "")}, True),
        ({"state": _ended(129)}, True),
        ({"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": _ended(255)}, True),
        ({"state": RUNNING, "lastState": _ended(143)}, True),
        ({"state": _ended(1), "lastState": _ended(137)}, False),
        ({"state": _ended(0), "lastState": _ended(137)}, False),
        ({"state": _ended(128)}, False),
        ({"state": {"terminated": {"reason": "ContainerStatusUnknown"}}}, False),
        ({"state": RUNNING}, False),
    ],
)
def test_a_driver_pod_was_killed_when_a_signal_ended_its_last_attempt(init: dict[str, Any], *, killed: bool) -> None:
    assert decode_driver_pod(_pod(init)).killed is killed


def test_a_driver_pod_is_ready_as_its_main_container_is() -> None:
    assert decode_driver_pod(_pod({"state": _ended(0)}, {"ready": True})).ready
    assert not decode_driver_pod(_pod({"state": _ended(0)}, {"ready": False})).ready
    assert not decode_driver_pod({"metadata": POD}).ready


def test_a_driver_pod_says_what_it_is_of_and_whether_it_goes() -> None:
    labels = {
        naming.DRIVER_MODE_LABEL: "Install",
        naming.DRIVER_VERSION_LABEL: "550.54.14",
        naming.DRIVER_DIGEST_LABEL: "d",
    }
    record = decode_driver_pod({"metadata": {**POD, "labels": labels, "deletionTimestamp": "x"}})
    assert (record.mode, record.version, record.digest, record.deleting) == ("Install", "550.54.14", "d", True)
    bare = decode_driver_pod({"metadata": POD})
    assert (bare.mode, bare.version, bare.digest, bare.deleting, bare.report) == ("", "", "", False, "")


PULL = {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}
NO_WORDS = {"state": {"waiting": {"reason": "CreateContainerConfigError"}}}
CRASH = {"state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}}
APART = {"type": "PodScheduled", "status": "False", "message": "didn't match pod anti-affinity rules"}


@pytest.mark.parametrize(
    ("body", "waits_for"),
    [
        (_pod(PULL), "ImagePullBackOff: no such image"),
        (_pod(NO_WORDS), "CreateContainerConfigError"),
        (_pod({"state": _ended(0)}, PULL), "ImagePullBackOff: no such image"),
        (_pod({"state": _ended(0)}, CRASH), "CrashLoopBackOff: back-off 10s"),
        (_pod(CRASH), ""),
        (_pod({"state": {"waiting": {}}}), ""),
        (_pod(conditions=[APART]), "didn't match pod anti-affinity rules"),
        (_pod(conditions=[{**APART, "status": "True"}]), ""),
    ],
)
def test_what_keeps_a_driver_pod_from_starting_is_told(body: dict[str, Any], waits_for: str) -> None:
    assert decode_driver_pod(body).waits_for == waits_for


@pytest.mark.parametrize(
    ("spec", "node"),
    [
        ({"nodeName": "node-1", **PINNED}, "node-1"),
        (PINNED, "node-9"),
        ({"affinity": {"podAntiAffinity": {}}}, ""),
        ({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": None}}}, ""),
        ({}, ""),
    ],
)
def test_a_pending_pod_is_of_the_node_that_its_daemon_set_made_it_for(spec: dict[str, Any], node: str) -> None:
    assert decode_driver_pod({"metadata": POD, "spec": spec}).node == node
    foreign = decode_foreign_pod({"metadata": POD, "spec": spec})
    assert (foreign.namespace, foreign.name, foreign.node) == ("mlperf-system", "driver-x", node)
