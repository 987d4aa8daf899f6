"""The policy `children`: what belongs to a run is the operator's to make and nobody's to change."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from integration.admission import (
    DAEMON_SET_CONTROLLER,
    JOB_CONTROLLER,
    REPLICA_SET_CONTROLLER,
    Account,
    Wall,
    administer,
    config_map,
    fresh,
    in_force,
)
from integration.admission_run import pod_of, started
from integration.chart import Object

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

SYSTEM, TEAM = fresh("system", "team")
TRUSTED = "platform-team"
VALUES: Object = {
    "image": {"repository": "registry.example/mlperf-operator", "tag": "1"},
    "admissionPolicies": {"trustedGroups": ["system:masters", TRUSTED]},
}
OURS = {"mlperf.dev/run": "run", "mlperf.dev/run-uid": "1"}
POD: Object = {"restartPolicy": "Never", "containers": [{"name": "a", "image": "registry.example/a"}]}


@pytest.fixture(scope="module")
def wall(kubeconfig: str) -> Iterator[Wall]:
    with in_force(kubeconfig, VALUES, SYSTEM, [TEAM]) as found:
        yield found


@pytest.fixture(scope="module")
def run(wall: Wall) -> str:
    """A run whose pod is there, made by the real controller of Jobs, and on no node."""
    name = started(wall, TEAM, scratch={"claimTemplate": {"size": "1Gi"}}, suspend=True)
    assert wall.operator.change("Job", TEAM, name, {"spec": {"suspend": False}}, dry=False) == ""
    pod_of(wall, TEAM, name)
    return name


def job(labels: Object, inner: Object) -> Object:
    template = {"metadata": {"labels": inner}, "spec": POD}
    meta = {"name": "own", "namespace": TEAM, "labels": labels}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": {"template": template}}


def pod(labels: Object, owner: str = "") -> Object:
    meta: Object = {"name": "own", "namespace": TEAM, "labels": labels}
    if owner:
        version = "batch/v1" if owner == "Job" else "apps/v1"
        meta["ownerReferences"] = [{"apiVersion": version, "kind": owner, "name": "a", "uid": "1", "controller": True}]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": POD}


def claim(labels: Object) -> Object:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    meta = {"name": "own", "namespace": TEAM, "labels": labels}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": spec}


MADE_BY_THE_OPERATOR = "mark what the operator makes for a run; leave them out, or create an MLPerfRun"
MADE_BY_THE_CONTROLLER = "are made by the controller of a run's Job alone; create an MLPerfRun"


def test_objects_without_a_runs_labels_are_nobodys_business(wall: Wall) -> None:
    others = {"app.kubernetes.io/managed-by": "mlperf-operator", "mlperf.dev/other": "a"}
    for labels in ({}, {"a": "b"}, others):
        for body in (config_map("own", TEAM, labels), job(labels, labels), pod(labels), claim(labels)):
            assert wall.user.create(body) == ""


@pytest.mark.parametrize("labels", [{"mlperf.dev/run": "run"}, {"mlperf.dev/run-uid": "1"}], ids=["run", "uid"])
def test_a_user_makes_nothing_with_a_runs_labels(wall: Wall, labels: Object) -> None:
    for body in (config_map("own", TEAM, labels), job(labels, {}), job({}, labels), claim(labels)):
        assert MADE_BY_THE_OPERATOR in wall.user.create(body)
    assert MADE_BY_THE_CONTROLLER in wall.user.create(pod(labels))


def test_pods_with_a_runs_labels_come_from_jobs_alone(wall: Wall) -> None:
    # Where the controllers have no accounts of their own, they are all system:kube-controller-manager.
    for name in (JOB_CONTROLLER, "system:kube-controller-manager"):
        assert _rights(wall, name).create(pod(OURS, "Job")) == ""
        for owner in ("", "ReplicaSet", "DaemonSet"):
            assert MADE_BY_THE_CONTROLLER in _rights(wall, name).create(pod(OURS, owner))
    assert MADE_BY_THE_CONTROLLER in _rights(wall, REPLICA_SET_CONTROLLER).create(pod(OURS, "Job"))
    assert MADE_BY_THE_CONTROLLER in _rights(wall, DAEMON_SET_CONTROLLER).create(pod(OURS, "DaemonSet"))


def _rights(wall: Wall, name: str) -> Account:
    return wall.account(name, TEAM)


def meta(**fields: object) -> Object:
    return {"metadata": fields}


def test_the_real_controller_makes_the_runs_pod(wall: Wall, run: str) -> None:
    found = pod_of(wall, TEAM, run)
    assert found["metadata"]["labels"]["mlperf.dev/run"] == run
    assert found["spec"]["containers"][0]["name"] == "run"


CHANGED = "a run's labels may be neither added nor changed nor removed (mlperf.dev/run, mlperf.dev/run-uid, "


@pytest.mark.parametrize(
    "labels",
    [
        *({key: value} for key in ("mlperf.dev/run", "mlperf.dev/run-uid") for value in ("other", None)),
        *({f"app.kubernetes.io/{key}": None} for key in ("managed-by", "component", "name")),
    ],
)
def test_nobody_changes_the_labels_of_a_run(wall: Wall, run: str, labels: Object) -> None:
    pod_name = pod_of(wall, TEAM, run)["metadata"]["name"]
    for kind, name in (
        ("Job", run),
        ("Pod", pod_name),
        ("PersistentVolumeClaim", f"{run}-scratch"),
        ("ConfigMap", f"{run}-agent"),
    ):
        assert CHANGED in wall.user.change(kind, TEAM, name, meta(labels=labels))
    assert CHANGED in _rights(wall, "kueue").change("Job", TEAM, run, meta(labels=labels))


def test_nobody_gives_their_own_objects_a_runs_labels(wall: Wall) -> None:
    assert wall.user.create(config_map("mine", TEAM, {}), dry=False) == ""
    assert CHANGED in wall.user.change("ConfigMap", TEAM, "mine", meta(labels=OURS))


def test_nobody_takes_an_object_from_its_run(wall: Wall, run: str) -> None:
    pod_name = pod_of(wall, TEAM, run)["metadata"]["name"]
    for kind, name in (("Job", run), ("Pod", pod_name), ("ConfigMap", f"{run}-agent")):
        assert "to be rid of it, delete the MLPerfRun" in wall.user.change(kind, TEAM, name, meta(ownerReferences=None))


def test_nobody_swaps_what_a_runs_pod_executes(wall: Wall, run: str) -> None:
    changed = "what its pod executes and stay as they are; delete the MLPerfRun and create another"
    assert changed in wall.user.change("ConfigMap", TEAM, f"{run}-agent", meta(annotations={"a": "b"}))
    for name in (f"{run}-agent", f"{run}-gpu-config"):
        assert "go with it; delete the MLPerfRun instead" in wall.user.delete("ConfigMap", TEAM, name)
    path = f"/api/v1/namespaces/{TEAM}/configmaps?labelSelector=mlperf.dev/run={run}"
    assert "go with it; delete the MLPerfRun instead" in wall.user.ask("DELETE", path, {"dryRun": ["All"]})[1]
    pod_name = pod_of(wall, TEAM, run)["metadata"]["name"]
    for field, container in (("containers", "run"), ("initContainers", "preflight")):
        images = {"spec": {field: [{"name": container, "image": "registry.example/evil"}]}}
        assert "the images of a run's pod stay as they are" in wall.user.change(
            "Pod", TEAM, pod_name, images, how="strategic-merge-patch"
        )


def test_a_run_that_leaves_its_children_leaves_them_as_they_are(wall: Wall) -> None:
    """Else its Job, which is still there, could be started with another program."""
    name = started(wall, TEAM, suspend=True)
    path = f"/apis/mlperf.dev/v1alpha1/namespaces/{TEAM}/mlperfruns/{name}"
    assert wall.user.ask("DELETE", path, {"propagationPolicy": "Orphan"})[0] == 200
    administer(wall.kubeconfig, "wait", "--for=delete", f"mlperfrun/{name}", "-n", TEAM, "--timeout=60s")
    kept = wall.administrator.get("ConfigMap", TEAM, f"{name}-agent")
    assert "ownerReferences" not in kept["metadata"]
    assert "go with it; delete the MLPerfRun instead" in wall.user.delete("ConfigMap", TEAM, f"{name}-agent")
    assert wall.user.delete("Job", TEAM, name) == ""


def test_a_user_still_labels_deletes_and_tolerates(wall: Wall, run: str) -> None:
    pod_name = pod_of(wall, TEAM, run)["metadata"]["name"]
    for kind, name in (("Job", run), ("Pod", pod_name), ("PersistentVolumeClaim", f"{run}-scratch")):
        assert wall.user.change(kind, TEAM, name, meta(labels={"team": "a"}, annotations={"a": "b"})) == ""
        assert wall.user.delete(kind, TEAM, name) == ""
    assert wall.user.delete("MLPerfRun", TEAM, run) == ""


def test_kueue_admits_a_run(wall: Wall) -> None:
    """What its Job integration writes: suspend, where the pods go, and labels of its own."""
    name = started(wall, TEAM, suspend=True)
    toleration = {"key": "gpu", "operator": "Exists"}
    template = {
        "metadata": {"labels": {"kueue.x-k8s.io/podset": "main"}, "annotations": {"kueue.x-k8s.io/workload": "a"}},
        "spec": {"nodeSelector": {"pool": "gpu"}, "tolerations": [toleration]},
    }
    patch = {"metadata": {"labels": {"kueue.x-k8s.io/a": "b"}}, "spec": {"suspend": False, "template": template}}
    assert _rights(wall, "kueue").change("Job", TEAM, name, patch) == ""


@pytest.mark.parametrize("field", ["labels", "annotations"])
def test_nobody_tells_webhooks_to_add_to_a_runs_pod(wall: Wall, field: str) -> None:
    """Of a suspended Job Kubernetes lets both be changed; Istio, say, takes an image and volumes from them."""
    name = started(wall, TEAM, suspend=True)
    said = "the labels and annotations of a run's pods stay as they are, but those that begin with kueue.x-k8s.io/"
    for key, expected in (("sidecar.istio.io/inject", said), ("kueue.x-k8s.io/a", "")):
        change = {"spec": {"template": {"metadata": {field: {key: "true"}}}}}
        refused = wall.user.change("Job", TEAM, name, change)
        assert (bool(refused), expected in refused) == (bool(expected), True)


def test_who_is_trusted_mends_by_hand(wall: Wall, run: str) -> None:
    trusted = Account(wall.kubeconfig, wall.account("bob", TEAM).name, TRUSTED)
    for somebody in (wall.administrator, trusted):
        assert somebody.create(config_map("own", TEAM, OURS)) == ""
        assert somebody.change("Job", TEAM, run, meta(labels={"mlperf.dev/run": "other"})) == ""
        assert somebody.delete("ConfigMap", TEAM, f"{run}-agent") == ""
    assert Account(wall.kubeconfig, "bob", "others").create(config_map("own", TEAM, OURS)) != ""


def test_a_run_goes_with_all_that_it_has(wall: Wall) -> None:
    """The real garbage collector, and the namespace's end, are let through."""
    name = started(wall, TEAM, suspend=True)
    assert wall.user.delete("MLPerfRun", TEAM, name, dry=False) == ""
    children = (f"configmap/{name}-agent", f"configmap/{name}-gpu-config", f"job/{name}")
    administer(wall.kubeconfig, "wait", "--for=delete", *children, "-n", TEAM, "--timeout=60s")


def test_a_namespace_goes_with_its_runs(wall: Wall) -> None:
    [name] = fresh("gone")
    wall.add_namespace(name)
    started(wall, name, suspend=True)
    administer(wall.kubeconfig, "delete", "namespace", name, "--timeout=60s")
