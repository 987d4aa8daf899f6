"""Volumes of the run's pod, and the claims that the operator makes for them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mlperf_operator import naming
from mlperf_operator.api.v1alpha1 import Artifacts, EmptyDirVolume, MLPerfRun, SecurityProfile, VolumeSpec
from mlperf_operator.resources.configmaps import key_of
from mlperf_operator.resources.confine import FOLDER_TYPE
from mlperf_operator.resources.steps import AGENT_PATH, CODE_PATH, OVERRIDES_PATH, PATHS
from mlperf_operator.suites import Suite

SCRATCH = "scratch"
RESULTS = "results"
CODE = "code"
"""Name of the container that copies the code tree, and of the volume that it alone sees."""


def claims(run: MLPerfRun) -> list[dict[str, Any]]:
    """Build the claims of the volumes that ask for one."""
    return [
        _claim(run, name, volume)
        for name, volume in ((SCRATCH, run.spec.scratch), (RESULTS, run.spec.results))
        if volume is not None and volume.claim_template is not None
    ]


def _claim(run: MLPerfRun, name: str, volume: VolumeSpec) -> dict[str, Any]:
    template = volume.claim_template
    if template is None:
        msg = f"{name} has no claimTemplate"
        raise ValueError(msg)
    spec: dict[str, Any] = {
        "accessModes": [template.access_mode],
        "resources": {"requests": {"storage": template.size}},
    }
    if template.storage_class_name:
        spec["storageClassName"] = template.storage_class_name
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": naming.metadata(run, naming.claim_name(run, name), name, owned=template.delete_with_run),
        "spec": spec,
    }


def volumes(run: MLPerfRun, suite: Suite, override_paths: Iterable[str]) -> list[dict[str, Any]]:
    """Build the pod's volumes."""
    items = [{"key": key_of(path), "path": path} for path in sorted(override_paths)]
    built: list[dict[str, Any]] = [
        _agent_volume(run),
        {"name": "overrides", "configMap": {"name": naming.gpu_config_map_name(run), "items": items}},
        {"name": SCRATCH, **_source(run, SCRATCH, scratch_of(run))},
    ]
    if run.spec.results is not None:
        built.append({"name": RESULTS, **_source(run, RESULTS, run.spec.results)})
    if suite.shm_bytes:
        built.append({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": str(suite.shm_bytes)}})
    if run.spec.code is not None and run.spec.code.claim_name is not None:
        claim = {"claimName": run.spec.code.claim_name, "readOnly": True}
        built.append({"name": CODE, "persistentVolumeClaim": claim})
    return built + [
        {"name": name, "hostPath": {"path": path, "type": "CharDevice"}} for name, path in _devices(run, suite)
    ]


def _devices(run: MLPerfRun, suite: Suite) -> list[tuple[str, str]]:
    if run.spec.security_profile is not SecurityProfile.HARNESS_PARITY:
        return []
    return [(f"device-{number}", path) for number, path in enumerate(suite.device_paths)]


def collect_volumes(run: MLPerfRun) -> list[dict[str, Any]]:
    """Build the volumes that `collect` alone needs: its plan and the results."""
    name, volume = (RESULTS, run.spec.results) if run.spec.results is not None else (SCRATCH, scratch_of(run))
    return [_agent_volume(run), {"name": name, **_source(run, name, volume)}]


def _agent_volume(run: MLPerfRun) -> dict[str, Any]:
    return {"name": "agent", "configMap": {"name": naming.agent_config_map_name(run), "defaultMode": 0o555}}


def scratch_of(run: MLPerfRun) -> VolumeSpec:
    """Return the run's scratch; suites that need no lasting one get an emptyDir."""
    return run.spec.scratch or VolumeSpec(empty_dir=EmptyDirVolume())


def _source(run: MLPerfRun, name: str, volume: VolumeSpec) -> dict[str, Any]:
    if volume.host_path is not None:
        return {"hostPath": {"path": volume.host_path.path, "type": FOLDER_TYPE}}
    if volume.empty_dir is not None:
        source: dict[str, str] = {"medium": "Memory"} if volume.empty_dir.medium == "Memory" else {}
        if volume.empty_dir.size_limit:
            source["sizeLimit"] = volume.empty_dir.size_limit
        return {"emptyDir": source}
    return {"persistentVolumeClaim": {"claimName": volume.claim_name or naming.claim_name(run, name)}}


def harness_mounts(run: MLPerfRun, suite: Suite, stage: str) -> list[dict[str, Any]]:
    """Build the mounts of a harness container."""
    private = private_folder(run)
    mounts: list[dict[str, Any]] = [
        {"name": "agent", "mountPath": AGENT_PATH, "readOnly": True},
        {"name": "overrides", "mountPath": OVERRIDES_PATH, "readOnly": True},
        {"name": SCRATCH, "mountPath": PATHS["scratch"]},
        {"name": SCRATCH, "mountPath": PATHS["work"], "subPath": f"{private}/work"},
        {"name": SCRATCH, "mountPath": PATHS["state"], "subPath": f"{private}/state"},
        results_mount(run),
    ]
    if suite.shm_bytes:
        mounts.append({"name": "shm", "mountPath": "/dev/shm"})  # noqa: S108 - the kernel's shared memory, no temp file
    if stage != CODE:
        return mounts + [{"name": name, "mountPath": path} for name, path in _devices(run, suite)]
    if run.spec.code is not None and run.spec.code.claim_name is not None:
        mounts.append({"name": CODE, "mountPath": CODE_PATH, "readOnly": True})
    return mounts


def collect_mounts(run: MLPerfRun) -> list[dict[str, Any]]:
    """Build the mounts of `collect`, which sees the plan and this run's results and nothing else."""
    return [{"name": "agent", "mountPath": AGENT_PATH, "readOnly": True}, results_mount(run)]


def results_mount(run: MLPerfRun) -> dict[str, Any]:
    """Build the mount of the run's own results folder, which no other run has."""
    volume, folder = (RESULTS, run_folder(run)) if run.spec.results else (SCRATCH, f"{private_folder(run)}/results")
    return {"name": volume, "mountPath": PATHS["results"], "subPath": folder}


def private_folder(run: MLPerfRun) -> str:
    """Folder on scratch of this run alone; its uid keeps it apart from an earlier run of the same name."""
    return f".mlperf/runs/{run.metadata.uid}"


def run_folder(run: MLPerfRun) -> str:
    """Folder of this run alone on a results volume."""
    return f"{run.metadata.namespace}/{run.metadata.name}/{run.metadata.uid}"


def artifacts(run: MLPerfRun) -> Artifacts:
    """Say where the run's logs and results are kept."""
    mount = results_mount(run)
    volume = run.spec.results or scratch_of(run)
    claim = volume.claim_name
    if volume.claim_template is not None:
        claim = naming.claim_name(run, mount["name"])
    base = f"{volume.host_path.path.rstrip('/')}/" if volume.host_path else ""
    return Artifacts(claim=claim, path=f"{base}{mount['subPath']}")


def outlives_pod(run: MLPerfRun) -> bool:
    """Say whether the results can still be read when the pod is gone."""
    return (run.spec.results or scratch_of(run)).empty_dir is None
