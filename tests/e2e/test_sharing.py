"""Runs that share one scratch."""

from __future__ import annotations

import pytest

from e2e.lab import Run, manifest
from installation import Cluster, condition

pytestmark = pytest.mark.e2e

TRAINS = "Training on"
"""What the reference harness says when it makes the model."""


def test_two_runs_at_once_prepare_what_they_share_once_and_both_end_well(operator: Cluster, namespace: str) -> None:
    operator.ensure_claim(namespace, "shared")
    # Accuracy does not depend on how busy the machine is, so that two at once can be judged.
    spec = {"scratch": {"claimName": "shared"}, "testModes": ["AccuracyOnly"]}
    runs = [Run.apply(operator, namespace, manifest(name, **spec)) for name in ("one", "two")]
    ended = [run.finished() for run in runs]
    for run in ended:
        assert condition(run, "Succeeded")[0] == "True", condition(run, "Succeeded")
        assert condition(run, "AccuracyMet")[0] == "True", condition(run, "AccuracyMet")
    logs = [run.log("download-model") for run in runs]
    assert sum(TRAINS in log for log in logs) == 1
    assert sum("skipped, done" in log for log in logs) == 1
    folders = {run["status"]["artifacts"]["path"] for run in ended}
    assert len(folders) == 2
