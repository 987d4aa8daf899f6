"""The policies `parity` and `driver`: a namespace that permits privileged pods because of us permits nobody else's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from golden.test_driver_daemonset import SETTINGS
from integration.admission import DAEMON_SET_CONTROLLER, JOB_CONTROLLER, Wall, administer, config_map, fresh, in_force
from integration.admission_run import POD_SECONDS
from integration.chart import Object
from mlperf_operator.naming import CHILDREN_POLICY_ANNOTATION
from mlperf_operator.resources.driver_daemonset import DriverImages, driver_daemon_set
from mlperf_operator.resources.job import required_nodes

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

SYSTEM, BENCH, PLAIN, DOOMED = fresh("system", "bench", "plain", "doomed")
IMAGE = "registry.example/mlperf-operator:1"
PLUGIN_IMAGE = "registry.example/k8s-device-plugin:2"
SELECTOR = {"pool": "mlperf"}
BINDER = "system:serviceaccount:kube-system:persistent-volume-binder"

VALUES: Object = {
    "image": {"repository": "registry.example/mlperf-operator", "tag": "1"},
    "harnessParity": {
        BENCH: {"volumes": ["scratch", "listed", "/mnt/p"], "nodeSelector": SELECTOR},
        DOOMED: {"volumes": ["scratch"]},
    },
    "allowedHostPaths": ["/mnt/p"],
    "driver": {
        "enabled": True,
        "devicePlugin": {"enabled": True, "image": {"repository": "registry.example/k8s-device-plugin", "tag": "2"}},
    },
}
OURS = {"mlperf.dev/run": "run", "mlperf.dev/run-uid": "1"}
DRIVER = {"app.kubernetes.io/component": "driver-agent"}


@pytest.fixture(scope="module")
def wall(kubeconfig: str) -> Iterator[Wall]:
    with in_force(kubeconfig, VALUES, SYSTEM, [BENCH, PLAIN, DOOMED]) as found:
        for namespace in (SYSTEM, BENCH):
            # Pods are checked for it before any policy is asked.
            found.apply(
                {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": namespace}}
            )
            assert found.administrator.create(pod(namespace, name="there"), dry=False) == ""
        yield found


def pod(namespace: str, labels: Object | None = None, owner: tuple[str, str] | None = None, **options: Any) -> Object:
    """Return a pod without any privilege."""
    meta: Object = {"name": options.pop("name", "own"), "namespace": namespace, "labels": labels or {}}
    meta["annotations"] = options.pop("annotations", {})
    if owner is not None:
        version = "batch/v1" if owner[0] == "Job" else "apps/v1"
        meta["ownerReferences"] = [
            {"apiVersion": version, "kind": owner[0], "name": owner[1], "uid": "1", "controller": True}
        ]
    container = {"name": "a", "image": "registry.example/a", **options.pop("container", {})}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": [container], **options}}


def test_a_namespace_of_privileged_runs_takes_no_other_pods(wall: Wall) -> None:
    said = f"namespace {BENCH} permits privileged pods for runs (chart value harnessParity), so it takes no others"
    job = ("Job", "run")
    assert said in wall.user.create(pod(BENCH))
    assert said in wall.user.create(pod(BENCH, {"a": "b"}, job, hostPID=True))
    controller = wall.account(JOB_CONTROLLER, BENCH)
    assert said in controller.create(pod(BENCH, owner=job))
    assert said in wall.account(DAEMON_SET_CONTROLLER, BENCH).create(pod(BENCH, owner=("DaemonSet", "a")))
    assert controller.create(pod(BENCH, OURS, job, annotations=made_now(wall))) == ""
    assert wall.user.create(pod(PLAIN)) == ""


def made_now(wall: Wall) -> Object:
    """Return the annotations of the pods of a Job that was made under the present policies."""
    return {CHILDREN_POLICY_ANNOTATION: wall.children_policy()}


NOT_MADE_NOW = "permits privileged pods for runs alone, and the Job of this pod was not made by the operator under the"


@pytest.mark.parametrize("noted", [{}, {CHILDREN_POLICY_ANNOTATION: "1"}], ids=["nothing", "another"])
def test_the_controller_makes_no_pods_of_jobs_that_are_older_than_the_policies(wall: Wall, noted: Object) -> None:
    old = ("Job", "run")
    assert NOT_MADE_NOW in wall.account(JOB_CONTROLLER, BENCH).create(pod(BENCH, OURS, old, annotations=noted))
    assert wall.account(JOB_CONTROLLER, PLAIN).create(pod(PLAIN, OURS, old, annotations=noted)) == ""


def test_a_job_of_before_the_policies_gets_no_pod_where_runs_have_privileges(wall: Wall) -> None:
    """As the administrator, whom no policy stops, for nobody else can make one now."""
    spec = {"template": {"metadata": {"labels": OURS}, "spec": {**pod(BENCH)["spec"], "restartPolicy": "Never"}}}
    meta = {"name": "forged", "namespace": BENCH, "labels": OURS}
    body = {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": {**spec, "suspend": True}}
    assert wall.administrator.create(body, dry=False) == ""
    noted = {"spec": {"template": {"metadata": {"annotations": made_now(wall)}}}}
    assert "stay as they are" in wall.user.change("Job", BENCH, "forged", noted)
    assert wall.user.change("Job", BENCH, "forged", {"spec": {"suspend": False}}, dry=False) == ""
    assert NOT_MADE_NOW in warning_about(wall, BENCH, "forged")
    assert wall.administrator.get("Pod", BENCH, query="?labelSelector=job-name=forged")["items"] == []


def warning_about(wall: Wall, namespace: str, job: str) -> str:
    """Return why the real controller cannot make a Job's pod."""
    deadline = time.monotonic() + POD_SECONDS
    query = f"?fieldSelector=involvedObject.name={job},reason=FailedCreate"
    while not (found := wall.administrator.get("Event", namespace, query=query)["items"]):
        assert time.monotonic() < deadline, f"no warning about {job}"
        time.sleep(0.2)
    return str(found[0]["message"])


_NOWHERE, _NO_ADDRESS = "does not have a host assigned", "address not allowed"
"""What is said of a pod that is on no node, once the request is let through."""

ENTRANCES = (
    ("POST", "exec?command=id", _NOWHERE),
    ("GET", "exec?command=id", _NOWHERE),
    ("POST", "attach", _NOWHERE),
    ("POST", "portforward", _NOWHERE),
    ("GET", "proxy/", _NO_ADDRESS),
    ("DELETE", "proxy/", _NO_ADDRESS),
)


@pytest.mark.parametrize(("method", "entrance", "beyond"), ENTRANCES)
@pytest.mark.parametrize("namespace", [BENCH, SYSTEM], ids=["parity", "driver"])
def test_nobody_enters_a_pod_that_may_be_privileged(
    wall: Wall, namespace: str, method: str, entrance: str, beyond: str
) -> None:
    path = f"/api/v1/namespaces/{namespace}/pods/there/{entrance}"
    said = "so nobody enters them but the groups of chart value admissionPolicies.trustedGroups; possible: kubectl logs"
    assert said in wall.user.ask(method, path)[1]
    assert beyond in wall.administrator.ask(method, path)[1]


@pytest.mark.parametrize("namespace", [BENCH, SYSTEM], ids=["parity", "driver"])
def test_nobody_puts_a_container_beside_those_of_such_a_pod(wall: Wall, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/pods/there/ephemeralcontainers?dryRun=All"
    patch = {"spec": {"ephemeralContainers": [{"name": "debug", "image": "registry.example/a"}]}}
    how = "application/strategic-merge-patch+json"
    let_debug(wall, namespace)
    assert "so nobody enters them but the groups" in wall.user.ask("PATCH", path, patch, how)[1]
    assert wall.administrator.ask("PATCH", path, patch, how)[0] == 200


def let_debug(wall: Wall, namespace: str) -> None:
    """Let the user debug pods, which the role `admin` does not."""
    group, name = "rbac.authorization.k8s.io", "debug"
    meta = {"apiVersion": f"{group}/v1", "metadata": {"name": name, "namespace": namespace}}
    rules = [{"apiGroups": [""], "resources": ["pods/ephemeralcontainers"], "verbs": ["patch"]}]
    role = {"apiGroup": group, "kind": "Role", "name": name}
    subject = {"apiGroup": group, "kind": "User", "name": "alice"}
    wall.apply(
        {**meta, "kind": "Role", "rules": rules},
        {**meta, "kind": "RoleBinding", "roleRef": role, "subjects": [subject]},
    )
    wall.wait_for_rights("alice", namespace=namespace, verb="patch", resource="pods", subresource="ephemeralcontainers")


def claim(namespace: str, name: str, labels: Object | None = None) -> Object:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": namespace, "labels": labels or {}},
        "spec": spec,
    }


def test_what_privileged_runs_execute_is_not_swapped_with_its_claim(wall: Wall) -> None:
    said = "what lies on claim scratch, listed runs with the node's privileges"
    assert said in wall.user.create(claim(BENCH, "scratch"))
    # A run named so that its own claim would have that name, too.
    assert said in wall.operator.create(claim(BENCH, "scratch", OURS))
    assert wall.administrator.create(claim(BENCH, "scratch"), dry=False) == ""
    assert said in wall.user.delete("PersistentVolumeClaim", BENCH, "scratch")
    assert wall.administrator.delete("PersistentVolumeClaim", BENCH, "scratch") == ""
    assert wall.user.create(claim(BENCH, "other")) == wall.user.create(claim(PLAIN, "scratch")) == ""


def test_nobody_gives_such_a_claim_an_owner_or_a_volume(wall: Wall) -> None:
    """It would go with its owner, and has on it what the volume has."""
    said = "alone give it an owner or a volume"
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "bait", "uid": "1"}
    changes: tuple[Object, ...] = ({"metadata": {"ownerReferences": [owner]}}, {"spec": {"volumeName": "other"}})
    for name, expected in (("listed", said), ("unlisted", "")):
        body = claim(BENCH, name)
        # No class: nobody provides a volume for it.
        body["spec"]["storageClassName"] = ""
        assert wall.administrator.create(body, dry=False) == ""
        for change in changes:
            refused = wall.user.change("PersistentVolumeClaim", BENCH, name, change)
            assert (bool(refused), expected in refused) == (bool(expected), True)
            for somebody in (wall.account(BINDER, BENCH), wall.administrator):
                assert somebody.change("PersistentVolumeClaim", BENCH, name, change) == ""
        assert wall.user.change("PersistentVolumeClaim", BENCH, name, {"metadata": {"labels": {"a": "b"}}}) == ""


@pytest.mark.parametrize("name", ["run-agent", "run-gpu-config"])
def test_what_privileged_pods_mount_by_name_is_the_operators(wall: Wall, name: str) -> None:
    """Even for the moment in which a deleted run's ConfigMaps are gone and its Job is not yet."""
    said = "are what privileged pods execute (chart value harnessParity), so the operator alone makes them"
    assert said in wall.user.create(config_map(name, BENCH, {}))
    assert wall.user.create(config_map(name, PLAIN, {})) == ""
    assert wall.user.create(config_map("own", BENCH, {})) == ""
    assert wall.operator.create(config_map(name, BENCH, OURS)) == ""


def test_nobody_makes_a_config_map_of_before_a_runs(wall: Wall) -> None:
    owner = {"apiVersion": "mlperf.dev/v1alpha1", "kind": "MLPerfRun", "name": "old", "uid": "1"}
    change = {"metadata": {"ownerReferences": [owner]}}
    assert wall.administrator.create(config_map("old-agent", BENCH, {}), dry=False) == ""
    said = "the operator alone makes them and says whose they are"
    assert said in wall.user.change("ConfigMap", BENCH, "old-agent", change)
    assert wall.user.change("ConfigMap", BENCH, "old-agent", {"data": {"a": "c"}}) == ""


def job(selector: Object, *, privileged: bool) -> Object:
    container = {"name": "a", "image": "registry.example/a"}
    spec = {"restartPolicy": "Never", "nodeSelector": selector, "hostNetwork": privileged, "containers": [container]}
    meta = {"name": "own", "namespace": BENCH}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": meta,
        "spec": {"suspend": True, "template": {"spec": spec}},
    }


def test_privileged_pods_are_sent_to_no_other_nodes(wall: Wall) -> None:
    said = (
        f"privileged pods of namespace {BENCH} go to nodes with: pool=mlperf (chart value harnessParity, nodeSelector)"
    )
    for selector in ({}, {"pool": "other"}):
        assert said in wall.user.create(job(selector, privileged=True))
        assert wall.user.create(job(selector, privileged=False)) == ""
    assert wall.user.create(job({**SELECTOR, "a": "b"}, privileged=True), dry=False) == ""
    for patch, expected in (({"pool": "other"}, said), ({"pool": None}, said), ({"zone": "a"}, "")):
        change = {"spec": {"template": {"spec": {"nodeSelector": patch}}}}
        assert wall.user.change("Job", BENCH, "own", change) == expected


def test_a_namespace_of_privileged_runs_can_be_deleted(wall: Wall) -> None:
    assert wall.administrator.create(claim(DOOMED, "scratch"), dry=False) == ""
    administer(wall.kubeconfig, "delete", "namespace", DOOMED, "--timeout=60s")


PRIVILEGES: dict[str, Object] = {
    "privileged": {"container": {"securityContext": {"privileged": True}}},
    "capability": {"container": {"securityContext": {"capabilities": {"add": ["SYS_PTRACE"]}}}},
    "seccomp": {"container": {"securityContext": {"seccompProfile": {"type": "Unconfined"}}}},
    "seccomp of the pod": {"securityContext": {"seccompProfile": {"type": "Unconfined"}}},
    "apparmor": {"container": {"securityContext": {"appArmorProfile": {"type": "Unconfined"}}}},
    "host path": {"volumes": [{"name": "h", "hostPath": {"path": "/"}}]},
    "device plugins": {"volumes": [{"name": "h", "hostPath": {"path": "/var/lib/kubelet/device-plugins"}}]},
    "processes": {"hostPID": True},
    "ipc": {"hostIPC": True},
    "network": {"hostNetwork": True},
    "port": {"container": {"ports": [{"containerPort": 1, "hostPort": 1}]}},
    "an init container": {"initContainers": [{"name": "i", "image": "a", "securityContext": {"privileged": True}}]},
}


@pytest.mark.parametrize("name", PRIVILEGES)
def test_the_operators_namespace_takes_no_privileged_pods_of_others(wall: Wall, name: str) -> None:
    said = "the operator's namespace permits privileged pods for drivers alone (chart value driver.enabled)"
    assert said in wall.user.create(pod(SYSTEM, **PRIVILEGES[name]))
    assert wall.user.create(pod(PLAIN, **PRIVILEGES[name])) == ""


def test_the_operators_namespace_takes_pods_without_privileges(wall: Wall) -> None:
    assert wall.user.create(pod(SYSTEM)) == ""
    images = {"spec": {"containers": [{"name": "a", "image": "registry.example/evil"}]}}
    said = "the images of a pod in the operator's namespace stay as they are"
    assert said in wall.user.change("Pod", SYSTEM, "there", images, how="strategic-merge-patch")
    assert wall.user.change("Pod", SYSTEM, "there", {"metadata": {"labels": {"a": "b"}}}) == ""


def daemon_set(**changes: Any) -> Object:
    body = driver_daemon_set("Install", SETTINGS.drivers[0], SETTINGS, DriverImages(IMAGE, "IfNotPresent"), SYSTEM)
    spec = body["spec"]["template"]["spec"]
    spec["containers"][0].update(changes.pop("container", {}))
    spec.update(changes)
    return body


NAME = "mlperf-driver-550-54-14"


def test_the_operator_alone_makes_drivers(wall: Wall) -> None:
    said = "the operator alone makes and changes their DaemonSets; label a node mlperf.dev/driver-opt-in"
    assert said in wall.user.create(daemon_set())
    disguised = daemon_set()
    disguised["metadata"]["labels"] = {"a": "b"}
    assert said in wall.user.create(disguised)
    assert wall.operator.create(daemon_set(), dry=False) == ""
    change = {"spec": {"template": {"spec": {"hostIPC": True}}}}
    assert said in wall.user.change("DaemonSet", SYSTEM, NAME, change)
    assert wall.user.delete("DaemonSet", SYSTEM, NAME) == ""


@pytest.mark.parametrize(
    "changes",
    [
        {"container": {"image": "evil.example/a"}},
        {"container": {"command": ["sh", "-c", "id", "verify"]}},
        {"volumes": [{"name": "host", "hostPath": {"path": "/etc"}}]},
        {"automountServiceAccountToken": True},
        {"affinity": required_nodes({"matchExpressions": [{"key": "a", "operator": "Exists"}]})},
    ],
    ids=["image", "command", "folder", "token", "nodes"],
)
def test_the_operator_makes_no_other_privileged_daemon_set(wall: Wall, changes: Any) -> None:
    said = "a driver pod runs the operator's driver agent, from the operator's image"
    assert said in wall.operator.create(daemon_set(**changes))


def test_driver_pods_come_from_the_operators_daemon_sets(wall: Wall) -> None:
    said = "driver pods are made by the controller of the operator's DaemonSets alone, and keep their labels"
    body = pod(SYSTEM, DRIVER, ("DaemonSet", NAME), hostPID=True)
    assert said in wall.user.create(body)
    assert said in wall.account(JOB_CONTROLLER, SYSTEM).create(pod(SYSTEM, DRIVER, ("Job", NAME)))
    assert wall.account(DAEMON_SET_CONTROLLER, SYSTEM).create(body) == ""
    assert said in wall.user.change("Pod", SYSTEM, "there", {"metadata": {"labels": DRIVER}})


def test_the_device_plugin_alone_reaches_the_kubelets_folder(wall: Wall) -> None:
    controller = wall.account(DAEMON_SET_CONTROLLER, SYSTEM)
    folder = PRIVILEGES["device plugins"]
    own = ("DaemonSet", "mlperf-operator-device-plugin")
    assert controller.create(pod(SYSTEM, {}, own, container={"image": PLUGIN_IMAGE}, **folder)) == ""
    for container in ({"image": "evil.example/a"}, {"image": PLUGIN_IMAGE, "command": ["sh"]}):
        assert "for drivers alone" in controller.create(pod(SYSTEM, {}, own, container=container, **folder))
    other = pod(SYSTEM, {}, ("DaemonSet", "mine"), container={"image": PLUGIN_IMAGE}, **folder)
    assert "for drivers alone" in controller.create(other)
