"""No pod that the operator makes can speak to the API server: over every pod of every case."""

from __future__ import annotations

from typing import Any

import pytest

from golden.cases import CASES, objects
from golden.test_driver_daemonset import CASES as DRIVERS
from golden.test_driver_daemonset import made


def pods() -> dict[str, dict[str, Any]]:
    """Return the spec of each pod: a run's, the one that reads results again, and each mode's driver pod."""
    bodies = {f"{case.name}/{name}": body for case in CASES for name, body in objects(case).items()}
    bodies |= {case: made(mode, version) for case, mode, version in DRIVERS}
    return {
        name: body["spec"]["template"]["spec"] for name, body in bodies.items() if "template" in body.get("spec", {})
    }


PODS = pods()


def test_none_is_left_out() -> None:
    assert len(PODS) == 2 * len(CASES) + len(DRIVERS)


@pytest.mark.parametrize("name", PODS)
def test_a_pod_has_no_token_no_account_and_learns_of_no_service(name: str) -> None:
    pod = PODS[name]
    assert pod["automountServiceAccountToken"] is False
    # Variables of all Services of the namespace would tell of neighbours, and differ from run to run.
    assert pod["enableServiceLinks"] is False
    assert not {"serviceAccount", "serviceAccountName"} & set(pod)
    kinds = {kind for volume in pod["volumes"] for kind in volume if kind != "name"}
    assert kinds <= {"configMap", "emptyDir", "hostPath", "persistentVolumeClaim"}


@pytest.mark.parametrize("name", PODS)
def test_secrets_reach_collect_alone(name: str) -> None:
    containers = [*PODS[name].get("initContainers", []), *PODS[name]["containers"]]
    assert not [container["name"] for container in containers if "envFrom" in container]
    asking = {
        c["name"] for c in containers for entry in c.get("env", []) if "secretKeyRef" in entry.get("valueFrom", {})
    }
    assert asking == ({"collect"} if name.startswith("nvidia-upload/") else set())
