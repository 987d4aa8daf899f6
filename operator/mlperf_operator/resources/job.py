"""The run's Job, and the Job that reads results again when `collect` could not report them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mlperf_operator import naming
from mlperf_operator.api.v1alpha1 import GpuAccess, MLPerfRun, to_wire
from mlperf_operator.grants import has_parity
from mlperf_operator.resources.confine import confined
from mlperf_operator.resources.containers import (
    COLLECT,
    PREPARE_STAGES,
    RUN,
    collect_container,
    harness_container,
    pod_security_context,
)
from mlperf_operator.resources.volumes import collect_volumes, volumes
from mlperf_operator.suites import Suite

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
CONFIG_DIGEST_ANNOTATION = "mlperf.dev/config-digest"

GRACE_SECONDS = 300
"""Time for `collect` to finalise after SIGTERM."""

FAIL_CODES = (64, 65)
"""Exit codes of the stage wrapper that no retry can mend: configuration, stage failed."""

RECOVERY_BACKOFF_LIMIT = 2
DEFAULT_GPU_RUNTIME_CLASS = "nvidia"


@dataclass(frozen=True)
class Images:
    """Images of a run's containers, how they are pulled, and the RuntimeClass that brings GPUs in."""

    harness: str
    operator: str
    pull_policy: str
    gpu_runtime_class: str = ""
    """Empty: NVIDIA's runtime is the default one."""


@dataclass(frozen=True)
class Bounds:
    """What the administrator holds the pods of runs to."""

    host_paths: tuple[str, ...] = ()
    """Folders of the node that they may mount."""
    children_policy: str = ""
    """Uid of the admission policy's binding under which their Job is made, where there is one."""


NO_BOUNDS = Bounds()


def job(
    run: MLPerfRun,
    suite: Suite,
    images: Images,
    override_paths: Iterable[str],
    config_digest: str,
    *,
    driver: str | None = None,
    bounds: Bounds = NO_BOUNDS,
) -> dict[str, Any]:
    """Build the run's Job. It is created once and never changed but for `suspend`.

    With a driver version, the pod goes only where exactly that one is ready.

    Raises:
        HostPathError: a volume lies under none of the host paths that the administrator allows.
    """
    spec = run.spec
    metadata = naming.metadata(run, naming.job_name(run), RUN)
    metadata["annotations"] = {CONFIG_DIGEST_ANNOTATION: config_digest}
    if spec.queue_name:
        metadata["labels"][QUEUE_LABEL] = spec.queue_name
    harness = [*PREPARE_STAGES, RUN]
    containers = {name: harness_container(run, suite, images.harness, images.pull_policy, name) for name in harness}
    collect = collect_container(run, images.operator, images.pull_policy)
    pod = {
        **_pod_spec(run, suite, volumes(run, suite, override_paths)),
        **_host_network(run),
        **_runtime_class(run, suite, images),
        **_driver_affinity(driver),
        "activeDeadlineSeconds": spec.run_timeout_seconds,
        "initContainers": [*(containers[name] for name in PREPARE_STAGES), collect],
        "containers": [containers[RUN]],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {
            "backoffLimit": spec.backoff_limit,
            "completions": 1,
            "parallelism": 1,
            "suspend": spec.suspend or spec.queue_name is not None,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {"rules": _failure_rules(harness)},
            "template": _template(run, RUN, pod, bounds),
        },
    }


def _template(run: MLPerfRun, component: str, pod: dict[str, Any], bounds: Bounds) -> dict[str, Any]:
    metadata: dict[str, Any] = {"labels": naming.labels(run, component)}
    if bounds.children_policy:
        metadata["annotations"] = {naming.CHILDREN_POLICY_ANNOTATION: bounds.children_policy}
    return {"metadata": metadata, "spec": confined(pod, bounds.host_paths)}


def _failure_rules(containers: Iterable[str]) -> list[dict[str, Any]]:
    # A rule without a container name would match the sidecar's 143 too.
    disrupted = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    return [disrupted] + [
        {
            "action": "FailJob",
            "onExitCodes": {"containerName": name, "operator": "In", "values": list(FAIL_CODES)},
        }
        for name in containers
    ]


def _pod_spec(run: MLPerfRun, suite: Suite, pod_volumes: list[dict[str, Any]]) -> dict[str, Any]:
    spec = run.spec
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": pod_security_context(suite),
        "volumes": pod_volumes,
    }
    if spec.node_selector:
        pod["nodeSelector"] = dict(spec.node_selector)
    if spec.tolerations:
        pod["tolerations"] = [to_wire(toleration) for toleration in spec.tolerations]
    if spec.image_pull_secrets:
        pod["imagePullSecrets"] = [to_wire(secret) for secret in spec.image_pull_secrets]
    return pod


def _host_network(run: MLPerfRun) -> dict[str, Any]:
    # The cluster's names must still be found: the upload may go to one.
    return {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"} if has_parity(run) else {}


def _driver_affinity(version: str | None) -> dict[str, Any]:
    if version is None:
        return {}
    ready = {"key": naming.DRIVER_READY_LABEL, "operator": "In", "values": [version]}
    return {"affinity": required_nodes({"matchExpressions": [ready]})}


def required_nodes(term: Mapping[str, Any]) -> dict[str, Any]:
    """Build the affinity for nodes that one term selects."""
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [dict(term)]}}}


def _runtime_class(run: MLPerfRun, suite: Suite, images: Images) -> dict[str, str]:
    name = images.gpu_runtime_class
    if run.spec.gpu.access is GpuAccess.RUNTIME_CLASS:
        name = name or DEFAULT_GPU_RUNTIME_CLASS
    return {"runtimeClassName": name} if suite.uses_gpu and name else {}


def recovery_job(
    run: MLPerfRun, suite: Suite, images: Images, node: str | None, bounds: Bounds = NO_BOUNDS
) -> dict[str, Any]:
    """Build the Job that runs `collect --once` on the run's results volume, on the node that may hold it.

    Raises:
        HostPathError: the volume lies under none of the host paths that the administrator allows by now.
    """
    container = collect_container(run, images.operator, images.pull_policy)
    del container["restartPolicy"]
    container["command"] = [*container["command"], "--once"]
    pod = _pod_spec(run, suite, collect_volumes(run))
    if node is not None:
        field = {"key": "metadata.name", "operator": "In", "values": [node]}
        pod["affinity"] = required_nodes({"matchFields": [field]})
    pod["containers"] = [container]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": naming.metadata(run, naming.recovery_job_name(run), COLLECT),
        "spec": {
            "backoffLimit": RECOVERY_BACKOFF_LIMIT,
            "activeDeadlineSeconds": 2 * GRACE_SECONDS,
            "template": _template(run, COLLECT, pod, bounds),
        },
    }
