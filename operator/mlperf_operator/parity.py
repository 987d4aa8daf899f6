"""What a run with securityProfile HarnessParity may have.

Its containers can do to the node whatever they like, so the administrator alone chooses its programs and its nodes.
"""

from __future__ import annotations

from mlperf_operator import naming
from mlperf_operator.api.v1alpha1 import MLPerfRun, VolumeSpec
from mlperf_operator.grants import ParityGrant, has_parity
from mlperf_operator.host_paths import lies_under
from mlperf_operator.limits import Limits, Refusal, begins_with, choices, code_claim, host_path, images_of

_NOTHING = ParityGrant()


def _grant(run: MLPerfRun, limits: Limits) -> ParityGrant:
    return limits.harness_parity.get(run.metadata.namespace, _NOTHING)


def placed(run: MLPerfRun, limits: Limits) -> MLPerfRun:
    """Return the run with the node selector that the administrator puts onto it."""
    given = _grant(run, limits).node_selector if has_parity(run) else {}
    if not given:
        return run
    spec = run.spec.model_copy(update={"node_selector": {**run.spec.node_selector, **given}})
    return run.model_copy(update={"spec": spec})


def profile_allowed(run: MLPerfRun, limits: Limits) -> Refusal | None:
    """Refuse the node's privileges where nobody needs them or nobody granted them."""
    suite, namespace = limits.suites[run.spec.suite], run.metadata.namespace
    if not has_parity(run):
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
    return None


def images_for_parity(run: MLPerfRun, limits: Limits) -> Refusal | None:
    """Refuse programs for the node's privileges that the administrator has not named for them."""
    found = _foreign_image(run, limits) if has_parity(run) else None
    if found is None:
        return None
    own, allowed = limits.suites[run.spec.suite].image, _grant(run, limits).images
    return Refusal(
        "ImageNotAllowed",
        f"{found} is not allowed with securityProfile HarnessParity, which runs it with the node's privileges; "
        f"possible: {own}, or what starts with one of: {choices(allowed)} (chart value harnessParity, images)",
    )


def _foreign_image(run: MLPerfRun, limits: Limits) -> str | None:
    """Return the field and image whose content no privileged run of the namespace may have."""
    own, allowed = limits.suites[run.spec.suite].image, _grant(run, limits).images
    for field, image in images_of(run):
        if image != own and not any(begins_with(image, prefix) for prefix in allowed):
            return f"{field} {image}"
    return None


def nodes_for_parity(run: MLPerfRun, limits: Limits) -> Refusal | None:
    """Refuse a node selector that asks for other nodes than the administrator chose for such runs."""
    if not has_parity(run):
        return None
    asked, given = run.spec.node_selector, _grant(run, limits).node_selector
    other = {key: value for key, value in given.items() if asked.get(key, value) != value}
    if not other:
        return None
    return Refusal(
        "NodeSelectorNotAllowed",
        f"nodeSelector {_pairs({key: asked[key] for key in other})} contradicts {_pairs(other)}, where the "
        "administrator puts runs with securityProfile HarnessParity (chart value harnessParity, nodeSelector); "
        "possible: leave it out",
    )


def _pairs(labels: dict[str, str]) -> str:
    return choices(f"{key}={value}" for key, value in labels.items())


def volumes_for_parity(run: MLPerfRun, limits: Limits) -> Refusal | None:
    """Refuse volumes that others write to: they would have programs run with the node's privileges."""
    if not has_parity(run):
        return None
    allowed, code = _grant(run, limits).volumes, code_claim(run)
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
        f"administrator's: {choices(allowed)} (chart value harnessParity, volumes); possible also: securityProfile "
        "Minimal",
    )


def _is_listed(volume: VolumeSpec | None, allowed: tuple[str, ...]) -> bool:
    path, claim = host_path(volume), volume.claim_name if volume is not None else None
    return claim in allowed or (path is not None and any(lies_under(path, p) for p in allowed if p[0] == "/"))


def volumes_apart(run: MLPerfRun, limits: Limits) -> Refusal | None:
    """Refuse what would let others' content onto a volume whose programs run with the node's privileges.

    A run writes to all of its scratch as root. It may do so where its namespace's HarnessParity runs work, as long as
    its programs could be theirs; to the host paths of other namespaces it may not.
    """
    own = _grant(run, limits)
    foreign = [p for name, g in limits.harness_parity.items() if name != run.metadata.namespace for p in g.host_paths]
    not_theirs = _not_theirs(run, limits)
    for field, volume in (("scratch", run.spec.scratch), ("results", run.spec.results)):
        path = host_path(volume)
        # A claim that the run asks for anew may get the name of one that the administrator has yet to make.
        is_made = volume is not None and volume.claim_template is not None
        if _is_listed(volume, own.volumes) or (is_made and naming.claim_name(run, field) in own.volumes):
            if not_theirs is None:
                continue
            what = f"and {not_theirs} is not"
        elif path is not None and any(lies_under(path, p) or lies_under(p, path) for p in foreign):
            what = "of another namespace"
        elif path is not None and not_theirs and any(lies_under(p, path) for p in own.host_paths):
            what = f"and {not_theirs} is not"
        else:
            continue
        return Refusal(
            "VolumeReserved",
            f"{field}: the administrator keeps this volume for runs with securityProfile HarnessParity, {what} (chart "
            "value harnessParity); possible: another volume",
        )
    return None


def _not_theirs(run: MLPerfRun, limits: Limits) -> str | None:
    """Return the program of a run, as field and value, that no HarnessParity run of its namespace may have."""
    code = code_claim(run)
    if code is not None and code not in _grant(run, limits).volumes:
        return f"code.claimName {code}"
    return _foreign_image(run, limits)
