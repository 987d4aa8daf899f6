"""The chart taken away, and this release over the one before it; the last tests, as others need the operator."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from e2e import lab, previous
from e2e.lab import Run, manifest, processes, send, wait_for
from installation import CHART, NAMESPACE, RELEASE, Cluster, condition, install
from mlperf_operator.resources.containers import RUN

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

HARNESS_PROCESS = "--action=run_harness"
LATER = "mlperf.dev/e2e-later"
"""Label that the node gets after the upgrade, for a run whose pod waits for it."""

CLUSTER_WIDE = (
    *("clusterroles", "clusterrolebindings", "runtimeclasses"),
    *("validatingadmissionpolicies", "validatingadmissionpolicybindings"),
)


@pytest.fixture(scope="module")
def uninstalled(operator: Cluster) -> Iterator[tuple[Cluster, Run]]:
    """The cluster after `helm uninstall`, and a run that had finished before."""
    with lab.namespace(operator) as namespace:
        run = Run.apply(operator, namespace, manifest("kept", suite="no-such-suite"))
        run.finished()
        operator.run("helm", "uninstall", RELEASE, "--namespace", NAMESPACE, "--wait")
        yield operator, run


def test_uninstalling_leaves_the_crd_the_runs_and_a_lease(uninstalled: tuple[Cluster, Run]) -> None:
    cluster, run = uninstalled
    assert condition(run.get(), "Finished")[0] == "True"
    of_chart = f"app.kubernetes.io/instance={RELEASE}"
    assert cluster.get(",".join(CLUSTER_WIDE), "-l", of_chart)["items"] == []
    kinds = "deployments,daemonsets,pods,services,networkpolicies,roles,rolebindings,serviceaccounts,leases"
    left = cluster.get(kinds, "-n", NAMESPACE)["items"]
    names = {(item["kind"], item["metadata"]["name"]) for item in left if "deletionTimestamp" not in item["metadata"]}
    assert names == {("ServiceAccount", "default"), ("Lease", RELEASE)}


def test_a_run_can_be_deleted_while_there_is_no_operator(uninstalled: tuple[Cluster, Run]) -> None:
    cluster, run = uninstalled
    run.delete()
    cluster.kubectl("wait", "--for=delete", f"mlperfrun/{run.name}", "-n", run.namespace, "--timeout=30s")


@pytest.fixture(scope="module")
def before(
    uninstalled: tuple[Cluster, Run], images: tuple[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Cluster:
    """The cluster with the release before this one."""
    cluster, _ = uninstalled
    folder = tmp_path_factory.mktemp("previous")
    tree = previous.checkout(folder)
    image = previous.build_image(tree, folder)
    install(cluster, image, images[1], chart=tree / CHART.relative_to(CHART.parents[1]))
    return cluster


def state(run: Run) -> dict[str, Any]:
    """What of a run's objects must be the same after an upgrade."""
    kinds = {kind: [item["metadata"]["uid"] for item in run.owned(kind)] for kind in ("jobs", "pods", "configmaps")}
    restarts = [c["restartCount"] for pod in run.pods() for c in pod["status"].get("containerStatuses", [])]
    return {**kinds, "restarts": sum(restarts)}


def test_an_upgrade_restarts_nothing_and_loses_nothing(before: Cluster, images: tuple[str, str]) -> None:
    with lab.namespace(before) as namespace:
        done = Run.apply(before, namespace, manifest("done"))
        ended = done.finished()
        measuring = Run.apply(before, namespace, manifest("measuring"))
        waiting = Run.apply(before, namespace, manifest("waiting", nodeSelector={LATER: "true"}))
        pod = measuring.started(RUN)
        harness = wait_for("the harness", lambda: processes(pod, HARNESS_PROCESS))
        send(signal.SIGSTOP, harness)
        wait_for("the waiting run's pod", waiting.pods)
        states = [state(run) for run in (measuring, waiting)]

        install(before, *images)

        assert [state(run) for run in (measuring, waiting)] == states
        send(signal.SIGCONT, harness)
        before.kubectl("label", "nodes", "--all", f"{LATER}=true")
        try:
            for run in (measuring, waiting):
                assert condition(run.finished(), "ResultsValid")[:2] == ("True", "Valid")
        finally:
            before.kubectl("label", "nodes", "--all", f"{LATER}-")
        assert state(measuring) == states[0]
        assert json.dumps(done.get()) == json.dumps(ended)
        assert condition(Run.apply(before, namespace, manifest("new")).finished(), "ResultsValid")[0] == "True"
