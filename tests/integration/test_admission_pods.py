"""The policy `pods`: where runs may have privileges, others need not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from integration.admission import JOB_CONTROLLER, Wall, fresh, in_force
from integration.chart import Object
from integration.test_admission_namespaces import NOT_MADE_NOW, OURS, PRIVILEGES, let_debug, made_now, pod

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

SYSTEM, GUARDED, PLAIN = fresh("system", "guarded", "plain")
LABEL = {"mlperf.dev/others-pod-security": "baseline"}
SAID = f"namespace {GUARDED} permits privileged pods for runs alone (label mlperf.dev/others-pod-security)"

BEYOND_BASELINE: dict[str, Object] = {
    **PRIVILEGES,
    "seccomp of an init container": {
        "initContainers": [{"name": "i", "image": "a", "securityContext": {"seccompProfile": {"type": "Unconfined"}}}]
    },
    "sysctl": {"securityContext": {"sysctls": [{"name": "kernel.shm_rmid_forced", "value": "1"}]}},
    "selinux": {"container": {"securityContext": {"seLinuxOptions": {"type": "spc_t"}}}},
    "selinux of the pod": {"securityContext": {"seLinuxOptions": {"type": "spc_t"}}},
}
WITHIN_BASELINE: dict[str, Object] = {
    "nothing": {},
    "root": {"securityContext": {"runAsUser": 0}, "container": {"securityContext": {"runAsUser": 0}}},
    "capability": {"container": {"securityContext": {"capabilities": {"add": ["CHOWN"], "drop": ["ALL"]}}}},
    "seccomp": {"securityContext": {"seccompProfile": {"type": "RuntimeDefault"}}},
    "port": {"container": {"ports": [{"containerPort": 1}]}},
    "folder": {"volumes": [{"name": "h", "emptyDir": {}}]},
}


@pytest.fixture(scope="module")
def wall(kubeconfig: str) -> Iterator[Wall]:
    with in_force(kubeconfig, {}, SYSTEM, [GUARDED, PLAIN]) as found:
        found.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": GUARDED, "labels": LABEL}})
        account = {"apiVersion": "v1", "kind": "ServiceAccount"}
        found.apply(*({**account, "metadata": {"name": "default", "namespace": name}} for name in (GUARDED, PLAIN)))
        yield found


@pytest.mark.parametrize("name", BEYOND_BASELINE)
def test_where_runs_may_have_privileges_others_have_none(wall: Wall, name: str) -> None:
    assert SAID in wall.user.create(pod(GUARDED, **BEYOND_BASELINE[name]))
    assert wall.user.create(pod(PLAIN, **BEYOND_BASELINE[name])) == ""
    assert wall.administrator.create(pod(GUARDED, **BEYOND_BASELINE[name])) == ""


@pytest.mark.parametrize("name", WITHIN_BASELINE)
def test_pods_within_baseline_are_nobodys_business(wall: Wall, name: str) -> None:
    assert wall.user.create(pod(GUARDED, **WITHIN_BASELINE[name])) == ""


def test_runs_have_what_they_need(wall: Wall) -> None:
    options: Any = {"container": {"securityContext": {"capabilities": {"add": ["IPC_LOCK"]}}}}
    controller = wall.account(JOB_CONTROLLER, GUARDED)
    assert controller.create(pod(GUARDED, OURS, ("Job", "run"), annotations=made_now(wall), **options)) == ""
    assert NOT_MADE_NOW in controller.create(pod(GUARDED, OURS, ("Job", "run"), **options))
    assert SAID in controller.create(pod(GUARDED, {}, ("Job", "run"), **options))
    assert "made by the controller of a run's Job alone" in wall.user.create(pod(GUARDED, OURS, **options))


@pytest.mark.parametrize("privileged", [True, False])
def test_no_privileged_container_is_put_beside_those_of_a_pod(wall: Wall, *, privileged: bool) -> None:
    [name] = fresh("there")
    assert wall.user.create(pod(GUARDED, name=name), dry=False) == ""
    let_debug(wall, GUARDED)
    path = f"/api/v1/namespaces/{GUARDED}/pods/{name}/ephemeralcontainers?dryRun=All"
    container = {"name": "debug", "image": "registry.example/a", "securityContext": {"privileged": privileged}}
    patch = {"spec": {"ephemeralContainers": [container]}}
    status, answer = wall.user.ask("PATCH", path, patch, "application/strategic-merge-patch+json")
    assert (status != 200, SAID in answer) == (privileged, privileged)
