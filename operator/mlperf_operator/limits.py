"""What the administrator allows, and why a run is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from mlperf_operator.api.v1alpha1 import MLPerfRun
from mlperf_operator.catalogue import Catalogue
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
    harness_parity: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By namespace the claims and host paths that privileged runs may have as scratch."""
    upload_endpoints: tuple[str, ...] = ()
    """S3 endpoints that get artifacts."""


Policy = Callable[[MLPerfRun, Limits], Refusal | None]


def choices(values: Iterable[str]) -> str:
    """Return values in order, for a sentence."""
    return ", ".join(sorted(values)) or "none"
