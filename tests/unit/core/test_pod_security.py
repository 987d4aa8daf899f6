"""What a namespace is told to permit where its PodSecurity level refuses a run's pod.

tests/integration/test_pod_security_levels.py holds the levels against the API server's own admission.
"""

from __future__ import annotations

from typing import Any

import pytest

from mlperf_operator.api.v1alpha1 import MLPerfRun
from mlperf_operator.observed import Observed
from mlperf_operator.outcome import Outcome, outcome
from mlperf_operator.resources.pod_security import Level, needed
from mlperf_operator.suites import BUILT_IN, Suite
from unit.core.builders import NOW, a100, job, run

NVIDIA, REFERENCE = BUILT_IN["nvidia-v4.1"], BUILT_IN["reference-cpu"]
ROOT = REFERENCE.model_copy(update={"name": "rooted", "run_as_root": True})
ON_NODE = {"hostPath": {"path": "/mnt/scratch/a"}}
WORDS = 'pods "demo-x" is forbidden: violates PodSecurity "{}": what it says'


@pytest.mark.parametrize(
    ("made", "suite", "level", "because"),
    [
        (run(), REFERENCE, Level.RESTRICTED, "needs no privilege"),
        (run({"scratch": {"claimName": "a"}}), REFERENCE, Level.RESTRICTED, "needs no privilege"),
        (run({"scratch": ON_NODE}), REFERENCE, Level.PRIVILEGED, "a folder of the node (hostPath)"),
        (run({"results": ON_NODE}), REFERENCE, Level.PRIVILEGED, "a folder of the node (hostPath)"),
        (run(), ROOT, Level.BASELINE, "suite rooted runs as root"),
        (a100(), NVIDIA, Level.PRIVILEGED, "IPC_LOCK"),
        (a100(securityProfile="HarnessParity"), NVIDIA, Level.PRIVILEGED, "securityProfile HarnessParity"),
    ],
)
def test_the_level_follows_from_suite_profile_and_volumes(
    made: MLPerfRun, suite: Suite, level: Level, because: str
) -> None:
    need = needed(made, suite)
    assert need.level is level
    assert because in need.because


def refused(enforced: str, suite: Suite | None, **spec: Any) -> Outcome:
    observed = Observed(job=job(), job_warnings=(WORDS.format(enforced),))
    return outcome(run(spec), observed, NOW, suite)


@pytest.mark.parametrize("enforced", ["restricted:latest", "restricted:v1.35", "restricted", "baseline:latest"])
def test_a_refused_run_names_the_label_the_level_and_the_command(enforced: str) -> None:
    reached = refused(enforced, REFERENCE, scratch=ON_NODE)
    assert reached.reason == "PodSecurityRefused"
    level = enforced.partition(":")[0]
    assert reached.message == (
        f"namespace bench enforces PodSecurity {level} (label pod-security.kubernetes.io/enforce), and the run needs "
        "privileged: it mounts a folder of the node (hostPath); possible: kubectl label namespace bench --overwrite "
        "pod-security.kubernetes.io/enforce=privileged mlperf.dev/others-pod-security=baseline, or another namespace: "
        f"{WORDS.format(enforced)}"
    )


def test_baseline_is_named_where_it_is_enough() -> None:
    message = refused("restricted:latest", ROOT).message
    assert "kubectl label namespace bench --overwrite pod-security.kubernetes.io/enforce=baseline, or" in message


@pytest.mark.parametrize("suite", [REFERENCE, None])
def test_no_label_is_asked_for_where_the_level_permits_the_pod_or_nobody_knows_what_it_needs(
    suite: Suite | None,
) -> None:
    message = refused("restricted:latest", suite).message
    assert "kubectl label" not in message
    assert ("look for a webhook" in message) == (suite is not None)
    assert ("label it for a level that permits the run" in message) == (suite is None)
    assert message.endswith(WORDS.format("restricted:latest"))


def test_a_level_that_nobody_knows_is_told_and_answered_by_what_the_run_needs() -> None:
    message = refused("stricter:latest", REFERENCE).message
    assert "enforces PodSecurity stricter " in message
    assert "enforce=restricted, or" in message
