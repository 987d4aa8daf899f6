"""What the administrator allows, and why a run is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from mlperf_operator.api.v1alpha1 import MLPerfRun, VolumeSpec
from mlperf_operator.catalogue import Catalogue
from mlperf_operator.grants import ParityGrant
from mlperf_operator.suites import Suite


@dataclass(frozen=True)
class Refusal:
    """Why a run is not accepted."""

    reason: str
    message: str


@dataclass(frozen=True)
class Limits:
    """What the administrator allows."""

    suites: Mapping[str, Suite]
    host_paths: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    drivers: Catalogue | None = None
    """The driver catalogue; None where driver management is off."""
    runtime_class_access: bool = False
    """Whether a run may have every GPU of its node without requesting them."""
    code_claims: tuple[str, ...] = ()
    """Claims, as namespace/name, whose content runs may have as their code tree."""
    harness_parity: Mapping[str, ParityGrant] = field(default_factory=dict)
    """By namespace what privileged runs may have there."""
    upload_endpoints: tuple[str, ...] = ()
    """S3 endpoints that get artifacts."""
    upload_secrets: tuple[str, ...] = ()
    """Secrets, as namespace/name, with whose keys runs may upload; none: any of the run's namespace."""
    namespaces: tuple[str, ...] = ()
    """Namespaces whose runs are accepted; none: all but the operator's own."""
    own_namespace: str = ""
    """The operator's."""


Policy = Callable[[MLPerfRun, Limits], Refusal | None]


def choices(values: Iterable[str]) -> str:
    """Return values in order, for a sentence."""
    return ", ".join(sorted(values)) or "none"


def no_suite(name: str, suites: Iterable[str]) -> str:
    """Return what is said of a suite that is none."""
    return f"there is no suite {name}; possible: {choices(suites)}"


def host_path(volume: VolumeSpec | None) -> str | None:
    """Return the folder of the node that a volume names."""
    return volume.host_path.path if volume is not None and volume.host_path is not None else None


def code_claim(run: MLPerfRun) -> str | None:
    """Return the claim that a run takes its code from."""
    return run.spec.code.claim_name if run.spec.code is not None else None


def images_of(run: MLPerfRun) -> list[tuple[str, str]]:
    """Return the images that a run names, each with its field."""
    code = run.spec.code.image if run.spec.code is not None else None
    return [(field, image) for field, image in (("image", run.spec.image), ("code.image", code)) if image is not None]


def begins_with(image: str, prefix: str) -> bool:
    """Say whether an image is of a registry or repository."""
    # "registry.example" must allow neither registry.example.evil nor, on another port, registry.example:5000/evil.
    rest = image.removeprefix(prefix)
    is_tag = rest.startswith(":") and "/" not in rest
    return image.startswith(prefix) and (not rest or prefix[-1] in "/:@" or rest[0] in "/@" or is_tag)
