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
    return {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}


def named(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


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
def test_a_run_has_no_rights_in_the_cluster_and_by_default_none_on_the_node(case: Case) -> None:
    assert pod(case)["automountServiceAccountToken"] is False
    assert pod(case)["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostPID", "hostIPC", "serviceAccountName"} & set(pod(case))
    for container in containers(case).values():
        assert "privileged" not in container["securityContext"]
    if case.run.spec.security_profile == "Minimal":
        assert not {"hostNetwork", "dnsPolicy"} & set(pod(case))
        for container in containers(case).values():
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert not {"seccompProfile", "appArmorProfile"} & set(container["securityContext"])


@EVERY
def test_collect_has_no_privilege_whatever_the_harness_has(case: Case) -> None:
    recovery = objects(case)["job-golden-collect"]["spec"]["template"]["spec"]
    assert not {"hostNetwork", "dnsPolicy"} & set(recovery)
    for container in (containers(case)["collect"], recovery["containers"][0]):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        }


def test_harness_parity_gives_the_stages_what_nvidias_launcher_gives_and_the_copy_of_the_code_nothing() -> None:
    case = named("nvidia-harness-parity-max-q")
    assert pod(case)["hostNetwork"] is True
    assert pod(case)["dnsPolicy"] == "ClusterFirstWithHostNet"
    device = {"name": "device-0", "hostPath": {"path": "/dev/fuse", "type": "CharDevice"}}
    assert device in pod(case)["volumes"]
    unconfined = {"type": "Unconfined"}
    for name, container in containers(case).items():
        if name in ("code", "collect"):
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert "/dev/fuse" not in str(container)
            continue
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": True,
            "capabilities": {"add": ["IPC_LOCK", "SYS_ADMIN", "SYS_TIME"]},
            "seccompProfile": unconfined,
            "appArmorProfile": unconfined,
        }
        assert {"name": "device-0", "mountPath": "/dev/fuse"} in container["volumeMounts"]


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ({}, False),
        ({"securityProfile": "HarnessParity"}, True),
        ({"powerSetting": "MaxQ"}, True),
    ],
)
def test_the_nodes_name_is_told_where_power_or_parity_need_it(spec: dict[str, Any], *, wanted: bool) -> None:
    name = {"name": "HOST_HOSTNAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}
    made = build_job(a100(**spec), BUILT_IN["nvidia-v4.1"], IMAGES, [], "digest")["spec"]["template"]["spec"]
    assert [name in container["env"] for container in made["containers"]] == [wanted]
    reference = build_job(run(spec), BUILT_IN["reference-cpu"], IMAGES, [], "digest")["spec"]["template"]["spec"]
    assert name not in reference["containers"][0]["env"]


def test_code_of_a_claim_is_read_only_and_in_the_container_that_copies_it_alone() -> None:
    case = named("nvidia-code-of-a-claim")
    claim = {"claimName": "mlperf-code", "readOnly": True}
    assert {"name": "code", "persistentVolumeClaim": claim} in pod(case)["volumes"]
    with_it = {n: c for n, c in containers(case).items() if any(m["name"] == "code" for m in c["volumeMounts"])}
    assert list(with_it) == ["code"]
    assert {"name": "code", "mountPath": "/code", "readOnly": True} in with_it["code"]["volumeMounts"]


def test_code_of_an_image_is_copied_by_that_image_and_run_by_the_harnesss() -> None:
    case = named("nvidia-code-of-an-image")
    images = {name: container["image"] for name, container in containers(case).items() if name != "collect"}
    assert images.pop("code") == "registry.example/mlperf-code:v4.1"
    assert set(images.values()) == {BUILT_IN["nvidia-v4.1"].image}
    # Its entrypoint may be anything.
    assert containers(case)["code"]["command"] == ["python3", "/agent/stage.py", "code"]


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
            assert container["resources"]["limits"]["nvidia.com/gpu"] == case.run.spec.system.rpartition("x")[2]
        else:
            assert environment(container)["NVIDIA_VISIBLE_DEVICES"] == "all"
            assert pod(case)["runtimeClassName"] == "nvidia"


@NVIDIA
def test_nvidias_image_keeps_its_entrypoint_its_locked_memory_and_its_shared_memory(case: Case) -> None:
    assert {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": str(32 * 1024**3)}} in pod(case)["volumes"]
    for name, container in containers(case).items():
        if name == "collect":
            continue
        own_image = container["image"] == (case.run.spec.image or BUILT_IN["nvidia-v4.1"].image)
        assert container["args" if own_image else "command"] == ["python3", "/agent/stage.py", name]
        assert ("args" in container) != ("command" in container)
        assert "IPC_LOCK" in container["securityContext"]["capabilities"]["add"]
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
