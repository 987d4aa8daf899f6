"""What holds for the Job of every run; the whole of it is in tests/golden."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from golden.cases import CASES, Case, objects
from mlperf_operator.resources.containers import PREPARE_STAGES
from mlperf_operator.resources.job import job as build_job
from mlperf_operator.suites import BUILT_IN
from unit.core.builders import IMAGES, a100, run

EVERY = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
NVIDIA = pytest.mark.parametrize("case", [c for c in CASES if c.name.startswith("nvidia")], ids=lambda case: case.name)
REFERENCE = pytest.mark.parametrize("case", [c for c in CASES if c.name.startswith("ref")], ids=lambda case: case.name)


def job(case: Case) -> dict[str, Any]:
    return objects(case)["job-golden"]


def pod(case: Case) -> dict[str, Any]:
    return dict(job(case)["spec"]["template"]["spec"])


def containers(case: Case) -> dict[str, dict[str, Any]]:
    return {c["name"]: c for c in [*pod(case)["initContainers"], *pod(case)["containers"]]}


def environment(container: dict[str, Any]) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in container["env"]}


@EVERY
def test_the_stages_are_in_order_and_collect_stands_beside_run(case: Case) -> None:
    assert list(containers(case)) == [*PREPARE_STAGES, "collect", "run"]
    assert [c["name"] for c in pod(case)["initContainers"] if c.get("restartPolicy") == "Always"] == ["collect"]


@EVERY
def test_the_deadline_is_the_pods_since_a_jobs_deletes_the_logs(case: Case) -> None:
    assert "activeDeadlineSeconds" not in job(case)["spec"]
    assert "ttlSecondsAfterFinished" not in job(case)["spec"]
    assert pod(case)["activeDeadlineSeconds"] == 172800
    assert pod(case)["terminationGracePeriodSeconds"] == 300
    assert pod(case)["restartPolicy"] == "Never"


@EVERY
def test_a_disruption_is_no_failure_and_each_stage_fails_for_itself(case: Case) -> None:
    first, *rules = job(case)["spec"]["podFailurePolicy"]["rules"]
    assert first == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    assert [rule["onExitCodes"]["containerName"] for rule in rules] == [*PREPARE_STAGES, "run"]
    for rule in rules:
        assert rule["action"] == "FailJob"
        assert rule["onExitCodes"]["values"] == [64, 65]


@EVERY
def test_a_run_has_no_rights_in_the_cluster_and_none_on_the_node(case: Case) -> None:
    assert pod(case)["automountServiceAccountToken"] is False
    assert pod(case)["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC", "serviceAccountName"} & set(pod(case))
    for container in containers(case).values():
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert "privileged" not in container["securityContext"]
    collect = containers(case)["collect"]["securityContext"]
    assert collect["capabilities"] == {"drop": ["ALL"]}
    assert collect["readOnlyRootFilesystem"] is True


@EVERY
def test_every_stage_stands_in_the_tree_and_nothing_is_mounted_below_its_build(case: Case) -> None:
    for name, container in containers(case).items():
        if name == "collect":
            continue
        assert container["workingDir"] == "/work"
        paths = {mount["mountPath"] for mount in container["volumeMounts"]}
        assert paths >= {"/agent", "/overrides", "/scratch", "/work", "/state", "/results"}
        assert not [path for path in paths if path.startswith("/work/")]
        assert environment(container)["MLPERF_SCRATCH_PATH"] == "/scratch"
        assert environment(container)["MLPINF_CUSTOM_DEFINITION_PATH"] == "/overrides"


@EVERY
def test_collect_sees_its_plan_and_its_own_results_only(case: Case) -> None:
    mounts = {mount["mountPath"]: mount for mount in containers(case)["collect"]["volumeMounts"]}
    assert set(mounts) == {"/agent", "/results"}
    assert case.run.metadata.uid in mounts["/results"]["subPath"]


@EVERY
def test_every_file_of_the_overrides_is_mounted_at_its_path(case: Case) -> None:
    [volume] = [volume for volume in pod(case)["volumes"] if volume["name"] == "overrides"]
    kept = objects(case)["configmap-golden-gpu-config"]["data"]
    assert {item["key"] for item in volume["configMap"]["items"]} == set(kept)
    for item in volume["configMap"]["items"]:
        assert item["key"] == item["path"].replace("/", "__")


@NVIDIA
def test_only_preflight_and_run_see_the_gpus(case: Case) -> None:
    for name, container in containers(case).items():
        if name == "collect":
            continue
        with_gpus = name in ("preflight", "run")
        blind = {"NVIDIA_VISIBLE_DEVICES": "void", "SKIP_DRIVER_CHECK": "1"}
        assert (environment(container).items() >= blind.items()) != with_gpus
        if not with_gpus:
            assert "nvidia.com/gpu" not in container["resources"].get("limits", {})
        elif case.run.spec.gpu.access == "DevicePlugin":
            assert container["resources"]["limits"]["nvidia.com/gpu"] == "8"
        else:
            assert environment(container)["NVIDIA_VISIBLE_DEVICES"] == "all"
            assert pod(case)["runtimeClassName"] == "nvidia"


@NVIDIA
def test_nvidias_image_keeps_its_entrypoint_its_locked_memory_and_its_shared_memory(case: Case) -> None:
    assert {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": str(32 * 1024**3)}} in pod(case)["volumes"]
    for name, container in containers(case).items():
        if name == "collect":
            continue
        assert "command" not in container
        assert container["args"] == ["python3", "/agent/stage.py", name]
        assert container["securityContext"]["capabilities"] == {"add": ["IPC_LOCK"]}
        assert {"name": "shm", "mountPath": "/dev/shm"} in container["volumeMounts"]
        assert environment(container)["EXTERNAL_USER"] == "1"


@REFERENCE
def test_the_reference_suite_runs_where_nothing_is_allowed(case: Case) -> None:
    assert pod(case)["securityContext"]["runAsNonRoot"] is True
    assert pod(case)["securityContext"]["runAsUser"] != 0
    for container in containers(case).values():
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert "nvidia.com/gpu" not in str(container["resources"])
    assert not any("hostPath" in volume for volume in pod(case)["volumes"])


def test_each_mode_has_a_log_folder_of_its_own_by_an_absolute_path() -> None:
    plan = json.loads(objects(CASES[0])["configmap-golden-agent"]["data"]["plan.json"])
    folders = [step["env"]["LOG_DIR"] for step in plan["stages"]["run"]["steps"]]
    assert len(set(folders)) == len(folders) == 15
    assert all(folder.startswith("/results/logs/") for folder in folders)


@pytest.mark.parametrize(
    ("access", "setting", "wanted"),
    [
        ("DevicePlugin", "", None),
        ("DevicePlugin", "nvidia-cdi", "nvidia-cdi"),
        ("RuntimeClass", "", "nvidia"),
        ("RuntimeClass", "nvidia-cdi", "nvidia-cdi"),
    ],
)
def test_the_administrator_names_the_runtime_class_that_brings_gpus_in(
    access: str, setting: str, wanted: str | None
) -> None:
    images = replace(IMAGES, gpu_runtime_class=setting)
    made = build_job(a100(gpu={"access": access}), BUILT_IN["nvidia-v4.1"], images, [], "digest")
    assert made["spec"]["template"]["spec"].get("runtimeClassName") == wanted
    without = build_job(run(), BUILT_IN["reference-cpu"], images, [], "digest")
    assert "runtimeClassName" not in without["spec"]["template"]["spec"]


def test_a_pod_that_needs_a_driver_goes_only_where_exactly_that_one_is_ready() -> None:
    made = build_job(a100(), BUILT_IN["nvidia-v4.1"], IMAGES, [], "digest", driver="550.54.14")
    affinity = made["spec"]["template"]["spec"]["affinity"]
    [term] = affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert term == {"matchExpressions": [{"key": "mlperf.dev/driver-ready", "operator": "In", "values": ["550.54.14"]}]}
    without = build_job(a100(), BUILT_IN["nvidia-v4.1"], IMAGES, [], "digest")
    assert "affinity" not in without["spec"]["template"]["spec"]
