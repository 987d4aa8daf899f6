"""The level of Kubernetes' Pod Security Standards that a run's pod needs.

Source: https://kubernetes.io/docs/concepts/security/pod-security-standards/
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from mlperf_operator.api.v1alpha1 import MLPerfRun
from mlperf_operator.grants import has_parity
from mlperf_operator.suites import Suite

ENFORCE_LABEL = "pod-security.kubernetes.io/enforce"
OTHERS_LABEL = "mlperf.dev/others-pod-security"
"""On a namespace at level privileged: the chart's policy `pods` keeps pods that are no run's to this level."""


class Level(StrEnum):
    """A level of the standards."""

    RESTRICTED = "restricted"
    BASELINE = "baseline"
    PRIVILEGED = "privileged"

    @property
    def rank(self) -> int:
        """How much it permits."""
        return list(Level).index(self)


@dataclass(frozen=True)
class Need:
    """The strictest level that permits a run's pod, and what of the run asks for it."""

    level: Level
    because: str


def needed(run: MLPerfRun, suite: Suite) -> Need:
    """Return the strictest level that permits the pod, as resources.containers and resources.volumes build it."""
    mounts_folder = any(v is not None and v.host_path is not None for v in (run.spec.scratch, run.spec.results))
    if has_parity(run):
        return Need(Level.PRIVILEGED, "securityProfile HarnessParity has the node's privileges")
    if mounts_folder:
        return Need(Level.PRIVILEGED, "it mounts a folder of the node (hostPath)")
    if suite.run_as_root and suite.memlock:
        return Need(Level.PRIVILEGED, f"suite {suite.name} locks memory (capability IPC_LOCK)")
    if suite.run_as_root:
        return Need(Level.BASELINE, f"suite {suite.name} runs as root")
    return Need(Level.RESTRICTED, f"suite {suite.name} needs no privilege")
