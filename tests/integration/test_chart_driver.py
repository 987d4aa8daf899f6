"""The chart's driver management: what is refused, what it permits, and where the device plugin runs."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

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
    verbs,
)
from mlperf_operator.catalogue import DriverSettings
from mlperf_operator.settings import Settings

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

KEY = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmQ==\n-----END PGP PUBLIC KEY BLOCK-----\n"
REPOSITORY: Object = {"url": "https://nvidia.example/cuda", "suite": "stable", "components": ["main"], "key": KEY}
FABRIC_MANAGER = [{"name": "nvidia-fabricmanager-550", "version": "1:550.54.14-1"}]
PACKAGES: Object = {
    "type": "Packages",
    "os": ["ubuntu 22.04", "debian"],
    "manager": "apt",
    "repository": REPOSITORY,
    "driver": [{"name": "nvidia-driver-550-server", "version": "550.54.14-0ubuntu0.22.04.1"}],
    "fabricManager": FABRIC_MANAGER,
    "buildsModule": False,
    "signedModule": True,
}
RUN_FILE: Object = {
    "type": "RunFile",
    "os": ["opensuse-leap 15.6"],
    "hostPath": "/opt/cuda_12.4.0_550.54.14_linux.run",
    "sha256": "0" * 64,
    "toolkit": False,
    "manager": "zypper",
    "repository": {"url": "file:///srv/cuda", "key": KEY},
    "fabricManager": FABRIC_MANAGER,
}
TOOLKIT_SOURCE: Object = {
    "os": ["ubuntu"],
    "manager": "apt",
    "repository": REPOSITORY,
    "packages": [{"name": "nvidia-container-toolkit", "version": "1.17.8-1"}],
}
SETTINGS: Object = {
    "drivers": [
        # Helm reads numbers as floats, which YAML then writes as 8.589934592e+09.
        {"branch": "550", "version": "550.54.14", "minFreeBytes": 8 * 1024**3, "sources": [PACKAGES, RUN_FILE]},
        {"branch": "535", "version": "535.183", "sources": [{**PACKAGES, "fabricManager": []}]},
    ],
    "toolkit": {"sources": [TOOLKIT_SOURCE], "setAsDefault": True, "containerdConfig": "/etc/containerd/x.toml"},
    "mirrors": [{"prefix": "https://nvidia.example", "replacement": "http://mirror.internal:8080/nvidia"}],
    "evictGpuPods": True,
    "hostRoot": "/srv/node",
    "retrySeconds": 5,
    "verifyPort": 20399,
    "tolerations": [{"key": "sku", "operator": "Equal", "value": "gpu", "effect": "NoExecute", "tolerationSeconds": 9}],
}
ON: Object = {"driver": {"enabled": True}}
EVERYTHING: Object = {
    "gpuRuntimeClass": "nvidia",
    "imagePullSecrets": [{"name": "registry"}, {"name": "mirror"}],
    "driver": {"enabled": True, **SETTINGS, "devicePlugin": {"enabled": True}, "runtimeClass": {"create": True}},
}
NODES = {("", "nodes"): {"list", "watch", "patch"}}


def plugin(values: Object, **options: Any) -> Object:
    return only(render(values, **options), "DaemonSet", "mlperf-operator-device-plugin")


def with_driver(**changes: Any) -> Object:
    return {"drivers": [{"branch": "550", "version": "550.54.14", "sources": [PACKAGES], **changes}]}


def test_helm_has_nothing_to_complain_about() -> None:
    for values in (ON, EVERYTHING):
        done = helm("lint", "--strict", str(CHART), values=values)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("driver", "said"),
    [
        ({"enabled": "yes"}, "'/driver/enabled': got string, want boolean"),
        ({"evictGpuPod": True}, "additional properties 'evictGpuPod' not allowed"),
        ({"mirrors": None}, "missing property 'mirrors'"),
        ({"drivers": [{"branch": "550", "version": "550.54.14"}]}, "'/driver/drivers/0': missing property 'sources'"),
        (with_driver(branch=550), "'/driver/drivers/0/branch': got number, want string"),
        (with_driver(version="550"), "'/driver/drivers/0/version': '550' does not match"),
        (with_driver(sources=[{"type": "Tarball"}]), "'/driver/drivers/0/sources/0/type': value must be one of"),
        (with_driver(sources=[{}]), "'/driver/drivers/0/sources/0': missing property 'type'"),
        (with_driver(sources=[{**PACKAGES, "os": ["Ubuntu"]}]), "'/driver/drivers/0/sources/0/os/0': 'Ubuntu' does"),
        (with_driver(sources=[{**RUN_FILE, "sha256": "a"}]), "'/driver/drivers/0/sources/0/sha256': 'a' does not"),
        (with_driver(sources=[{**PACKAGES, "pakages": []}]), "additional properties 'pakages' not allowed"),
        ({"toolkit": {}}, "'/driver/toolkit': missing property 'sources'"),
        ({"toolkit": "1.17"}, "'/driver/toolkit': got string, want null or object"),
        ({"mirrors": [{"prefix": "https://a"}]}, "'/driver/mirrors/0': missing property 'replacement'"),
        ({"hostRoot": "node"}, "'/driver/hostRoot': 'node' does not match"),
        ({"retrySeconds": 0}, "'/driver/retrySeconds': minimum: got 0, want 1"),
        ({"verifyPort": 80}, "'/driver/verifyPort': minimum: got 80, want 1,024"),
        ({"tolerations": [{"operator": "Is"}]}, "'/driver/tolerations/0/operator': value must be one of"),
        ({"devicePlugin": {"image": {"tag": ""}}}, "'/driver/devicePlugin/image/tag'"),
        ({"devicePlugin": {"enable": True}}, "additional properties 'enable' not allowed"),
        ({"runtimeClass": {"create": "yes"}}, "'/driver/runtimeClass/create': got string, want boolean"),
    ],
)
def test_a_wrong_value_is_refused_and_named(driver: Object, said: str) -> None:
    done = helm("template", "x", str(CHART), "--kube-version", "1.35.0", values={"driver": driver})
    assert done.returncode != 0
    assert said in done.stderr


def bare(schema: Any, definitions: Object) -> Any:
    """Return a JSON schema without references, prose and defaults; what may be null as if it were given."""
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return bare(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    if "anyOf" in schema:
        [given] = [option for option in schema["anyOf"] if option != {"type": "null"}]
        return bare(given, definitions)
    if "oneOf" in schema or schema.get("properties", {}).get("type") == {"enum": ["Packages", "RunFile"]}:
        options = schema["oneOf"] if "oneOf" in schema else [schema["else"], schema["then"]]
        return [bare(option, definitions) for option in options]
    if "then" in schema:
        return bare(schema["then"], definitions)
    kept = {key: value for key, value in schema.items() if key not in {"description", "title", "default"}}
    if "properties" in kept:
        kept["properties"] = {key: bare(value, definitions) for key, value in kept["properties"].items()}
        kept["required"] = sorted(kept.get("required", ()))
    if "items" in kept:
        kept["items"] = bare(kept["items"], definitions)
    return kept


def test_the_chart_takes_exactly_what_the_operator_reads() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    chart = bare(schema["properties"]["driver"], schema["definitions"])["properties"]
    model = DriverSettings.model_json_schema(by_alias=True)
    assert {key: chart[key] for key in model["properties"]} == bare(model, model["$defs"])["properties"]
    assert set(chart) - set(model["properties"]) == {"enabled", "devicePlugin", "runtimeClass"}


def read_back(values: Object, monkeypatch: pytest.MonkeyPatch, folder: Path) -> DriverSettings:
    """Return what the operator would read of the file that the chart mounts."""
    text = only(render(values), "ConfigMap")["data"]["driver.yaml"]
    (folder / "driver.yaml").write_text(text)
    monkeypatch.setenv("MLPERF_OPERATOR_DRIVER_FILE", str(folder / "driver.yaml"))
    found = Settings.from_environment().driver()
    assert found is not None
    return found


def test_the_operator_reads_what_the_administrator_wrote(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = read_back(EVERYTHING, monkeypatch, tmp_path)
    assert found.model_dump(mode="json", by_alias=True, exclude_unset=True) == SETTINGS


def test_the_charts_defaults_are_the_operators(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert read_back(ON, monkeypatch, tmp_path) == DriverSettings()


def test_the_driver_file_is_mounted_where_it_is_read() -> None:
    objects = render(EVERYTHING)
    variables = {entry["name"]: entry.get("value") for entry in container(objects)["env"]}
    [mount] = [m for m in container(objects)["volumeMounts"] if m["name"] == "driver"]
    assert variables["MLPERF_OPERATOR_DRIVER_FILE"] == f"{mount['mountPath']}/driver.yaml"
    [volume] = [v for v in only(objects, "Deployment")["spec"]["template"]["spec"]["volumes"] if v["name"] == "driver"]
    assert volume["configMap"]["name"] == only(objects, "ConfigMap")["metadata"]["name"]
    prefix = Settings.model_config["env_prefix"]
    assert {name.removeprefix(prefix).lower() for name in variables} <= set(Settings.model_fields)


def test_new_driver_settings_restart_the_operator() -> None:
    def annotations(**changes: Any) -> Any:
        values = {"driver": {**EVERYTHING["driver"], **changes}}
        return only(render(values), "Deployment")["spec"]["template"]["metadata"]["annotations"]

    assert annotations() != annotations(retrySeconds=6)
    assert annotations() == annotations(runtimeClass={"create": False})


def test_the_operator_knows_what_driver_pods_pull_its_image_with(monkeypatch: pytest.MonkeyPatch) -> None:
    [variable] = [e for e in container(render(EVERYTHING))["env"] if e["name"] == "MLPERF_OPERATOR_IMAGE_PULL_SECRETS"]
    monkeypatch.setenv(variable["name"], variable["value"])
    assert Settings.from_environment().image_pull_secrets == ("registry", "mirror")


def test_without_driver_management_there_is_nothing_of_it() -> None:
    values = {"driver": {**EVERYTHING["driver"], "enabled": False}}
    assert [o["metadata"]["name"] for o in render(values)] == [o["metadata"]["name"] for o in render()]
    assert not {o["kind"] for o in render(values)} & {"DaemonSet", "RuntimeClass"}
    resources = {r for o in render(values) if o["kind"].endswith("Role") for _, r in verbs(o)}
    assert not resources & {"nodes", "daemonsets", "pods/eviction"}


@pytest.mark.parametrize("evict", [False, True])
def test_the_operator_may_change_nodes_and_its_own_driver_pods_and_nothing_more(evict: bool) -> None:
    objects = render({"driver": {"enabled": True, "evictGpuPods": evict}})
    evictions = {("", "pods/eviction"): {"create"}} if evict else {}
    assert verbs(only(objects, "ClusterRole", "mlperf-operator-driver")) == NODES | evictions
    assert verbs(only(objects, "Role", "mlperf-operator-driver")) == {
        ("apps", "daemonsets"): {"list", "create", "patch", "delete"},
        ("", "pods"): {"delete"},
    }
    before = only(render(), "ClusterRole", "mlperf-operator")
    assert only(objects, "ClusterRole", "mlperf-operator") == before


def test_the_driver_roles_are_bound_to_the_operators_account_alone() -> None:
    objects = render(ON, namespace="elsewhere")
    for kind, role in (("ClusterRoleBinding", "ClusterRole"), ("RoleBinding", "Role")):
        binding = only(objects, kind, "mlperf-operator-driver")
        subject = {"kind": "ServiceAccount", "name": "mlperf-operator", "namespace": "elsewhere"}
        assert binding["subjects"] == [subject]
        assert (binding["roleRef"]["kind"], binding["roleRef"]["name"]) == (role, "mlperf-operator-driver")
    assert only(objects, "Role", "mlperf-operator-driver")["metadata"]["namespace"] == "elsewhere"


def test_no_role_of_a_namespaces_users_reaches_nodes_or_daemonsets() -> None:
    aggregated = [
        o
        for o in render(EVERYTHING)
        if o["kind"] == "ClusterRole" and any("aggregate-to" in key for key in o["metadata"]["labels"])
    ]
    assert len(aggregated) == 2
    for role in aggregated:
        assert set(verbs(role)) == {("mlperf.dev", "mlperfruns")}


def test_the_runtime_class_is_made_when_it_is_asked_for() -> None:
    made = only(render(EVERYTHING), "RuntimeClass")
    assert (made["metadata"]["name"], made["handler"]) == ("nvidia", "nvidia")
    assert not [o for o in render(ON) if o["kind"] == "RuntimeClass"]


def test_the_device_plugin_has_the_privileges_of_nvidias_own_manifest_and_fails_without_a_driver() -> None:
    pod = plugin(EVERYTHING)["spec"]["template"]["spec"]
    [found] = pod["containers"]
    assert found["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert found["env"] == [{"name": "FAIL_ON_INIT_ERROR", "value": "true"}]
    assert found["image"] == "nvcr.io/nvidia/k8s-device-plugin:v0.17.1"
    assert [v["hostPath"]["path"] for v in pod["volumes"]] == ["/var/lib/kubelet/device-plugins"]
    assert (pod["automountServiceAccountToken"], pod["priorityClassName"]) == (False, "system-node-critical")
    assert "serviceAccountName" not in pod
    assert pod["enableServiceLinks"] is False
    assert pod["tolerations"] == SETTINGS["tolerations"]
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)


@pytest.mark.parametrize("name", ["nvidia", ""])
def test_the_device_plugin_sees_the_gpus_by_the_runtime_class_of_the_runs(name: str) -> None:
    pod = plugin({**EVERYTHING, "gpuRuntimeClass": name})["spec"]["template"]["spec"]
    assert pod.get("runtimeClassName", "") == name


def test_the_device_plugins_pods_are_not_the_deployments() -> None:
    objects = render(EVERYTHING)
    labels = plugin(EVERYTHING)["spec"]["template"]["metadata"]["labels"]
    assert labels.items() >= plugin(EVERYTHING)["spec"]["selector"]["matchLabels"].items()
    assert not labels.items() >= only(objects, "Deployment")["spec"]["selector"]["matchLabels"].items()


def test_the_notes_say_how_a_node_is_opted_in_and_what_the_namespace_must_permit() -> None:
    def notes(values: Object) -> str:
        done = helm("install", "mine", str(CHART), "--dry-run=client", "--namespace", "ns", values=values)
        return done.stdout.partition("NOTES:")[2]

    on = notes(ON)
    assert "kubectl label namespace ns --overwrite pod-security.kubernetes.io/enforce=privileged" in on
    assert "kubectl label node NODE mlperf.dev/driver-opt-in=install" in on
    assert "driver.drivers is empty" in on
    assert "driver.drivers is empty" not in notes(EVERYTHING)
    assert "driver-opt-in" not in notes({})
    unseen = {"driver": {**EVERYTHING["driver"], "toolkit": {"sources": [TOOLKIT_SOURCE]}}}
    assert "Neither gpuRuntimeClass nor driver.toolkit.setAsDefault is set" in notes(unseen)
    assert "Neither" not in notes({**unseen, "gpuRuntimeClass": "nvidia"})
    assert "Neither" not in notes({**EVERYTHING, "gpuRuntimeClass": ""})


def test_the_example_needs_only_the_repositories_keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    values = yaml.safe_load((ROOT / "examples/driver-values.yaml").read_text())
    done = helm("template", "x", str(CHART), "--kube-version", "1.35.0", values=values)
    assert "'/driver/drivers/0/sources/0/repository': missing property 'key'" in done.stderr
    assert "'/driver/toolkit/sources/0/repository': missing property 'key'" in done.stderr
    for source in (values["driver"]["drivers"][0]["sources"][0], values["driver"]["toolkit"]["sources"][0]):
        source["repository"]["key"] = KEY
    found = read_back(values, monkeypatch, tmp_path)
    assert found.names() == "550 (550.54.14)"
    assert plugin(values)["spec"]["template"]["spec"]["runtimeClassName"] == "nvidia"


def test_the_example_names_places_that_the_key_options_reach(tmp_path: Path) -> None:
    (tmp_path / "key.asc").write_text(KEY)
    example = ROOT / "examples/driver-values.yaml"
    places = [
        line.partition("--set-file '")[2].partition("=")[0]
        for line in example.read_text().splitlines()
        if "--set-file" in line
    ]
    options = [part for place in places for part in ("--set-file", f"{place}={tmp_path}/key.asc")]
    objects = render(yaml.safe_load(example.read_text()), *options)
    kept = yaml.safe_load(only(objects, "ConfigMap")["data"]["driver.yaml"])
    assert kept["drivers"][0]["sources"][0]["repository"]["key"] == KEY
    assert kept["toolkit"]["sources"][0]["repository"]["key"] == KEY


def apply_dry(kubeconfig: str, namespace: str, values: Object) -> str:
    """Let the API server judge all of the chart's objects; return its warnings."""
    # namespace_of has made that account already.
    objects = [
        o
        for o in render(values, namespace=namespace)
        if (o["kind"], o["metadata"]["name"]) != ("ServiceAccount", "mlperf-operator")
    ]
    text = yaml.safe_dump_all(objects)
    done = kubectl(*APPLY_DRY, kubeconfig=kubeconfig, stdin=text)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("(server dry run)") == len(objects)
    return done.stderr


@pytest.mark.parametrize("values", [ON, EVERYTHING], ids=["defaults", "everything"])
def test_an_api_server_takes_it_all_in_a_privileged_namespace(kubeconfig: str, values: Object) -> None:
    with namespace_of(kubeconfig, "privileged") as name:
        assert apply_dry(kubeconfig, name, values) == ""


def test_only_the_device_plugin_needs_more_than_a_restricted_namespace(kubeconfig: str) -> None:
    with namespace_of(kubeconfig, "restricted") as name:
        warnings = apply_dry(kubeconfig, name, EVERYTHING).splitlines()
    found = [line for line in warnings if "would violate PodSecurity" in line]
    assert len(found) == 1
    assert '"device-plugin"' in found[0]


@contextmanager
def node_of(kubeconfig: str, **labels: str) -> Iterator[str]:
    """Make a node with room and without a kubelet: pods are bound to it, and never start or end."""
    name = f"node-{uuid.uuid4().hex[:10]}"
    status = {"allocatable": {"cpu": "1", "memory": "1Gi", "pods": "9"}}
    body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}, "status": status}
    made = kubectl("create", "-f", "-", kubeconfig=kubeconfig, stdin=json.dumps(body))
    assert made.returncode == 0, made.stderr
    try:
        yield name
    finally:
        kubectl("delete", "node", name, kubeconfig=kubeconfig)


def nodes_with_the_plugin(kubeconfig: str, namespace: str) -> set[str]:
    """Return the nodes that have the DaemonSet's pods, without those that are to go."""
    done = kubectl("get", "pods", "-n", namespace, "-o", "json", kubeconfig=kubeconfig)
    assert done.returncode == 0, done.stderr
    pods = [pod for pod in json.loads(done.stdout)["items"] if "deletionTimestamp" not in pod["metadata"]]
    return {pod["spec"].get("nodeName", "") for pod in pods}


def wait_until(holds: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds:g} s"
        time.sleep(0.2)


def test_the_device_plugin_runs_only_where_a_driver_is_loaded_and_goes_before_it_is_changed(kubeconfig: str) -> None:
    loaded = "mlperf.dev/driver-loaded"
    with (
        namespace_of(kubeconfig, "privileged") as namespace,
        node_of(kubeconfig, **{loaded: "550.54.14"}) as ready,
        node_of(kubeconfig, **{"mlperf.dev/driver-wanted": "550.54.14", "nvidia.com/gpu.present": "true"}) as other,
    ):
        # By default every taint is tolerated, and so that of a node whose kubelet is silent.
        body = plugin({"driver": {"enabled": True, "devicePlugin": {"enabled": True}}}, namespace=namespace)
        made = kubectl("create", "-f", "-", kubeconfig=kubeconfig, stdin=json.dumps(body))
        assert made.returncode == 0, made.stderr
        wait_until(lambda: nodes_with_the_plugin(kubeconfig, namespace) == {ready})
        assert kubectl("label", "node", ready, f"{loaded}-", kubeconfig=kubeconfig).returncode == 0
        wait_until(lambda: nodes_with_the_plugin(kubeconfig, namespace) == set())
        assert kubectl("label", "node", other, f"{loaded}=535.183.06", kubeconfig=kubeconfig).returncode == 0
        wait_until(lambda: nodes_with_the_plugin(kubeconfig, namespace) == {other})
