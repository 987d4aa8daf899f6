"""Containers of the run's pod: one for each stage, `collect` and `run`."""

from __future__ import annotations

from typing import Any

from mlperf_operator import naming
from mlperf_operator.api.v1alpha1 import (
    GpuAccess,
    MLPerfRun,
    PowerSetting,
    ResourceAmounts,
    to_wire,
)
from mlperf_operator.grants import has_parity
from mlperf_operator.resources.configmaps import PLAN_KEY
from mlperf_operator.resources.steps import AGENT_PATH, OVERRIDES_PATH, PATHS
from mlperf_operator.resources.volumes import CODE, collect_mounts, harness_mounts
from mlperf_operator.suites import STAGE_ORDER, Suite

PREPARE_STAGES = (CODE, "preflight", *STAGE_ORDER)
"""Init containers that must end before `run` starts, in order."""

COLLECT = "collect"
RUN = "run"
GPU_STAGES = ("preflight", RUN)
"""Containers that request GPUs: a device-plugin GPU reaches only containers that ask for it."""

GPU_RESOURCE = "nvidia.com/gpu"
PARITY_CAPABILITIES = ("IPC_LOCK", "SYS_ADMIN", "SYS_TIME")
"""What launch_docker of NVIDIA's Makefile.docker adds; IPC_LOCK stands for its --ulimit memlock=-1."""

HARNESS_UID = 10001
"""User of suites that need no root; any number but 0 serves."""


def harness_container(run: MLPerfRun, suite: Suite, image: str, pull_policy: str, stage: str) -> dict[str, Any]:
    """Build the container of one stage."""
    argv = ["python3", f"{AGENT_PATH}/stage.py", stage]
    foreign = run.spec.code.image if run.spec.code is not None and stage == CODE else None
    keeps_entrypoint = suite.keeps_entrypoint and foreign is None
    return {
        "name": stage,
        "image": foreign or image,
        "imagePullPolicy": pull_policy,
        ("args" if keeps_entrypoint else "command"): argv,
        "workingDir": PATHS["work"],
        "env": [
            *({"name": name, "value": value} for name, value in _environment(run, suite, stage).items()),
            *_host_name(run, suite),
        ],
        "resources": _resources(run, suite, stage),
        "securityContext": _security_context(run, suite, stage),
        "terminationMessagePolicy": "File",
        "volumeMounts": harness_mounts(run, suite, stage),
    }


def _environment(run: MLPerfRun, suite: Suite, stage: str) -> dict[str, str]:
    environment = {
        "MLPERF_PLAN": f"{AGENT_PATH}/{PLAN_KEY}",
        # Set in an image, it would keep stage.py from the files beside it.
        "PYTHONSAFEPATH": "",
        "MLPERF_SCRATCH_PATH": PATHS["scratch"],
        "MLPINF_CUSTOM_DEFINITION_PATH": OVERRIDES_PATH,
        **suite.environment,
    }
    if suite.uses_gpu and stage not in GPU_STAGES:
        environment |= {"NVIDIA_VISIBLE_DEVICES": "void", "SKIP_DRIVER_CHECK": "1"}
    elif suite.uses_gpu and run.spec.gpu.access is GpuAccess.RUNTIME_CLASS:
        environment["NVIDIA_VISIBLE_DEVICES"] = "all"
    return environment


def _host_name(run: MLPerfRun, suite: Suite) -> list[dict[str, Any]]:
    # Makefile.power chooses the power meter by it; without, it is the container's name.
    wanted = run.spec.power_setting is PowerSetting.MAX_Q or has_parity(run)
    if not (suite.uses_gpu and wanted):
        return []
    return [{"name": "HOST_HOSTNAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}]


def _resources(run: MLPerfRun, suite: Suite, stage: str) -> dict[str, Any]:
    resources: dict[str, dict[str, str]] = {}
    for key, amounts in (("requests", run.spec.resources.requests), ("limits", run.spec.resources.limits)):
        if amounts is not None:
            resources[key] = _amounts(amounts)
    if suite.uses_gpu and stage in GPU_STAGES and run.spec.gpu.access is GpuAccess.DEVICE_PLUGIN:
        count = run.spec.gpu.count or suite.systems[run.spec.system].gpu_count
        resources.setdefault("limits", {})[GPU_RESOURCE] = str(count)
    return resources


def _amounts(amounts: ResourceAmounts) -> dict[str, str]:
    return dict(to_wire(amounts))


def _security_context(run: MLPerfRun, suite: Suite, stage: str) -> dict[str, Any]:
    # `code` only copies files.
    if has_parity(run) and stage != CODE:
        return {
            # SYS_ADMIN goes with nothing else.
            "allowPrivilegeEscalation": True,
            "capabilities": {"add": list(PARITY_CAPABILITIES)},
            "seccompProfile": {"type": "Unconfined"},
            "appArmorProfile": {"type": "Unconfined"},
        }
    context: dict[str, Any] = {"allowPrivilegeEscalation": False}
    if suite.run_as_root:
        if suite.memlock:
            context["capabilities"] = {"add": ["IPC_LOCK"]}
        return context
    return {**context, "capabilities": {"drop": ["ALL"]}}


def collect_container(run: MLPerfRun, operator_image: str, pull_policy: str) -> dict[str, Any]:
    """Build the native sidecar that parses results as they appear and reports them."""
    return {
        "name": COLLECT,
        "image": operator_image,
        "imagePullPolicy": pull_policy,
        "restartPolicy": "Always",
        "command": ["python3", "-m", "mlperf_operator.agent.collect"],
        "env": [{"name": "MLPERF_PLAN", "value": f"{AGENT_PATH}/{PLAN_KEY}"}, *_upload_credentials(run)],
        "resources": {"requests": {"cpu": "10m", "memory": "128Mi" if run.spec.upload else "64Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "terminationMessagePolicy": "File",
        "volumeMounts": collect_mounts(run),
    }


def _upload_credentials(run: MLPerfRun) -> list[dict[str, Any]]:
    # Optional: what the Secret lacks is told in the report, and costs no result.
    if run.spec.upload is None:
        return []
    secret = run.spec.upload.s3.credentials_secret.name
    return [
        {"name": key, "valueFrom": {"secretKeyRef": {"name": secret, "key": key, "optional": True}}}
        for key in naming.UPLOAD_SECRET_KEYS
    ]


def pod_security_context(suite: Suite) -> dict[str, Any]:
    """Build the pod's security context: root only for suites whose image needs it."""
    if suite.run_as_root:
        return {"runAsUser": 0, "seccompProfile": {"type": "RuntimeDefault"}}
    return {
        "runAsNonRoot": True,
        "runAsUser": HARNESS_UID,
        "runAsGroup": HARNESS_UID,
        "fsGroup": HARNESS_UID,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
