"""What a run may have only because the administrator allows it: pure policies, each of one field."""

from __future__ import annotations

from pathlib import PurePosixPath

from mlperf_operator.api.v1alpha1 import GpuAccess, MLPerfRun, SecurityProfile, VolumeSpec
from mlperf_operator.limits import Limits, Policy, Refusal, choices


def _host_paths_allowed(run: MLPerfRun, limits: Limits) -> Refusal | None:
    for field, volume in (("scratch", run.spec.scratch), ("results", run.spec.results)):
        path = _host_path(volume)
        if path is not None and not any(_lies_under(path, prefix) for prefix in limits.host_paths):
            return Refusal(
                "HostPathNotAllowed",
                f"{field}.hostPath {path} is not allowed; the administrator allows: {choices(limits.host_paths)} "
                "(chart value allowedHostPaths)",
            )
    return None


def _host_path(volume: VolumeSpec | None) -> str | None:
    return volume.host_path.path if volume is not None and volume.host_path is not None else None


def _lies_under(path: str, prefix: str) -> bool:
    parts = PurePosixPath(path).parts
    return ".." not in parts and parts[: len(PurePosixPath(prefix).parts)] == PurePosixPath(prefix).parts


def _images_allowed(run: MLPerfRun, limits: Limits) -> Refusal | None:
    own = limits.suites[run.spec.suite].image
    code = run.spec.code.image if run.spec.code is not None else None
    for field, image in (("image", run.spec.image), ("code.image", code)):
        if image is None or image == own or any(_begins_with(image, prefix) for prefix in limits.images):
            continue
        return Refusal(
            "ImageNotAllowed",
            f"{field} {image} is not allowed; possible: {own}, or what starts with one of: {choices(limits.images)} "
            "(chart value allowedImages)",
        )
    return None


def _begins_with(image: str, prefix: str) -> bool:
    # "registry.example" must allow neither registry.example.evil nor, on another port, registry.example:5000/evil.
    rest = image.removeprefix(prefix)
    is_tag = rest.startswith(":") and "/" not in rest
    return image.startswith(prefix) and (not rest or prefix[-1] in "/:@" or rest[0] in "/@" or is_tag)


def _code_allowed(run: MLPerfRun, limits: Limits) -> Refusal | None:
    code, namespace = run.spec.code, run.metadata.namespace
    if code is None:
        return None
    if ".." in PurePosixPath(code.path).parts:
        return Refusal("CodePathInvalid", f"code.path {code.path} may not hold ..; name the folder by its own path")
    if code.claim_name is None or f"{namespace}/{code.claim_name}" in limits.code_claims:
        return None
    # Of other namespaces nothing is told.
    own = [claim.partition("/")[2] for claim in limits.code_claims if claim.startswith(f"{namespace}/")]
    return Refusal(
        "CodeClaimNotAllowed",
        f"code.claimName {code.claim_name} is not allowed: whoever writes to it has its content run in the pod; in "
        f"namespace {namespace} the administrator allows: {choices(own)} (chart value allowedCodeClaims); possible "
        "also: code.image, or the suite's own code",
    )


def _profile_allowed(run: MLPerfRun, limits: Limits) -> Refusal | None:
    suite, namespace = limits.suites[run.spec.suite], run.metadata.namespace
    if run.spec.security_profile is SecurityProfile.MINIMAL:
        return None
    if not suite.run_as_root:
        return Refusal(
            "ProfileNotNeeded", f"suite {suite.name} needs no privilege at all; possible: securityProfile Minimal"
        )
    if namespace not in limits.harness_parity:
        return Refusal(
            "ProfileNotAllowed",
            "securityProfile HarnessParity gives a run the node's privileges, and the administrator has not allowed it "
            f"in namespace {namespace} (chart value harnessParity); possible: Minimal",
        )
    return _volumes_for_parity(run, limits.harness_parity[namespace])


def _volumes_for_parity(run: MLPerfRun, allowed: tuple[str, ...]) -> Refusal | None:
    # Whoever else could write there would have programs run, or links followed, with the node's privileges.
    code = _code_claim(run)
    if not _is_listed(run.spec.scratch, allowed):
        field = "scratch must be a claim or host path"
    elif run.spec.results is not None and not _is_listed(run.spec.results, allowed):
        field = "results must be left out or be a claim or host path"
    elif code is not None and code not in allowed:
        field = "code.claimName must be a claim"
    else:
        return None
    return Refusal(
        "VolumeNotAllowed",
        f"securityProfile HarnessParity runs with the node's privileges what lies on its volumes, so {field} of the "
        f"administrator's: {choices(allowed)} (chart value harnessParity); possible also: securityProfile Minimal",
    )


def _code_claim(run: MLPerfRun) -> str | None:
    return run.spec.code.claim_name if run.spec.code is not None else None


def _is_listed(volume: VolumeSpec | None, allowed: tuple[str, ...]) -> bool:
    path, claim = _host_path(volume), volume.claim_name if volume is not None else None
    return claim in allowed or (path is not None and any(_lies_under(path, p) for p in allowed if p[0] == "/"))


def _parity_volumes_apart(run: MLPerfRun, limits: Limits) -> Refusal | None:
    """Refuse what would let others' content onto a volume whose programs run with the node's privileges.

    A run writes to all of its scratch as root. It may do so where its namespace's HarnessParity runs work, as long as
    its code could be theirs; to the host paths of other namespaces it may not.
    """
    own = limits.harness_parity.get(run.metadata.namespace or "", ())
    code = _code_claim(run)
    is_of_theirs = code is None or code in own
    lists = [entries for name, entries in limits.harness_parity.items() if name != run.metadata.namespace]
    foreign = [entry for entries in lists for entry in entries if entry.startswith("/")]
    for field, volume in (("scratch", run.spec.scratch), ("results", run.spec.results)):
        path = _host_path(volume)
        if _is_listed(volume, own):
            if is_of_theirs:
                continue
            what = f"and code.claimName {code} is not"
        elif path is not None and any(_lies_under(path, p) or _lies_under(p, path) for p in foreign):
            what = "of another namespace"
        elif path is not None and not is_of_theirs and any(_lies_under(p, path) for p in own if p[0] == "/"):
            what = f"and code.claimName {code} is not"
        else:
            continue
        return Refusal(
            "VolumeReserved",
            f"{field}: the administrator keeps this volume for runs with securityProfile HarnessParity, {what} (chart "
            "value harnessParity); possible: another volume",
        )
    return None


def _upload_allowed(run: MLPerfRun, limits: Limits) -> Refusal | None:
    if run.spec.upload is None:
        return None
    store = run.spec.upload.s3
    if {".", ".."} & set(store.prefix.split("/")):
        text = f"upload.s3.prefix {store.prefix} may hold neither . nor .. as a folder; name the folder itself"
        return Refusal("UploadPrefixInvalid", text)
    if store.endpoint in limits.upload_endpoints:
        return None
    return Refusal(
        "UploadNotAllowed",
        f"upload.s3.endpoint {store.endpoint} is not allowed; the administrator allows: "
        f"{choices(limits.upload_endpoints)} (chart value allowedUploadEndpoints)",
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
    _host_paths_allowed,
    _images_allowed,
    _code_allowed,
    _profile_allowed,
    _parity_volumes_apart,
    _upload_allowed,
    _gpu_access_possible,
)
