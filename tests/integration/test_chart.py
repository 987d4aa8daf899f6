"""The chart: what helm refuses, what it renders, and that an API server takes it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import render_manifests
from golden.cases import CASES, Case, objects
from integration.chart import (
    APPLY_DRY,
    CHART,
    ROOT,
    Object,
    container,
    helm,
    kubectl,
    namespace_of,
    only,
    render,
    tools,
    verbs,
)
from mlperf_operator.grants import ParityGrant
from mlperf_operator.settings import Settings

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

EVERYTHING: Object = {
    "image": {"repository": "registry.example/mlperf-operator", "tag": "1", "pullPolicy": "Always"},
    "imagePullSecrets": [{"name": "registry"}],
    "replicas": 2,
    "gpuRuntimeClass": "nvidia",
    "allowRuntimeClassAccess": True,
    "suiteImages": {"reference-cpu": "registry.example/harness:1"},
    "suites": [{"name": "own"}],
    "allowedHostPaths": ["/mnt/a", "/mnt/b"],
    "allowedImages": ["registry.example/"],
    "allowedCodeClaims": ["bench/code", "other/code.v1"],
    "allowedNamespaces": ["bench", "other"],
    "harnessParity": {
        "bench": {"volumes": ["scratch", "/mnt/a"], "images": ["registry.example/a"], "nodeSelector": {"pool": "a"}}
    },
    "allowedUploadEndpoints": ["https://s3.example:9000", "http://10.0.0.1"],
    "allowedUploadSecrets": ["bench/mlperf-s3"],
    "workers": 4,
    "logLevel": "DEBUG",
    "serviceAccount": {"annotations": {"a": "b"}},
    "nodeSelector": {"a": "b"},
    "tolerations": [{"operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "podAnnotations": {"a": "b"},
}

USED: dict[tuple[str, str], set[str]] = {
    # informer.py lists and watches; plan.DeleteRun deletes.
    ("mlperf.dev", "mlperfruns"): {"list", "watch", "delete"},
    ("mlperf.dev", "mlperfruns/status"): {"patch"},
    ("mlperf.dev", "mlperfruns/finalizers"): {"update"},
    # act.py creates, gets what was there, sets suspend, and deletes a queued Job of a finished run.
    ("batch", "jobs"): {"get", "list", "watch", "create", "patch", "delete"},
    ("", "pods"): {"list", "watch"},
    ("", "pods/log"): {"get"},
    # act.py deletes what an earlier run of the name left, where the garbage collector missed it.
    ("", "configmaps"): {"get", "create", "delete"},
    ("", "persistentvolumeclaims"): {"get", "create"},
    ("", "events"): {"list", "create"},
}


def test_helm_has_nothing_to_complain_about() -> None:
    for values in ({}, EVERYTHING):
        done = helm("lint", "--strict", str(CHART), values=values)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"replicas": 0}, "'/replicas': minimum: got 0, want 1"),
        ({"replica": 2}, "additional properties 'replica' not allowed"),
        ({"image": {"pullPolicy": "Sometimes"}}, "'Always', 'IfNotPresent', 'Never'"),
        ({"image": {"tag": 1.5}}, "'/image/tag': got number, want string"),
        ({"image": {"repository": ""}}, "'/image/repository'"),
        ({"image": {"pullPolicy": None}}, "missing property 'pullPolicy'"),
        ({"resources": None}, "missing property 'resources'"),
        ({"logLevel": "info"}, "'DEBUG', 'INFO', 'WARNING', 'ERROR'"),
        ({"allowedHostPaths": ["data"]}, "'/allowedHostPaths/0': 'data' does not match"),
        ({"allowedHostPaths": "/data"}, "'/allowedHostPaths': got string, want array"),
        ({"allowedImages": ["a,b"]}, "'/allowedImages/0'"),
        ({"allowedCodeClaims": ["code"]}, "'/allowedCodeClaims/0': 'code' does not match"),
        ({"allowedNamespaces": ["a/b"]}, "'/allowedNamespaces/0': 'a/b' does not match"),
        ({"harnessParity": {"bench": ["scratch"]}}, "'/harnessParity/bench': got array, want object"),
        ({"harnessParity": {"bench": {"volumes": ["../a"]}}}, "'/harnessParity/bench/volumes/0'"),
        ({"harnessParity": {"bench": {"image": "a"}}}, "additional properties 'image' not allowed"),
        ({"harnessParity": {"Bench": {}}}, "'Bench' does not match"),
        ({"allowedUploadEndpoints": ["s3.example"]}, "'/allowedUploadEndpoints/0'"),
        ({"allowedUploadSecrets": ["s3"]}, "'/allowedUploadSecrets/0': 's3' does not match"),
        ({"suites": [{"image": "x"}]}, "'/suites/0': missing property 'name'"),
        ({"suiteImages": {"reference-cpu": ""}}, "'/suiteImages/reference-cpu'"),
        ({"crds": {"instal": True}}, "additional properties 'instal' not allowed"),
        ({"rbac": {"aggregate": "yes"}}, "'/rbac/aggregate': got string, want boolean"),
        ({"workers": 1000}, "'/workers': maximum: got 1,000, want 256"),
        ({"imagePullSecrets": ["registry"]}, "'/imagePullSecrets/0': got string, want object"),
    ],
)
def test_a_wrong_value_is_refused_and_named(values: Object, said: str) -> None:
    done = helm("template", "x", str(CHART), "--kube-version", "1.35.0", values=values)
    assert done.returncode != 0
    assert said in done.stderr


def test_a_cluster_that_is_too_old_is_refused() -> None:
    done = helm("template", "x", str(CHART), "--kube-version", "1.30.0")
    assert done.returncode != 0
    assert "incompatible with Kubernetes v1.30.0" in done.stderr


def test_the_operator_may_do_what_it_does_and_nothing_more() -> None:
    objects = render()
    role = only(objects, "ClusterRole", "mlperf-operator")
    assert verbs(role) == USED
    assert [rule for rule in role["rules"] if "resourceNames" in rule] == [
        # children_policy.py
        {
            "apiGroups": ["admissionregistration.k8s.io"],
            "resources": ["validatingadmissionpolicybindings"],
            "resourceNames": ["mlperf-operator-children"],
            "verbs": ["get"],
        }
    ]
    lease = only(objects, "Role")
    assert lease["rules"] == [
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]},
        {
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "resourceNames": ["mlperf-operator"],
            "verbs": ["get", "update"],
        },
    ]


def test_without_policies_the_operator_asks_for_none() -> None:
    objects = render({"admissionPolicies": {"enabled": False}})
    assert not [rule for rule in only(objects, "ClusterRole", "mlperf-operator")["rules"] if "resourceNames" in rule]
    assert "MLPERF_OPERATOR_CHILDREN_POLICY" not in {entry["name"] for entry in container(objects)["env"]}


def test_the_roles_are_bound_to_the_service_account_of_the_pod() -> None:
    objects = render(namespace="elsewhere")
    account = only(objects, "ServiceAccount")["metadata"]
    assert account["namespace"] == "elsewhere"
    assert only(objects, "Deployment")["spec"]["template"]["spec"]["serviceAccountName"] == account["name"]
    subject = {"kind": "ServiceAccount", "name": account["name"], "namespace": "elsewhere"}
    for kind, role in (("ClusterRoleBinding", "ClusterRole"), ("RoleBinding", "Role")):
        binding = only(objects, kind)
        assert binding["subjects"] == [subject]
        assert binding["roleRef"]["kind"] == role


def test_who_may_edit_a_namespace_may_edit_runs_there_but_not_their_status() -> None:
    objects = render()
    for suffix, labels in (("edit", {"edit", "admin"}), ("view", {"view"})):
        role = only(objects, "ClusterRole", f"mlperf-operator-{suffix}")
        found = {key.rpartition("-")[2] for key in role["metadata"]["labels"] if "aggregate-to" in key}
        assert found == labels
        assert {resource for _, resource in verbs(role)} == {"mlperfruns"}
    assert not [o for o in render({"rbac": {"aggregate": False}}) if o["metadata"]["name"].endswith(("-edit", "-view"))]


@pytest.mark.parametrize("kind", ["Deployment", "Pod"])
def test_no_pod_of_the_chart_has_a_privilege(kind: str) -> None:
    made = only(render(EVERYTHING), kind)
    pod = made["spec"]["template"]["spec"] if kind == "Deployment" else made["spec"]
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    for found in pod["containers"]:
        assert found["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    assert pod["enableServiceLinks"] is False


def test_the_operator_is_probed_where_it_answers() -> None:
    operator = container(render())
    assert operator["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "health"}
    assert operator["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "health"}
    assert {"name": "health", "containerPort": Settings().health_port} in operator["ports"]


def test_every_value_reaches_the_operator_as_the_setting_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    prefix = Settings.model_config["env_prefix"]
    variables = container(render(EVERYTHING))["env"]
    names = {entry["name"].removeprefix(prefix).lower() for entry in variables}
    assert names <= set(Settings.model_fields)
    for entry in variables:
        monkeypatch.setenv(entry["name"], entry.get("value", "from-the-pod"))
    settings = Settings.from_environment()
    assert settings.namespace == settings.identity == "from-the-pod"
    assert settings.image == "registry.example/mlperf-operator:1"
    assert settings.image_pull_policy == "Always"
    assert settings.gpu_runtime_class == "nvidia"
    assert settings.suite_images == {"reference-cpu": "registry.example/harness:1"}
    assert settings.allowed_host_paths == ("/mnt/a", "/mnt/b")
    assert settings.allowed_images == ("registry.example/",)
    assert settings.allowed_code_claims == ("bench/code", "other/code.v1")
    assert settings.allowed_namespaces == ("bench", "other")
    assert settings.harness_parity == {
        "bench": ParityGrant(volumes=("scratch", "/mnt/a"), images=("registry.example/a",), node_selector={"pool": "a"})
    }
    assert settings.allowed_upload_secrets == ("bench/mlperf-s3",)
    assert settings.allowed_upload_endpoints == ("https://s3.example:9000", "http://10.0.0.1")
    assert (settings.workers, settings.log_level) == (4, "DEBUG")
    assert str(settings.suites_file) == "/etc/mlperf-operator/suites.yaml"


def test_the_suites_of_the_administrator_are_mounted_where_they_are_read() -> None:
    objects = render(EVERYTHING)
    [mount] = [m for m in container(objects)["volumeMounts"] if m["name"] == "suites"]
    assert mount["mountPath"] == "/etc/mlperf-operator"
    kept = only(objects, "ConfigMap")
    assert yaml.safe_load(kept["data"]["suites.yaml"]) == EVERYTHING["suites"]
    [volume] = [v for v in only(objects, "Deployment")["spec"]["template"]["spec"]["volumes"] if v["name"] == "suites"]
    assert volume["configMap"]["name"] == kept["metadata"]["name"]


def test_new_suites_restart_the_operator() -> None:
    annotations = [
        only(render(values), "Deployment")["spec"]["template"]["metadata"]["annotations"]
        for values in (EVERYTHING, {**EVERYTHING, "suites": [{"name": "other"}]})
    ]
    assert annotations[0] != annotations[1]


def test_the_crd_comes_with_the_chart_and_stays_when_it_goes() -> None:
    crd = only(render(), "CustomResourceDefinition")
    assert crd["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert not [o for o in render({"crds": {"install": False}}) if o["kind"] == "CustomResourceDefinition"]


def test_the_notes_name_the_deployment() -> None:
    done = helm("install", "mine", str(CHART), "--dry-run=client", "--namespace", "ns")
    assert "deployment/mine-mlperf-operator" in done.stdout.partition("NOTES:")[2], done.stderr


@pytest.mark.parametrize("given", [True, False])
def test_the_notes_name_the_image_that_a_first_run_lacks(given: bool) -> None:
    options = ["--set", "suiteImages.reference-cpu=registry.example/harness:1"] if given else []
    done = helm("install", "mine", str(CHART), "--dry-run=client", *options)
    notes = done.stdout.partition("NOTES:")[2]
    assert "kubectl describe mlr reference-cpu" in notes, done.stderr
    assert ("--set suiteImages.reference-cpu" in notes) is not given


def test_the_notes_say_what_a_namespace_with_privileged_runs_must_permit() -> None:
    labels = "pod-security.kubernetes.io/enforce=privileged mlperf.dev/others-pod-security=baseline"
    told = f"kubectl label namespace bench --overwrite {labels}"
    options = ["--set", "harnessParity.bench.volumes={mlperf-scratch}"]
    assert told in helm("install", "mine", str(CHART), "--dry-run=client", *options).stdout
    assert "HarnessParity" not in helm("install", "mine", str(CHART), "--dry-run=client").stdout.partition("NOTES:")[2]


def test_no_rendered_manifest_is_stale(capsys: pytest.CaptureFixture[str]) -> None:
    tools("helm")
    assert render_manifests.main(["--check"]) == 0, capsys.readouterr().err


def test_kustomize_builds_the_same_objects_as_the_chart() -> None:
    done = kubectl("kustomize", str(ROOT / "manifests"))
    assert done.returncode == 0, done.stderr
    built = {(o["kind"], o["metadata"]["name"]) for o in yaml.safe_load_all(done.stdout)}
    made = {(o["kind"], o["metadata"]["name"]) for o in render() if o["kind"] != "Pod"}
    # Policies that repeat the values would not know of what is edited in the Deployment.
    kinds, limits = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"), ("runs", "jobs")
    with_values = {(kind, f"mlperf-operator-{name}") for kind in kinds for name in limits}
    assert made >= with_values
    assert built == made - with_values | {("Namespace", "mlperf-system")}


@pytest.fixture
def strict_namespace(kubeconfig: str) -> Iterator[str]:
    """A namespace that takes only restricted pods, and warns of what makes others."""
    with namespace_of(kubeconfig, "restricted") as name:
        yield name


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_an_api_server_takes_it_all_in_a_restricted_namespace(
    kubeconfig: str, strict_namespace: str, values: Object
) -> None:
    text = yaml.safe_dump_all(o for o in render(values, namespace=strict_namespace) if o["kind"] != "ServiceAccount")
    done = kubectl(*APPLY_DRY, kubeconfig=kubeconfig, stdin=text)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_api_server_takes_what_is_made_from_a_run(kubeconfig: str, strict_namespace: str, case: Case) -> None:
    bodies = list(objects(case).values())
    for body in bodies:
        body["metadata"]["namespace"] = strict_namespace
    # kubectl keeps what it applied in an annotation, which plan.json and stage.py are too long for.
    done = kubectl("create", "--dry-run=server", "-f", "-", kubeconfig=kubeconfig, stdin=yaml.safe_dump_all(bodies))
    assert done.returncode == 0, done.stderr
    # NVIDIA's image needs root; the reference suite runs where nothing is allowed.
    assert ("would violate PodSecurity" in done.stderr) == (case.spec["suite"] == "nvidia-v4.1")
    assert "unknown field" not in done.stderr
