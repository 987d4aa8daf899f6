"""Configuration files and command lines."""

import json
import tomllib
from pathlib import Path

import pytest
from local_cluster import render
from local_cluster.addresses import place
from local_cluster.components import NAMES, components
from local_cluster.layout import Layout, Ports, Spec, all_specs

PROGRAMS = Path("/programs")


def _argv(layout: Layout, name: str, *, full: bool = True, audit: bool = False, slot: int = 0) -> list[str]:
    spec = Spec("test", full=full, audit=audit, ports=Ports(), slot=slot)
    return next(list(item.argv) for item in components(layout, spec, PROGRAMS) if item.name == name)


def test_containerd_keeps_to_the_clusters_folders(layout: Layout) -> None:
    config = tomllib.loads(render.containerd(layout))
    cri = config["plugins"]["io.containerd.grpc.v1.cri"]
    runc = cri["containerd"]["runtimes"]["runc"]["options"]
    for path in (config["root"], config["state"], config["grpc"]["address"], cri["cni"]["conf_dir"], runc["Root"]):
        assert Path(path).is_relative_to(layout.state) or Path(path).is_relative_to(layout.run)
    assert cri["sandbox_image"] == render.PAUSE_IMAGE
    assert runc["SystemdCgroup"] is False


def test_pods_get_addresses_of_the_pod_range(layout: Layout) -> None:
    plugin = json.loads(render.cni(layout, place(2)))["plugins"][0]
    assert plugin["ipam"]["ranges"] == [[{"subnet": "10.98.9.0/24"}]]
    assert Path(plugin["ipam"]["dataDir"]).is_relative_to(layout.run)


def test_the_kubelet_asks_who_its_callers_are(layout: Layout) -> None:
    config = json.loads(render.kubelet(layout, Ports(), place(0)))
    assert config["authentication"]["anonymous"] == {"enabled": False}
    assert config["authorization"] == {"mode": "Webhook"}
    assert config["cgroupDriver"] == "cgroupfs"
    assert config["failCgroupV1"] is False


def test_no_image_is_collected_as_garbage(layout: Layout) -> None:
    assert json.loads(render.kubelet(layout, Ports(), place(0)))["imageGCHighThresholdPercent"] == 100


def test_a_kubeconfig_names_one_cluster_and_one_user(layout: Layout) -> None:
    config = json.loads(render.kubeconfig(layout, Ports(apiserver=7443), "admin"))
    assert config["current-context"] == config["contexts"][0]["name"] == "mlperf-test"
    assert config["clusters"][0]["cluster"]["server"] == "https://127.0.0.1:7443"
    assert config["users"][0]["user"]["client-key"] == str(layout.certs / "admin.key")


@pytest.mark.parametrize(("full", "has_node_files"), [(True, True), (False, False)])
def test_only_a_cluster_with_a_node_gets_a_nodes_files(layout: Layout, *, full: bool, has_node_files: bool) -> None:
    names = set(render.all_files(layout, Spec("test", full=full, audit=False, ports=Ports())).by_name)
    assert ({"kubelet.json", "containerd.toml", "cni/10-mlperf.conflist"} <= names) is has_node_files
    assert {"admin.kubeconfig", "scheduler.kubeconfig", "controller-manager.kubeconfig"} <= names


def test_a_file_is_left_alone_when_its_content_is_right(tmp_path: Path) -> None:
    files = render.Files({"a/b": "text"})
    files.write(tmp_path)
    target = tmp_path / "a/b"
    target.chmod(0o400)
    before = target.stat().st_mtime_ns
    files.write(tmp_path)
    assert target.stat().st_mtime_ns == before


def test_the_api_server_authorizes_and_admits_like_a_production_one(layout: Layout) -> None:
    argv = _argv(layout, "kube-apiserver")
    assert "--authorization-mode=Node,RBAC" in argv
    assert "--enable-admission-plugins=NodeRestriction,PodSecurity" in argv
    assert "--anonymous-auth=false" in argv
    assert f"--kubelet-certificate-authority={layout.certs}/ca.crt" in argv


def test_without_a_node_the_api_server_listens_on_loopback_only(layout: Layout) -> None:
    argv = _argv(layout, "kube-apiserver", full=False)
    assert "--bind-address=127.0.0.1" in argv
    assert not [word for word in argv if "kubelet" in word]


@pytest.mark.parametrize("audit", [True, False])
def test_requests_are_logged_only_on_demand(layout: Layout, *, audit: bool) -> None:
    argv = _argv(layout, "kube-apiserver", audit=audit)
    assert (f"--audit-log-path={layout.logs}/audit.log" in argv) is audit


def test_a_control_plane_has_no_node_processes_and_starts_with_its_store(layout: Layout) -> None:
    spec = Spec("test", full=False, audit=False, ports=Ports())
    names = [item.name for item in components(layout, spec, PROGRAMS)]
    assert names == ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"]


@pytest.mark.parametrize("slot", [0, 1])
def test_every_process_carries_its_clusters_folder_so_that_a_stray_one_is_found(layout: Layout, slot: int) -> None:
    spec = Spec("test", full=True, audit=False, ports=Ports(), slot=slot)
    built = components(layout, spec, PROGRAMS)
    assert [item.name for item in built] == list(NAMES)
    assert all(f"{layout.state}/" in " ".join(item.argv) for item in built)


def test_the_first_node_uses_the_machines_network_and_a_further_one_its_own(layout: Layout) -> None:
    for name in ("containerd", "kubelet", "kube-proxy"):
        assert "nsenter" not in _argv(layout, name)
        assert _argv(layout, name, slot=1)[:2] == ["nsenter", f"--net={layout.network_namespace}"]
    assert "nsenter" not in _argv(layout, "kube-apiserver", slot=1)


def test_a_further_kubelet_has_its_own_device_plugins_and_cgroups(layout: Layout) -> None:
    for name in ("containerd", "kubelet"):
        argv = _argv(layout, name, slot=3)
        assert argv[argv.index("-c") + 2] == str(layout.device_plugins)
    assert str(layout.device_plugins) not in _argv(layout, "kubelet")
    assert json.loads(render.kubelet(layout, Ports(), place(3)))["cgroupRoot"] == "/mlperf3"
    assert json.loads(render.kubelet(layout, Ports(), place(0)))["cgroupRoot"] == "/"


def test_a_further_node_and_its_api_server_find_each_other(layout: Layout) -> None:
    spec = Spec("test", full=True, audit=False, ports=Ports(apiserver=20001, kubelet_health=20002), slot=1)
    files = render.all_files(layout, spec).by_name
    servers = {
        name: json.loads(files[f"{name}.kubeconfig"])["clusters"][0]["cluster"]["server"]
        for name in ("admin", "scheduler", "kubelet", "proxy")
    }
    assert servers["admin"] == servers["scheduler"] == "https://127.0.0.1:20001"
    assert servers["kubelet"] == servers["proxy"] == "https://10.98.4.254:20001"
    assert json.loads(files["kubelet.json"])["address"] == "10.98.4.1"
    assert "--advertise-address=10.98.4.254" in _argv(layout, "kube-apiserver", slot=1)
    health = next(item.health for item in components(layout, spec, PROGRAMS) if item.name == "kubelet")
    assert health == "http://10.98.4.1:20002/healthz"


def test_every_port_of_a_cluster_appears_in_some_command_or_file(layout: Layout) -> None:
    numbers = range(21001, 21010)
    spec = Spec("test", full=True, audit=False, ports=Ports(*numbers))
    words = [word for item in components(layout, spec, PROGRAMS) for word in item.argv]
    files = list(render.all_files(layout, spec).by_name.values())
    everything = "\n".join([*words, *files])
    assert [number for number in numbers if str(number) not in everything] == []


def test_a_clusters_record_survives_writing_and_reading(layout: Layout) -> None:
    spec = Spec("test", full=False, audit=True, ports=Ports(apiserver=20001))
    layout.state.mkdir(parents=True)
    layout.spec_file.write_text(spec.to_json())
    assert layout.read_spec() == spec
    assert all_specs(layout.base) == [spec]


def test_a_record_of_before_there_were_slots_is_the_first_nodes(layout: Layout) -> None:
    text = Spec("test", full=True, audit=False, ports=Ports(), slot=7).to_json()
    earlier = {key: value for key, value in json.loads(text).items() if key != "slot"}
    assert Spec.from_json(json.dumps(earlier)).slot == 0
    assert Spec.from_json(text).slot == 7
