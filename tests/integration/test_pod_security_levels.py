"""The PodSecurity level that a run is said to need, against the API server's own admission."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import yaml

from golden.cases import CASES, Case, objects
from integration.chart import kubectl, namespace_of
from mlperf_operator.resources.pod_security import Level, needed
from mlperf_operator.suites import BUILT_IN

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def namespaces(kubeconfig: str) -> Iterator[dict[Level, str]]:
    """A namespace for each level, with the account that pods are checked for."""
    with (
        namespace_of(kubeconfig, "restricted") as restricted,
        namespace_of(kubeconfig, "baseline") as baseline,
        namespace_of(kubeconfig, "privileged") as privileged,
    ):
        yield {Level.RESTRICTED: restricted, Level.BASELINE: baseline, Level.PRIVILEGED: privileged}


def permits(kubeconfig: str, namespace: str, spec: dict[str, object]) -> bool:
    """Say whether the API server takes a pod in a namespace; nothing is stored."""
    # The RuntimeClass, which is not there, says nothing about levels.
    asked = {key: value for key, value in spec.items() if key != "runtimeClassName"}
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "asked", "namespace": namespace},
        "spec": {**asked, "serviceAccountName": "mlperf-operator"},
    }
    done = kubectl("create", "--dry-run=server", "-f", "-", kubeconfig=kubeconfig, stdin=yaml.safe_dump(body))
    assert done.returncode == 0 or "violates PodSecurity" in done.stderr, done.stderr
    return done.returncode == 0


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_run_needs_the_strictest_level_that_permits_its_pod(
    kubeconfig: str, namespaces: dict[Level, str], case: Case
) -> None:
    need = needed(case.run, BUILT_IN[case.run.spec.suite])
    made = objects(case)
    pod, again = (made[name]["spec"]["template"]["spec"] for name in ("job-golden", "job-golden-collect"))
    for level, namespace in namespaces.items():
        assert permits(kubeconfig, namespace, pod) == (level.rank >= need.level.rank), level
        # What reads results again never needs more than the run did.
        if level.rank >= need.level.rank:
            assert permits(kubeconfig, namespace, again), level


def test_a_suite_that_runs_as_root_and_locks_no_memory_needs_baseline(
    kubeconfig: str, namespaces: dict[Level, str]
) -> None:
    case = next(case for case in CASES if case.name == "nvidia-default")
    suite = BUILT_IN["nvidia-v4.1"].model_copy(update={"memlock": False})
    assert needed(case.run, suite).level is Level.BASELINE
    pod = objects(case, suite)["job-golden"]["spec"]["template"]["spec"]
    found = {level: permits(kubeconfig, namespace, pod) for level, namespace in namespaces.items()}
    assert found == {Level.RESTRICTED: False, Level.BASELINE: True, Level.PRIVILEGED: True}
