"""Signs that somebody else manages a node's driver: then it is never touched.

Source: NVIDIA's gpu-operator and k8s-driver-manager, and GKE's node labels (docs/driver.md lists them).
"""

from __future__ import annotations

from collections.abc import Mapping

UPGRADE_ANNOTATION = "nvidia.com/gpu-driver-upgrade-enabled"
WATCHED_ANNOTATIONS = frozenset({UPGRADE_ANNOTATION})

OWNER_LABEL = "nvidia.com/gpu-operator.driver.owner"
DEPLOY_LABEL = "nvidia.com/gpu.deploy.driver"
UPGRADE_STATE_LABEL = "nvidia.com/gpu-driver-upgrade-state"
GKE_LABEL = "cloud.google.com/gke-gpu-driver-version"

FOREIGN_LABELS: Mapping[str, str] = {"app.kubernetes.io/component": "nvidia-driver"}
"""Labels of somebody else's driver pods."""

FOREIGN_SELECTOR = ",".join(f"{key}={value}" for key, value in FOREIGN_LABELS.items())

DEPLOYED = frozenset({"true", "pre-installed", "paused-for-driver-upgrade"})


def manager_of(labels: Mapping[str, str], annotations: Mapping[str, str], foreign_pods: tuple[str, ...]) -> str:
    """Return who manages the node's driver and by which sign one sees it, or nothing where nobody does."""
    gpu_operator = "NVIDIA's GPU operator"
    if labels.get(OWNER_LABEL):
        return f"{gpu_operator} (label {OWNER_LABEL}={labels[OWNER_LABEL]})"
    if labels.get(DEPLOY_LABEL) in DEPLOYED:
        return f"{gpu_operator} (label {DEPLOY_LABEL}={labels[DEPLOY_LABEL]})"
    if UPGRADE_STATE_LABEL in labels:
        return f"{gpu_operator} (label {UPGRADE_STATE_LABEL}={labels[UPGRADE_STATE_LABEL]})"
    if annotations.get(UPGRADE_ANNOTATION) == "true":
        return f"{gpu_operator} (annotation {UPGRADE_ANNOTATION}=true)"
    if GKE_LABEL in labels:
        return f"the cloud (label {GKE_LABEL}={labels[GKE_LABEL]})"
    return f"a driver container (pod {foreign_pods[0]})" if foreign_pods else ""
