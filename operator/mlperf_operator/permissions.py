"""What a run may have only because the administrator allows it: pure policies, each of one field."""

from __future__ import annotations

from pathlib import PurePosixPath

from mlperf_operator.api.v1alpha1 import GpuAccess, MLPerfRun
from mlperf_operator.grants import has_parity
from mlperf_operator.host_paths import lies_under
from mlperf_operator.limits import Limits, Policy, Refusal, begins_with, choices, host_path, images_of
from mlperf_operator.parity import (
    images_for_parity,
    nodes_for_parity,
    profile_allowed,
    volumes_apart,
    volumes_for_parity,
)


def _namespace_allowed(run: MLPerfRun, limits: Limits) -> Refusal | None:
    namespace = run.metadata.namespace
    if namespace == limits.own_namespace:
        return Refusal(
            "NamespaceNotAllowed",
            f"namespace {namespace} is the operator's own: what a run brings there would lie beside the operator's "
            "account, Secrets and driver pods; possible: a namespace of the team's",
        )
    if not limits.namespaces or namespace in limits.namespaces:
        return None
    # Of other namespaces nothing is told.
    return Refusal(
        "NamespaceNotAllowed",
        f"runs in namespace {namespace} are not allowed; the administrator names the namespaces where they are (chart "
        "value allowedNamespaces)",
    )


def _host_paths_allowed(run: MLPerfRun, limits: Limits) -> Refusal | None:
    for field, volume in (("scratch", run.spec.scratch), ("results", run.spec.results)):
        path = host_path(volume)
        if path is not None and not any(lies_under(path, prefix) for prefix in limits.host_paths):
            return Refusal(
                "HostPathNotAllowed",
                f"{field}.hostPath {path} is not allowed; the administrator allows: {choices(limits.host_paths)} "
                "(chart value allowedHostPaths)",
            )
    return None


def _images_allowed(run: MLPerfRun, limits: Limits) -> Refusal | None:
    if has_parity(run):
        return images_for_parity(run, limits)
    own = limits.suites[run.spec.suite].image
    for field, image in images_of(run):
        if image == own or any(begins_with(image, prefix) for prefix in limits.images):
            continue
        return Refusal(
            "ImageNotAllowed",
            f"{field} {image} is not allowed; possible: {own}, or what starts with one of: {choices(limits.images)} "
            "(chart value allowedImages)",
        )
    return None


def _code_allowed(run: MLPerfRun, limits: Limits) -> Refusal | None:
    code, namespace = run.spec.code, run.metadata.namespace
    if code is None:
        return None
    if ".." in PurePosixPath(code.path).parts:
        return Refusal("CodePathInvalid", f"code.path {code.path} may not hold ..; name the folder by its own path")
    if code.claim_name is None or f"{namespace}/{code.claim_name}" in limits.code_claims:
        return None
    return Refusal(
        "CodeClaimNotAllowed",
        f"code.claimName {code.claim_name} is not allowed: whoever writes to it has its content run in the pod; in "
        f"namespace {namespace} the administrator allows: {choices(_of_namespace(limits.code_claims, namespace))} "
        "(chart value allowedCodeClaims); possible "
        "also: code.image, or the suite's own code",
    )


def _of_namespace(names: tuple[str, ...], namespace: str) -> list[str]:
    """Return the names in one namespace: of others nothing is told."""
    return [name.partition("/")[2] for name in names if name.startswith(f"{namespace}/")]


def _upload_allowed(run: MLPerfRun, limits: Limits) -> Refusal | None:
    if run.spec.upload is None:
        return None
    store = run.spec.upload.s3
    if {".", ".."} & set(store.prefix.split("/")):
        text = f"upload.s3.prefix {store.prefix} may hold neither . nor .. as a folder; name the folder itself"
        return Refusal("UploadPrefixInvalid", text)
    if store.endpoint not in limits.upload_endpoints:
        return Refusal(
            "UploadNotAllowed",
            f"upload.s3.endpoint {store.endpoint} is not allowed; the administrator allows: "
            f"{choices(limits.upload_endpoints)} (chart value allowedUploadEndpoints)",
        )
    return _upload_secret_allowed(run, limits, store.credentials_secret.name)


def _upload_secret_allowed(run: MLPerfRun, limits: Limits, name: str) -> Refusal | None:
    namespace = run.metadata.namespace
    if not limits.upload_secrets or f"{namespace}/{name}" in limits.upload_secrets:
        return None
    return Refusal(
        "UploadNotAllowed",
        f"upload.s3.credentialsSecret {name} is not allowed; in namespace {namespace} the administrator allows: "
        f"{choices(_of_namespace(limits.upload_secrets, namespace))} (chart value allowedUploadSecrets)",
    )


def _gpu_access_possible(run: MLPerfRun, limits: Limits) -> Refusal | None:
    access = run.spec.gpu.access
    if not limits.suites[run.spec.suite].uses_gpu or access is GpuAccess.DEVICE_PLUGIN:
        return None
    if access is GpuAccess.RESOURCE_CLAIM:
        return Refusal("GPUAccessNotPossible", "gpu.access ResourceClaim is not built yet; possible: DevicePlugin")
    if limits.runtime_class_access:
        return None
    return Refusal(
        "GPUAccessNotAllowed",
        "gpu.access RuntimeClass gives a pod every GPU of its node, past quota and scheduler, and the administrator "
        "has not allowed that (chart value allowRuntimeClassAccess); possible: DevicePlugin",
    )


PERMISSIONS: tuple[Policy, ...] = (
    _namespace_allowed,
    profile_allowed,
    _host_paths_allowed,
    _images_allowed,
    _code_allowed,
    volumes_for_parity,
    volumes_apart,
    nodes_for_parity,
    _upload_allowed,
    _gpu_access_possible,
)
