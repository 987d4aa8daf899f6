"""The policies `jobs` and `nodes`: the operator's own account is held to the administrator's limits."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from golden.cases import CASES, HOST_PATHS, Case, objects
from integration.admission import Wall, config_map, fresh, in_force
from integration.admission_run import started
from integration.chart import Object

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

SYSTEM, BENCH, PLAIN, FORBIDDEN = fresh("system", "bench", "plain", "forbidden")

VALUES: Object = {
    "image": {"repository": "registry.example/mlperf-operator", "tag": "1"},
    "allowedNamespaces": [BENCH, PLAIN],
    "allowedImages": ["registry.example/mlperf", "registry.example/mlperf-code", "registry.example/mlperf-environment"],
    "allowedHostPaths": list(HOST_PATHS),
    "harnessParity": {BENCH: {"volumes": ["mlperf-scratch"], "images": ["registry.example/parity"]}},
    "driver": {"enabled": True},
}


@pytest.fixture(scope="module")
def wall(kubeconfig: str) -> Iterator[Wall]:
    with in_force(kubeconfig, VALUES, SYSTEM, [BENCH, PLAIN, FORBIDDEN]) as found:
        yield found


def jobs(case: Case, namespace: str) -> list[Object]:
    """Return the Jobs of a golden run, the one that reads results again too, as if it were in a namespace."""
    found = [copy.deepcopy(body) for body in objects(case).values() if body["kind"] == "Job"]
    for body in found:
        body["metadata"]["namespace"] = namespace
    return found


def job(name: str = "nvidia-default", namespace: str = PLAIN) -> Object:
    [case] = [case for case in CASES if case.name == name]
    return jobs(case, namespace)[0]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_operator_makes_every_job_that_it_makes(wall: Wall, case: Case) -> None:
    for body in jobs(case, BENCH):
        assert wall.operator.create(body) == ""


def test_what_a_run_may_have_with_the_nodes_privileges_it_has_where_that_is_allowed_alone(wall: Wall) -> None:
    body = job("nvidia-harness-parity-max-q", BENCH)
    assert wall.operator.create(body) == ""
    body["metadata"]["namespace"] = PLAIN
    assert "hostPath /dev/fuse is not allowed" in wall.operator.create(body)
    pod = _spec(body)
    pod["volumes"] = [volume for volume in pod["volumes"] if "hostPath" not in volume]
    for container in (*pod["initContainers"], *pod["containers"]):
        container["volumeMounts"] = [m for m in container["volumeMounts"] if not m["name"].startswith("device-")]
    assert "its network only with securityProfile HarnessParity" in wall.operator.create(body)
    del pod["hostNetwork"]
    assert "in the namespaces of chart value harnessParity" in wall.operator.create(body)


Change = Callable[[Any], object]

_OWNER = {"apiVersion": "v1", "kind": "ConfigMap", "name": "a", "uid": "3"}
_TOKEN = {"serviceAccountToken": {"path": "token"}}
_SECRET = {"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "S"}}}
_APPARMOR = "container.apparmor.security.beta.kubernetes.io/run"

FORBIDDEN_CHANGES: dict[str, tuple[Change, str]] = {
    "no owner": (lambda b: b["metadata"].pop("ownerReferences"), "with their labels and the run as the only owner"),
    "another owner": (lambda b: b["metadata"]["ownerReferences"][0].update(kind="Pod"), "the run as the only owner"),
    "two owners": (lambda b: b["metadata"]["ownerReferences"].append(_OWNER), "the run as the only owner"),
    "no labels": (lambda b: b["metadata"].update(labels={"a": "b"}), "with their labels and the run as the only owner"),
    "another uid": (lambda b: b["metadata"]["labels"].update({"mlperf.dev/run-uid": "2"}), "with their labels"),
    "a token": (lambda b: _spec(b).pop("automountServiceAccountToken"), "has no service account's token"),
    "an account": (lambda b: _spec(b).update(serviceAccountName="admin"), "has no service account's token"),
    "a projected token": (
        lambda b: _spec(b)["volumes"].append({"name": "t", "projected": {"sources": [_TOKEN]}}),
        "claims, host paths and empty folders as volumes, and no others",
    ),
    "a Secret": (lambda b: _spec(b)["volumes"].append({"name": "s", "secret": {"secretName": "s"}}), "and no others"),
    "a foreign ConfigMap": (
        lambda b: _spec(b)["volumes"].append({"name": "s", "configMap": {"name": "s"}}),
        "no others",
    ),
    "a Secret's value": (lambda b: _first(b)["env"].append(_SECRET), "in the container collect alone"),
    "all of a Secret": (lambda b: _first(b).update(envFrom=[{"secretRef": {"name": "s"}}]), "in the container collect"),
    "the node's root": (lambda b: _spec(b)["volumes"].append(_host("/")), "hostPath / is not allowed in a run's pod"),
    "a folder below a prefix": (
        lambda b: _spec(b)["volumes"].append(_host("/mnt/nvme/x")),
        "hostPath /mnt/nvme/x is not",
    ),
    "a device": (lambda b: _spec(b)["volumes"].append(_host("/dev/fuse", "CharDevice")), "hostPath /dev/fuse is not"),
    "a foreign image": (lambda b: _first(b).update(image="evil.example/a"), "evil.example/a"),
    "the node's processes": (lambda b: _spec(b).update(hostPID=True), "neither the node's processes nor its IPC"),
    "the node's IPC": (lambda b: _spec(b).update(hostIPC=True), "neither the node's processes nor its IPC"),
    "the node's network": (lambda b: _spec(b).update(hostNetwork=True), "its network only with securityProfile Har"),
    "a node's port": (lambda b: _first(b).update(ports=[{"containerPort": 1, "hostPort": 1}]), "its network only with"),
    "a node by name": (lambda b: _spec(b).update(nodeName="node"), "neither the node's processes"),
    "a sysctl": (
        lambda b: _spec(b)["securityContext"].update(sysctls=[{"name": "a.b", "value": "1"}]),
        "neither the node",
    ),
    "privileged": (lambda b: _security(b).update(privileged=True, allowPrivilegeEscalation=True), "is privileged"),
    "no seccomp profile": (lambda b: _spec(b)["securityContext"].pop("seccompProfile"), "seccomp profile is Runtime"),
    "SELinux options": (
        lambda b: _security(b).update(seLinuxOptions={"type": "spc_t"}),
        "no container of a run is privi",
    ),
    "unmasked /proc": (
        lambda b: (_security(b).update(procMount="Unmasked"), _spec(b).update(hostUsers=False)),
        "no contai",
    ),
    "more by setuid": (lambda b: _security(b).pop("allowPrivilegeEscalation"), "gains no privilege"),
    "a capability": (lambda b: _security(b).update(capabilities={"add": ["SYS_TIME"]}), "no capability but IPC_LOCK"),
    "no seccomp": (lambda b: _security(b).update(seccompProfile={"type": "Unconfined"}), "keeps the runtime's seccomp"),
    "no AppArmor": (
        lambda b: _security(b).update(appArmorProfile={"type": "Unconfined"}),
        "seccomp and AppArmor profil",
    ),
    "no AppArmor by annotation": (
        lambda b: b["spec"]["template"]["metadata"].update(annotations={_APPARMOR: "unconfined"}),
        "seccomp and AppArmor profiles",
    ),
    "the operator's namespace": (
        lambda b: b["metadata"].update(namespace=SYSTEM),
        "may make no Job in namespace system-",
    ),
    "a namespace without runs": (lambda b: b["metadata"].update(namespace=FORBIDDEN), "no Job in namespace forbidden-"),
}


def _spec(body: Any) -> Any:
    return body["spec"]["template"]["spec"]


def _first(body: Any) -> Any:
    return _spec(body)["initContainers"][0]


def _security(body: Any) -> Any:
    return _spec(body)["containers"][0]["securityContext"]


def _host(path: str, kind: str = "Directory") -> Object:
    return {"name": "h", "hostPath": {"path": path, "type": kind}}


@pytest.mark.parametrize("name", FORBIDDEN_CHANGES)
def test_the_operator_may_make_no_job_that_reaches_further(wall: Wall, name: str) -> None:
    change, said = FORBIDDEN_CHANGES[name]
    body = job()
    change(body)
    assert said in wall.operator.create(body)


PARITY_CHANGES: dict[str, tuple[Change, str]] = {
    "privileged": (lambda b: _security(b).update(privileged=True), "no container of a run is privileged"),
    "the node's processes": (lambda b: _spec(b).update(hostPID=True), "neither the node's processes nor its IPC"),
    "a capability": (lambda b: _security(b)["capabilities"]["add"].append("SYS_MODULE"), "SYS_ADMIN and SYS_TIME"),
    "another device": (
        lambda b: _spec(b)["volumes"].append(_host("/dev/mem", "CharDevice")),
        "hostPath /dev/mem is not",
    ),
    "a folder": (lambda b: _spec(b)["volumes"].append(_host("/dev/fuse")), "hostPath /dev/fuse is not allowed"),
    "an image for others": (lambda b: _first(b).update(image="registry.example/mlperf"), "is not allowed; possible: "),
}


@pytest.mark.parametrize("name", PARITY_CHANGES)
def test_not_even_a_run_with_the_nodes_privileges_gets_more_than_they_are(wall: Wall, name: str) -> None:
    change, said = PARITY_CHANGES[name]
    body = job("nvidia-harness-parity-max-q", BENCH)
    change(body)
    assert said in wall.operator.create(body)


def test_of_a_job_that_is_there_the_operator_changes_suspend_alone(wall: Wall) -> None:
    name = started(wall, PLAIN, suspend=True)
    assert wall.operator.change("Job", PLAIN, name, {"spec": {"suspend": False}}) == ""
    for patch in (
        {"spec": {"template": {"spec": {"nodeSelector": {"a": "b"}}}}},
        {"metadata": {"labels": {"mlperf.dev/run": "other"}}},
        {"metadata": {"ownerReferences": None}},
        {"spec": {"parallelism": 0}},
        {"spec": {"backoffLimit": 9}},
        {"spec": {"activeDeadlineSeconds": 1}},
    ):
        assert wall.operator.change("Job", PLAIN, name, patch) == "the operator may change nothing of a Job but suspend"


def test_the_operator_makes_and_deletes_nothing_but_what_is_a_runs(wall: Wall) -> None:
    said = "the operator makes, changes and deletes ConfigMaps, claims and Jobs of runs alone"
    assert wall.administrator.create(config_map("others", PLAIN, {}), dry=False) == ""
    assert said in wall.operator.create(config_map("own", PLAIN, {"mlperf.dev/run": "run"}))
    assert said in wall.operator.delete("ConfigMap", PLAIN, "others")
    pod = {"restartPolicy": "Never", "containers": [{"name": "a", "image": "registry.example/a"}]}
    spec = {"suspend": True, "template": {"spec": pod}}
    others = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "others", "namespace": PLAIN}, "spec": spec}
    assert wall.user.create(others, dry=False) == ""
    assert said in wall.operator.change("Job", PLAIN, "others", {"spec": {"suspend": False}})
    assert said in wall.operator.delete("Job", PLAIN, "others")
    name = started(wall, PLAIN, scratch={"claimTemplate": {"size": "1Gi"}}, suspend=True)
    assert wall.operator.delete("ConfigMap", PLAIN, f"{name}-agent") == ""
    assert wall.operator.delete("Job", PLAIN, name) == ""


@pytest.fixture
def node(wall: Wall) -> Iterator[str]:
    [name] = fresh("node")
    labels = {"mlperf.dev/driver-opt-in": "verify", "kubernetes.io/os": "linux"}
    taints = [{"key": "sku", "value": "gpu", "effect": "NoSchedule"}]
    meta = {"name": name, "labels": labels, "annotations": {"a": "b"}}
    body = {"apiVersion": "v1", "kind": "Node", "metadata": meta, "spec": {"taints": taints}}
    assert wall.administrator.create(body, dry=False) == ""
    yield name
    assert wall.administrator.delete("Node", "", name, dry=False) == ""


def meta(**fields: object) -> Object:
    return {"metadata": fields}


@pytest.mark.parametrize(
    "patch",
    [
        meta(labels={"mlperf.dev/driver-wanted": "550", "mlperf.dev/driver-ready": "550"}),
        meta(labels={"mlperf.dev/driver-loaded": None}, annotations={"mlperf.dev/driver-claim": "{}"}),
        {"spec": {"unschedulable": True}},
    ],
    ids=["labels", "annotations", "cordon"],
)
def test_of_a_node_the_operator_changes_what_drivers_need(wall: Wall, node: str, patch: Object) -> None:
    assert wall.operator.change("Node", "", node, patch) == ""


@pytest.mark.parametrize(
    ("patch", "said"),
    [
        (meta(labels={"mlperf.dev/driver-opt-in": "install"}), "mlperf.dev/driver-opt-in is the administrator's"),
        (
            meta(labels={"mlperf.dev/driver-opt-in": None}),
            "of a node's labels the operator may change mlperf.dev/driver-w",
        ),
        (meta(labels={"node-role.kubernetes.io/control-plane": ""}), "of a node's labels"),
        (meta(annotations={"a": "c"}), "of a node's annotations the operator may change its own alone"),
        (meta(annotations={"a": None}), "of a node's annotations"),
        (meta(finalizers=["a.example/b"]), "whether it is schedulable, nothing else"),
        ({"spec": {"taints": None}}, "whether it is schedulable, nothing else"),
        ({"spec": {"providerID": "other://node"}}, "whether it is schedulable, nothing else"),
    ],
)
def test_of_a_node_the_operator_changes_nothing_else(wall: Wall, node: str, patch: Object, said: str) -> None:
    assert said in wall.operator.change("Node", "", node, patch)
