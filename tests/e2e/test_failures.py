"""Runs that fail: each says why, where and with what last lines, does not start again, and leaves its pod and logs."""

from __future__ import annotations

import time
from typing import Any

import pytest

from e2e.lab import Run, manifest, stage
from e2e.suites import BROKEN_STAGE, HOST_PATH, LYING_DOWNLOAD, SMALL_SCRATCH
from installation import Cluster, condition

pytestmark = pytest.mark.e2e


def assert_failed(run: dict[str, Any], reason: str) -> str:
    """The run has failed for that reason; return its message."""
    status, found, message = condition(run, "Succeeded")
    assert (status, found) == ("False", reason)
    assert condition(run, "Finished")[0] == "True"
    assert condition(run, "ResultsValid")[0] != "True"
    assert "results" not in run["status"] or not any(r.get("validity") for r in run["status"]["results"])
    return message


def assert_one_pod_is_kept(run: Run, count: int = 1) -> None:
    time.sleep(2)  # a crash loop would show by now
    assert len(run.owned("jobs")) == 1
    assert len(run.pods()) == count


def test_a_make_stage_that_fails(operator: Cluster, namespace: str) -> None:
    run = Run.apply(operator, namespace, manifest("broken", suite=BROKEN_STAGE))
    ended = run.finished()
    message = assert_failed(ended, "StageFailed")
    failed = stage(ended, "download-model")
    assert "stage download-model" in message
    assert (failed["state"], failed["exitCode"]) == ("Failed", 65)
    assert "No rule to make target 'no_such_target'" in failed["message"]
    assert "no_such_target" in run.log("download-model")
    assert_one_pod_is_kept(run)
    assert "SucceededFalse" in run.events()


def test_a_download_that_ends_with_0_and_brings_nothing(operator: Cluster, namespace: str) -> None:
    ended = Run.apply(operator, namespace, manifest("lying", suite=LYING_DOWNLOAD)).finished()
    message = assert_failed(ended, "PostconditionFailed")
    assert "/scratch/data/digits" in message
    assert stage(ended, "download-data")["state"] == "Failed"


def test_an_image_that_cannot_be_pulled(operator: Cluster, namespace: str) -> None:
    body = manifest("no-image", image="localhost/there-is-no-such-image:1", startTimeoutSeconds=10)
    run = Run.apply(operator, namespace, body)
    message = assert_failed(run.finished(), "ImagePullFailed")
    assert "there-is-no-such-image" in message
    # The pod would start as soon as the image can be pulled; a run that has ended must not.
    operator.kubectl(*("wait", "--for=jsonpath={.spec.suspend}=true", "job/no-image", "-n", namespace, "--timeout=20s"))


def test_a_pod_that_pod_security_refuses(operator: Cluster, namespace: str) -> None:
    body = manifest("refused", scratch={"hostPath": {"path": HOST_PATH}}, startTimeoutSeconds=10)
    run = Run.apply(operator, namespace, body)
    message = assert_failed(run.finished(), "PodSecurityRefused")
    assert "hostPath" in message
    assert_one_pod_is_kept(run, count=0)


def test_a_scratch_that_is_full_before_the_run_begins(operator: Cluster, namespace: str) -> None:
    small = {"emptyDir": {"medium": "Memory", "sizeLimit": "4Mi"}}
    run = Run.apply(operator, namespace, manifest("full", scratch=small))
    ended = run.finished()
    message = assert_failed(ended, "PreflightFailed")
    assert "GiB free and needs" in message
    assert stage(ended, "preflight")["exitCode"] == 64
    assert_one_pod_is_kept(run)


def test_a_scratch_that_becomes_full_in_a_stage(operator: Cluster, namespace: str) -> None:
    small = {"emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}
    run = Run.apply(operator, namespace, manifest("filled", suite=SMALL_SCRATCH, scratch=small))
    ended = run.finished()
    message = assert_failed(ended, "ScratchFull")
    assert "space" in message
    assert any(s["state"] == "Failed" and s["exitCode"] == 65 for s in ended["status"]["stages"])
    assert_one_pod_is_kept(run)


def test_a_run_that_takes_longer_than_it_may(operator: Cluster, namespace: str) -> None:
    # Ten minutes of LoadGen, as MLPerf asks for, in a run that may take one.
    run = Run.apply(operator, namespace, manifest("slow", testRun=False, runTimeoutSeconds=60))
    assert_failed(run.finished(), "RunTimeout")
    assert "LoadGen" in run.log("run")
    assert_one_pod_is_kept(run)


def test_a_run_that_cannot_be_is_refused_and_says_what_can(operator: Cluster, namespace: str) -> None:
    ended = Run.apply(operator, namespace, manifest("unknown", suite="no-such-suite")).finished()
    status, reason, message = condition(ended, "Accepted")
    assert (status, reason) == ("False", "UnknownSuite")
    assert "reference-cpu" in message
