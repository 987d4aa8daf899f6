"""What is done next, from the present state alone."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from mlperf_operator import plan
from mlperf_operator.observed import Blocked, Observed
from mlperf_operator.plan import Create, DeleteJob, DeleteRun, Inputs, SetSuspend
from mlperf_operator.resources.stage_plan import build_plan
from mlperf_operator.suites import BUILT_IN
from unit.core.builders import IMAGES, NOW, UID, a100, job, pod, run, up_to

FILES = {"Makefile.docker": "prebuild:\n", "custom_configs/digits/Offline/custom.py": "x = 1\n"}
INPUTS = Inputs(suite=BUILT_IN["reference-cpu"], images=IMAGES, agent_files={"stage.py": "s"}, override_files=FILES)
NVIDIA = Inputs(suite=BUILT_IN["nvidia-v4.1"], images=IMAGES, agent_files={"stage.py": "s"}, override_files=FILES)
FINISHED = {
    "completionTime": "2026-01-02T03:04:05Z",
    "conditions": [{"type": "Finished", "status": "True", "reason": "Completed"}],
}


def _bodies(spec: dict[str, Any] | None = None) -> list[Any]:
    return [action.body for action in plan.start(run(spec), INPUTS) if isinstance(action, Create)]


def test_the_job_is_created_last_and_finds_its_config_maps() -> None:
    kinds = [(body["kind"], body["metadata"]["name"]) for body in _bodies()]
    assert kinds == [("ConfigMap", "demo-agent"), ("ConfigMap", "demo-gpu-config"), ("Job", "demo")]


def test_claim_templates_become_claims_that_outlive_the_run_unless_said_otherwise() -> None:
    spec = {
        "scratch": {"claimTemplate": {"size": "1Ti", "accessMode": "ReadWriteMany", "storageClassName": "nfs"}},
        "results": {"claimTemplate": {"size": "1Gi", "deleteWithRun": True}},
    }
    scratch, results = _bodies(spec)[:2]
    assert "ownerReferences" not in scratch["metadata"]
    assert scratch["spec"] == {
        "accessModes": ["ReadWriteMany"],
        "resources": {"requests": {"storage": "1Ti"}},
        "storageClassName": "nfs",
    }
    assert results["metadata"]["ownerReferences"][0]["uid"] == UID


def test_everything_that_a_run_owns_carries_its_uid() -> None:
    for body in _bodies():
        assert body["metadata"]["labels"]["mlperf.dev/run-uid"] == UID
        assert body["metadata"]["ownerReferences"][0]["uid"] == UID


def test_the_same_run_plans_the_same_objects() -> None:
    assert _bodies() == _bodies()
    mutable = run({"suspend": True, "ttlSecondsAfterFinished": 1})
    assert plan.config_digest(run(), INPUTS) == plan.config_digest(mutable, INPUTS)
    assert plan.config_digest(run(), INPUTS) != plan.config_digest(run({"testRun": True}), INPUTS)


def test_no_user_value_but_enums_and_suite_names_reaches_run_args() -> None:
    expected = "RUN_ARGS=--benchmarks=bert --scenarios=Server --config_ver=high_accuracy --test_mode=AccuracyOnly"
    steps = build_plan(
        a100(
            benchmarks=[{"name": "bert", "scenarios": ["Server"]}],
            configVersion="HighAccuracy",
            testModes=["AccuracyOnly"],
        ),
        BUILT_IN["nvidia-v4.1"],
        "image",
    )["stages"]["run"]["steps"]
    assert steps[-1]["argv"] == ["make", "run_harness", "ARCH=x86_64", expected]


def test_engines_are_made_once_for_both_modes_of_a_pair() -> None:
    steps = build_plan(run({"testRun": True}), BUILT_IN["reference-cpu"], "image")["stages"]["run"]["steps"]
    assert [step["id"] for step in steps if step["id"].startswith("generate")] == [
        "generate_engines-digits-Offline",
        "generate_engines-digits-Server",
        "generate_engines-digits-SingleStream",
    ]
    harness = [step for step in steps if step.get("result")]
    assert len(harness) == 6
    assert {step["requires"][0] for step in harness} == {step["id"] for step in steps if not step.get("result")}
    assert len({step["result"]["logDir"] for step in harness}) == 6
    assert all("--test_run" in step["argv"][2] for step in steps)


def test_every_requested_pair_and_mode_is_expected_by_collect() -> None:
    wanted = build_plan(a100(benchmarks=[{"name": "bert"}, {"name": "3d-unet"}]), BUILT_IN["nvidia-v4.1"], "image")
    pairs = {(e["variant"], e["scenario"], e["mode"]) for e in wanted["expected"]}
    assert len(pairs) == len(wanted["expected"]) == 10
    assert ("3d-unet-99", "SingleStream", "AccuracyOnly") in pairs


def test_stages_without_a_gpu_are_told_the_architecture() -> None:
    stages = build_plan(a100(), BUILT_IN["nvidia-v4.1"], "image")["stages"]
    assert stages["download-data"]["steps"][0]["argv"] == [
        "make",
        "download_data",
        "BENCHMARKS=bert",
        "ARCH=x86_64",
        "SM=80",
        "NVSI_ARCH=Ampere",
    ]
    assert "SM=80" not in stages["run"]["steps"][0]["argv"]


def test_a_stage_names_what_runs_share_and_it_reads() -> None:
    stages = build_plan(run(), BUILT_IN["reference-cpu"], "image")["stages"]
    assert stages["download-data"]["reads"] == []
    assert stages["preprocess-data"]["reads"] == ["download_data-digits", "download_model-digits"]
    # A built tree is copied into the run's own folder, so nobody reads it later.
    assert stages["run"]["reads"] == [*stages["preprocess-data"]["reads"], "preprocess_data-digits"]


@pytest.mark.parametrize(
    ("driver", "wanted"),
    [
        ({}, "550"),
        ({"policy": "Ensure", "version": "550.54.14"}, "550.54.14"),
        ({"policy": "Verify", "version": "535"}, "535"),
        ({"policy": "Ignore", "version": "535"}, None),
    ],
)
def test_preflight_compares_the_driver_unless_it_is_to_be_ignored(driver: dict[str, str], wanted: str | None) -> None:
    (look,) = build_plan(a100(driver=driver), BUILT_IN["nvidia-v4.1"], "image")["stages"]["preflight"]["steps"]
    assert look["checks"]["gpu"] == {"product": "A100-SXM4-40GB", "count": 8, "driver": wanted}


def test_only_preflight_and_run_ask_for_gpus() -> None:
    body = plan.desired_objects(a100(), NVIDIA)[-1]["spec"]["template"]["spec"]
    asking = [
        c["name"]
        for c in [*body["initContainers"], *body["containers"]]
        if "nvidia.com/gpu" in c["resources"].get("limits", {})
    ]
    assert asking == ["preflight", "run"]
    assert body["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "8"


def test_a_pod_of_the_reference_suite_meets_the_restricted_level() -> None:
    pod_spec = plan.desired_objects(run(), INPUTS)[-1]["spec"]["template"]["spec"]
    assert pod_spec["securityContext"]["runAsNonRoot"] is True
    assert pod_spec["automountServiceAccountToken"] is False
    for container in [*pod_spec["initContainers"], *pod_spec["containers"]]:
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["securityContext"]["allowPrivilegeEscalation"] is False


def test_no_failure_rule_can_match_the_sidecar() -> None:
    rules = plan.desired_objects(run(), INPUTS)[-1]["spec"]["podFailurePolicy"]["rules"]
    named = [rule["onExitCodes"]["containerName"] for rule in rules if "onExitCodes" in rule]
    assert "collect" not in named
    assert len(named) == len(rules) - 1


@pytest.mark.parametrize(
    ("wanted", "found", "queue", "action"),
    [
        (True, False, None, [SetSuspend(suspend=True)]),
        (False, True, None, [SetSuspend(suspend=False)]),
        (False, False, None, []),
        (False, True, "gpus", []),
    ],
)
def test_suspend_follows_the_spec_unless_a_queue_owns_it(
    wanted: bool, found: bool, queue: str | None, action: list[plan.Action]
) -> None:
    spec = {"suspend": wanted, "queueName": queue}
    assert plan.keep_going(run(spec), Observed(job=job(suspend=found))) == action


def test_a_queued_job_is_created_suspended_with_its_queue() -> None:
    body = _bodies({"queueName": "gpus"})[-1]
    assert body["spec"]["suspend"] is True
    assert body["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"


def test_a_finished_run_stops_a_job_that_would_go_on() -> None:
    finished = run(status=FINISHED)
    assert plan.finish(finished, Observed(job=job()), NOW) == [SetSuspend(suspend=True)]
    assert plan.finish(finished, Observed(job=job(suspend=True)), NOW) == []
    assert plan.finish(finished, Observed(job=job(outcome="Complete")), NOW) == []


def test_a_queued_job_of_a_finished_run_is_deleted_even_while_it_waits() -> None:
    finished = run({"queueName": "gpus"}, FINISHED)
    for found in (job(), job(suspend=True)):
        assert plan.finish(finished, Observed(job=found), NOW) == [DeleteJob()]
    assert plan.finish(finished, Observed(job=job(deleting=True)), NOW) == []
    assert plan.finish(finished, Observed(), NOW) == []


def test_a_run_is_deleted_when_its_time_to_live_is_over_and_not_before() -> None:
    finished = run({"ttlSecondsAfterFinished": 60}, FINISHED)
    early, late = NOW + timedelta(seconds=59), NOW + timedelta(seconds=60)
    assert plan.finish(finished, Observed(), early) == []
    assert plan.next_look(finished, Observed(), early) == timedelta(seconds=1)
    assert plan.finish(finished, Observed(), late) == [DeleteRun()]
    assert plan.next_look(finished, Observed(), late) == timedelta(seconds=10)
    assert plan.next_look(run(status=FINISHED), Observed(), late) is None


def test_lost_results_are_read_again_where_they_outlive_the_pod() -> None:
    lasting = run({"results": {"claimName": "r"}}, {"node": "node-7"})
    complete = Observed(job=job(outcome="Complete"))
    recovery = plan.recover(lasting, complete, INPUTS.suite, IMAGES)
    assert len(recovery) == 1
    assert isinstance(recovery[0], Create)
    body = recovery[0].body
    assert body["metadata"]["name"] == "demo-collect"
    assert body["spec"]["template"]["spec"]["containers"][0]["command"][-1] == "--once"
    assert "node-7" in json.dumps(body["spec"]["template"]["spec"]["affinity"])
    assert plan.recover(run(), complete, INPUTS.suite, IMAGES) == []
    again = Observed(job=job(outcome="Complete"), recovery_job=job(name="demo-collect"))
    assert plan.recover(lasting, again, INPUTS.suite, IMAGES) == []


def test_results_are_not_read_again_while_the_pod_may_still_report() -> None:
    lasting = run({"results": {"claimName": "r"}})
    ending = Observed(job=job(outcome="Complete"), pods=(pod(up_to("run"), phase="Running"),))
    assert plan.recover(lasting, ending, INPUTS.suite, IMAGES) == []


@pytest.mark.parametrize(
    ("observed", "seconds"),
    [
        (Observed(), 10),
        (Observed(blocked=Blocked("ConfigMapNotFound", "x")), 10),
        (Observed(job=job(suspended=True), pods=(pod(up_to("code")),)), None),
        (Observed(job=job()), 5),
        (Observed(job=job(), pods=(pod(),)), 1800),
        (Observed(job=job(), pods=(pod(up_to("code")),)), 172800 + 360),
        (Observed(job=job(outcome="Complete")), 10),
    ],
)
def test_time_alone_is_looked_at_when_it_decides(observed: Observed, seconds: int | None) -> None:
    expected = None if seconds is None else timedelta(seconds=seconds)
    assert plan.next_look(run(), observed, NOW) == expected


def test_a_blocked_start_is_tried_again_also_after_its_deadline_while_the_run_is_suspended() -> None:
    blocked, start = Observed(blocked=Blocked("ConfigMapNotFound", "x")), timedelta(seconds=1800)
    assert plan.next_look(run(), blocked, NOW + start - timedelta(seconds=4)) == timedelta(seconds=4)
    assert plan.next_look(run({"suspend": True}), blocked, NOW + start) == timedelta(seconds=10)


def test_a_moment_that_has_passed_is_looked_at_now() -> None:
    assert plan.next_look(run(), Observed(job=job(), pods=(pod(),)), NOW + timedelta(days=1)) == timedelta(0)


def test_a_job_without_a_pod_is_asked_why_now_and_then() -> None:
    lacking = Observed(job=job(), pods=(pod(phase="Failed"),))
    assert plan.next_look(run(), lacking, NOW) == timedelta(seconds=15)
    assert plan.next_look(run(), lacking, NOW + timedelta(seconds=15)) == timedelta(seconds=30)


def test_a_suspended_run_waits_for_nothing() -> None:
    assert plan.next_look(run(), Observed(job=job(suspend=True, start_time=None)), NOW) is None


def test_the_driver_that_was_brought_is_asked_of_the_node_by_the_job_alone() -> None:
    brought = replace(NVIDIA, driver="550.54.14")
    with_driver, without = plan.desired_objects(a100(), brought), plan.desired_objects(a100(), NVIDIA)
    assert with_driver[:-1] == without[:-1]
    assert "550.54.14" in json.dumps(with_driver[-1]["spec"]["template"]["spec"]["affinity"])
    assert "affinity" not in without[-1]["spec"]["template"]["spec"]
    # Which driver a branch means is not the run's configuration: the digest stays comparable.
    assert plan.config_digest(a100(), brought) == plan.config_digest(a100(), NVIDIA)
