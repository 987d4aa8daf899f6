"""Names, labels and owner references of everything that belongs to a run."""

from __future__ import annotations

from typing import Any

from mlperf_operator.api.v1alpha1 import API_VERSION, GROUP, KIND, MLPerfRun

MANAGER = "mlperf-operator"
"""Field manager of server-side apply and value of the managed-by label."""

MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
RUN_LABEL = f"{GROUP}/run"
RUN_UID_LABEL = f"{GROUP}/run-uid"
COMPONENT_LABEL = "app.kubernetes.io/component"
SELECTOR = f"{MANAGED_BY_LABEL}={MANAGER}"

CHILDREN_POLICY_ANNOTATION = f"{GROUP}/children-policy"
"""On the pods of a run: under which admission policy the operator made their Job (children_policy.py)."""

DRIVER_OPT_IN_LABEL = f"{GROUP}/driver-opt-in"
"""On a node, by its administrator: install, adopt or verify. Without it the operator leaves a node alone."""

DRIVER_WANTED_LABEL = f"{GROUP}/driver-wanted"
DRIVER_LOADED_LABEL = f"{GROUP}/driver-loaded"
"""On a node, by the operator: the version that is loaded and verified; the device plugin runs where it is."""

DRIVER_READY_LABEL = f"{GROUP}/driver-ready"
"""On a node, by the operator: the version with which everything matches, allocatable GPUs too."""

DRIVER_CLAIM_ANNOTATION = f"{GROUP}/driver-claim"
"""On a node: the runs that want its driver (nodes/claims.py)."""

DRIVER_REPORT_ANNOTATION = f"{GROUP}/driver-report"
"""On a node: how its driver stands and why (nodes/state.py)."""

DRIVER_CORDON_ANNOTATION = f"{GROUP}/driver-cordon"
"""On a node that we cordoned: only such a cordon is ever taken back."""

OWN_PREFIX = f"{GROUP}/"
"""Labels and annotations of this operator begin with it."""

DRIVER_MODE_LABEL = f"{GROUP}/driver-mode"
DRIVER_VERSION_LABEL = f"{GROUP}/driver-version"
DRIVER_DIGEST_LABEL = f"{GROUP}/driver-digest"
"""On a driver pod: what its template was made from; an older one is replaced once its node is idle."""

DRIVER_AGENT = "driver-agent"
"""Component of the driver pods."""

DRIVER_SELECTOR = f"{COMPONENT_LABEL}={DRIVER_AGENT}"

ACCESS_KEY, SECRET_KEY, SESSION_TOKEN = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"
CA_BUNDLE = "S3_CA_BUNDLE"
"""Optional certificates, PEM, of who may sign the store's own, beside those that the image trusts."""

UPLOAD_SECRET_KEYS = (ACCESS_KEY, SECRET_KEY, SESSION_TOKEN, CA_BUNDLE)
"""Keys of an upload's Secret, and the variables that only `collect` gets; the last two are optional."""


def job_name(run: MLPerfRun) -> str:
    """Name of the run's Job: the run's own."""
    return run.metadata.name


def recovery_job_name(run: MLPerfRun) -> str:
    """Name of the Job that reads results again from the volume."""
    return f"{run.metadata.name}-collect"


def agent_config_map_name(run: MLPerfRun) -> str:
    """Name of the ConfigMap with the stage wrapper and its plan."""
    return f"{run.metadata.name}-agent"


def gpu_config_map_name(run: MLPerfRun) -> str:
    """Name of the ConfigMap with the rendered overrides and Makefile.docker."""
    return f"{run.metadata.name}-gpu-config"


def claim_name(run: MLPerfRun, volume: str) -> str:
    """Name of the claim made for the volume `scratch` or `results`."""
    return f"{run.metadata.name}-{volume}"


def labels(run: MLPerfRun, component: str) -> dict[str, str]:
    """Labels of an object that belongs to the run."""
    return {
        "app.kubernetes.io/name": "mlperf-run",
        MANAGED_BY_LABEL: MANAGER,
        COMPONENT_LABEL: component,
        RUN_LABEL: run.metadata.name,
        RUN_UID_LABEL: run.metadata.uid,
    }


def owner_reference(run: MLPerfRun) -> dict[str, Any]:
    """Reference that makes the garbage collector delete an object with its run."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": run.metadata.name,
        "uid": run.metadata.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def metadata(run: MLPerfRun, name: str, component: str, *, owned: bool = True) -> dict[str, Any]:
    """Object metadata of something that belongs to the run; without `owned` it outlives it."""
    meta: dict[str, Any] = {
        "name": name,
        "namespace": run.metadata.namespace,
        "labels": labels(run, component),
    }
    if owned:
        meta["ownerReferences"] = [owner_reference(run)]
    return meta
