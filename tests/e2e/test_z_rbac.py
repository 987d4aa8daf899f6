"""The operator's account may do exactly what it does: the chart's roles against the audit log of all tests before."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import yaml
from local_cluster.layout import DEFAULT_FULL, layout_for

from e2e import lab
from e2e.audit import Permission, Request, permissions, requests
from e2e.lab import Run, manifest, wait_for
from e2e.session import Session
from installation import CHART, NAMESPACE, RELEASE, Cluster, condition
from mlperf_operator import naming

pytestmark = pytest.mark.e2e

ACCOUNT = f"system:serviceaccount:{NAMESPACE}:{RELEASE}"
EVERYTHING = {"driver": {"enabled": True, "evictGpuPods": True}}
"""The values of all these tests together, of those that change a role."""

UNUSED = {
    "update mlperfruns/finalizers": "asked by the admission plug-in OwnerReferencesPermissionEnforcement alone, which "
    "is off here: it says who may set an owner reference with blockOwnerDeletion",
    "delete configmaps": "only where the garbage collector missed that a run was deleted and made again",
    "delete pods": "only for a driver pod of an older template, after an upgrade with drivers on nodes, which no test "
    "here makes (unit/nodes/test_node_reconcile.py does)",
    "create daemonsets": "asked by the API server itself when an apply makes the object, which the log calls a patch",
    "create leases": "only where there was no Lease yet; a cluster that was there before has it",
}
"""What a role gives that no test uses, and why."""


@pytest.fixture(scope="module")
def roles(cluster: Cluster) -> list[Permission]:
    """What the chart gives the operator's account."""
    argv = ("template", RELEASE, str(CHART), "--namespace", NAMESPACE, "--kube-version", "1.35.0", "--values", "-")
    text = cluster.run("helm", *argv, stdin=json.dumps(EVERYTHING))
    return list(permissions((body for body in yaml.safe_load_all(text) if body), RELEASE))


def leave_claim(cluster: Cluster, namespace: str) -> None:
    """Leave the scratch claim of an earlier run of the name `queued`, which the next one finds again."""
    labels = {naming.MANAGED_BY_LABEL: naming.MANAGER, naming.RUN_LABEL: "queued"}
    spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    metadata = {"name": "queued-scratch", "namespace": namespace, "labels": labels}
    cluster.apply({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec})


@pytest.fixture(scope="module")
def queued(operator: Cluster) -> Iterator[Run]:
    """A run of a queue that has ended before its pod could start."""
    with lab.namespace(operator) as namespace:
        leave_claim(operator, namespace)
        scratch = {"claimTemplate": {"size": "1Gi", "accessMode": "ReadWriteMany"}}
        body = manifest(
            "queued", scratch=scratch, queueName="a", image="localhost/there-is-no-such-image:1", startTimeoutSeconds=10
        )
        run = Run.apply(operator, namespace, body)
        wait_for("its Job", lambda: run.owned("jobs"))
        # As Kueue does when it admits the run.
        operator.kubectl("patch", "job", "queued", "-n", namespace, "--type=merge", "-p", '{"spec":{"suspend":false}}')
        assert condition(run.finished(), "Succeeded")[1] == "ImagePullFailed"
        yield run


def test_the_job_of_a_queued_run_that_ended_is_gone_as_kueue_would_resume_it(queued: Run) -> None:
    wait_for("the end of its Job", lambda: queued.has_no("jobs"))


@pytest.fixture(scope="module")
def asked(queued: Run, session: Session) -> set[Request]:
    """What the operator asked of the API server in these tests."""
    return requests(layout_for(DEFAULT_FULL).logs, ACCOUNT, session.started)


def test_nothing_that_the_operator_asked_for_was_forbidden(asked: set[Request]) -> None:
    assert asked
    assert [request.text for request in asked if not request.allowed] == []


def test_the_roles_cover_all_that_the_operator_asked_for(asked: set[Request], roles: list[Permission]) -> None:
    missing = [request.text for request in asked if not any(role.covers(request) for role in roles)]
    assert sorted(missing) == []


def test_the_roles_give_nothing_that_no_test_uses(
    asked: set[Request], roles: list[Permission], session: Session
) -> None:
    if reason := session.incomplete():
        pytest.skip(f"what is used shows in a whole session only: {reason}")
    unused = {role.text for role in roles if not any(role.covers(request) for request in asked)}
    assert unused - set(UNUSED) == set()
