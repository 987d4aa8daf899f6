"""The privileged DaemonSet that makes a node's driver match and keeps verifying it: one a mode and exact version."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlperf_operator import naming
from mlperf_operator.api.v1alpha1 import to_wire
from mlperf_operator.catalogue import Driver, DriverSettings, Mode, target
from mlperf_operator.driver_signs import (
    DEPLOY_LABEL,
    DEPLOYED,
    FOREIGN_LABELS,
    GKE_LABEL,
    OWNER_LABEL,
    UPGRADE_STATE_LABEL,
)
from mlperf_operator.resources.job import required_nodes

ENSURE, VERIFY = "ensure", "verify"
"""The two containers of a driver pod."""

HOST = "/host"

GRACE_SECONDS = 900
"""Time for the package manager to finish a transaction after SIGTERM."""

_READY_SECONDS = 1
"""How often the kubelet asks: the label follows the truth within seconds."""


@dataclass(frozen=True)
class DriverImages:
    """The image of the driver pods and how it is pulled."""

    operator: str
    pull_policy: str
    pull_secrets: tuple[str, ...] = ()


@dataclass(frozen=True)
class Home:
    """Where the driver pods are."""

    namespace: str
    owner: str = ""
    """ConfigMap there with which they go: the chart's, so that none is left when it is uninstalled."""


def driver_daemon_set(
    mode: Mode, driver: Driver | None, settings: DriverSettings, images: DriverImages, namespace: str
) -> dict[str, Any]:
    """Build the DaemonSet of a mode and an exact version; mode Verify has no version."""
    labels = selector_labels(mode, driver)
    pod = _pod_spec(mode, driver, settings, images)
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": daemon_set_name(mode, driver), "namespace": namespace, "labels": labels},
        "spec": {
            "selector": {"matchLabels": labels},
            # Rolled by the operator, and only on idle nodes.
            "updateStrategy": {"type": "OnDelete"},
            "template": {"metadata": {"labels": {**labels, naming.DRIVER_DIGEST_LABEL: _digest(pod)}}, "spec": pod},
        },
    }


def with_owner(body: Mapping[str, Any], config_map: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object that the garbage collector deletes with a ConfigMap of its namespace."""
    meta = config_map["metadata"]
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": meta["name"], "uid": meta["uid"]}
    return {**body, "metadata": {**body["metadata"], "ownerReferences": [owner]}}


def daemon_set_name(mode: Mode, driver: Driver | None) -> str:
    """Name of the DaemonSet of a mode and version, such as mlperf-driver-550-54-14."""
    version = driver.version.replace(".", "-") if driver is not None else ""
    suffix = "" if mode == "Install" else mode.lower()
    return "-".join(part for part in ("mlperf-driver", version, suffix) if part)


def selector_labels(mode: Mode, driver: Driver | None) -> dict[str, str]:
    """Labels of the DaemonSet and its pods."""
    return {
        "app.kubernetes.io/name": "mlperf-driver",
        naming.MANAGED_BY_LABEL: naming.MANAGER,
        naming.COMPONENT_LABEL: naming.DRIVER_AGENT,
        naming.DRIVER_MODE_LABEL: mode,
        naming.DRIVER_VERSION_LABEL: driver.version if driver is not None else "",
    }


def template_digest(body: Mapping[str, Any]) -> str:
    """Return the digest that the pods of a DaemonSet carry."""
    return str(body["spec"]["template"]["metadata"]["labels"][naming.DRIVER_DIGEST_LABEL])


def _digest(pod: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(pod, sort_keys=True).encode()).hexdigest()[:16]


def _pod_spec(mode: Mode, driver: Driver | None, settings: DriverSettings, images: DriverImages) -> dict[str, Any]:
    verify = _container(VERIFY, mode, driver, settings, images)
    verify["readinessProbe"] = {
        "httpGet": {"host": "127.0.0.1", "port": settings.verify_port, "path": "/ready"},
        "periodSeconds": _READY_SECONDS,
        "timeoutSeconds": 2,
        "failureThreshold": 1,
    }
    spec: dict[str, Any] = {
        "affinity": _affinity(mode, driver),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        # The host's processes are looked at for users of a GPU, and its package manager needs the host's network.
        "hostPID": True,
        "hostNetwork": True,
        "priorityClassName": "system-node-critical",
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "tolerations": [to_wire(toleration) for toleration in settings.tolerations],
        "initContainers": [_container(ENSURE, mode, driver, settings, images)],
        "containers": [verify],
        "volumes": [{"name": "host", "hostPath": {"path": settings.host_root, "type": "Directory"}}],
    }
    if images.pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in images.pull_secrets]
    return spec


def _container(
    name: str, mode: Mode, driver: Driver | None, settings: DriverSettings, images: DriverImages
) -> dict[str, Any]:
    return {
        "name": name,
        "image": images.operator,
        "imagePullPolicy": images.pull_policy,
        "command": ["python3", "-m", "mlperf_operator.agent.driver", name],
        "env": [
            {"name": "MLPERF_DRIVER_TARGET", "value": target(settings, mode, driver).model_dump_json(by_alias=True)},
            {"name": "MLPERF_HOST_ROOT", "value": HOST},
            {"name": "MLPERF_VERIFY_PORT", "value": str(settings.verify_port)},
        ],
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
        "securityContext": {"privileged": True, "runAsUser": 0},
        "terminationMessagePolicy": "File",
        "volumeMounts": [_host_mount(mode, settings)],
    }


def _host_mount(mode: Mode, settings: DriverSettings) -> dict[str, Any]:
    mount: dict[str, Any] = {"name": "host", "mountPath": HOST, "readOnly": mode == "Verify"}
    if settings.host_root == "/":
        # What is mounted later, such as a driver container's root, is seen too; other folders are no shared mounts.
        mount["mountPropagation"] = "HostToContainer"
    return mount


def _affinity(mode: Mode, driver: Driver | None) -> dict[str, Any]:
    opted_in = {"key": naming.DRIVER_OPT_IN_LABEL, "operator": "In", "values": [mode.lower()]}
    if driver is None:
        return required_nodes({"matchExpressions": [opted_in]})
    unmanaged = [{"key": key, "operator": "DoesNotExist"} for key in (OWNER_LABEL, UPGRADE_STATE_LABEL, GKE_LABEL)]
    expressions = [
        opted_in,
        {"key": naming.DRIVER_WANTED_LABEL, "operator": "In", "values": [driver.version]},
        *unmanaged,
        {"key": DEPLOY_LABEL, "operator": "NotIn", "values": sorted(DEPLOYED)},
    ]
    apart = {
        "labelSelector": {"matchLabels": dict(FOREIGN_LABELS)},
        "namespaceSelector": {},
        "topologyKey": "kubernetes.io/hostname",
    }
    return {
        **required_nodes({"matchExpressions": expressions}),
        "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [apart]},
    }
