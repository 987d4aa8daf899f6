"""The pause image, cgroups, mounts and leftovers of containers."""

import hashlib
import io
import json
import socket
import tarfile
from pathlib import Path

import pytest
from local_cluster import containers, machine, mounts
from local_cluster.addresses import SLOTS, place
from local_cluster.errors import ClusterError
from local_cluster.render import PAUSE_IMAGE


def _members(archive: bytes) -> dict[str, bytes]:
    found = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for entry in tar:
            content = tar.extractfile(entry)
            assert content is not None
            found[entry.name] = content.read()
    return found


def test_the_pause_image_is_a_consistent_archive() -> None:
    members = _members(containers.archive_of(b"program", PAUSE_IMAGE, "amd64"))
    manifest = json.loads(members["manifest.json"])[0]
    config = json.loads(members[manifest["Config"]])
    layer = members[manifest["Layers"][0]]
    assert manifest["RepoTags"] == [PAUSE_IMAGE]
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(layer).hexdigest()}"]
    assert _members(layer) == {"pause": b"program"}
    assert config["config"]["User"] == "65535:65535"


def test_the_pause_image_is_the_same_each_time() -> None:
    assert containers.archive_of(b"x", "a:1", "amd64") == containers.archive_of(b"x", "a:1", "amd64")


def test_cgroups_of_version_2_have_one_root(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").touch()
    (tmp_path / "system.slice").mkdir()
    assert containers.cgroup_roots(tmp_path) == [tmp_path]


def test_cgroups_of_version_1_have_one_root_a_controller(tmp_path: Path) -> None:
    for name in ("memory", "cpu,cpuacct"):
        (tmp_path / name).mkdir()
    (tmp_path / "cpu").symlink_to("cpu,cpuacct")
    assert containers.cgroup_roots(tmp_path) == [tmp_path / "cpu,cpuacct", tmp_path / "memory"]


def test_the_processes_of_all_pods_are_found_and_no_others(tmp_path: Path) -> None:
    for folder, text in {"kubepods/pod1/a": "11\n12\n", "kubepods/burstable/pod2": "13\n", "user": "14\n"}.items():
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "cgroup.procs").write_text(text)
    assert containers.pod_processes([tmp_path]) == [11, 12, 13]


@pytest.mark.parametrize("slot", SLOTS)
def test_only_one_clusters_pods_network_results_are_removed(tmp_path: Path, slot: int) -> None:
    folder = tmp_path / "cni/results"
    folder.mkdir(parents=True)
    for other in SLOTS:
        (folder / f"{place(other).cni_network}-{other:064x}-eth0").touch()
        (folder / f"cni-loopback-{other:064x}-lo").touch()
    before = {file.name for file in folder.iterdir()}
    containers.remove_cni_results(folder, place(slot).cni_network)
    gone = before - {file.name for file in folder.iterdir()}
    assert gone == {f"{place(slot).cni_network}-{slot:064x}-eth0", f"cni-loopback-{slot:064x}-lo"}


def test_the_last_network_result_takes_the_folder_along(tmp_path: Path) -> None:
    folder = tmp_path / "cni/results"
    folder.mkdir(parents=True)
    (folder / f"{place(1).cni_network}-abc-eth0").touch()
    containers.remove_cni_results(folder, place(1).cni_network)
    assert not folder.parent.exists()


def test_a_further_nodes_cgroup_is_made_in_every_hierarchy_of_version_1(tmp_path: Path) -> None:
    roots = [tmp_path / "cpu", tmp_path / "memory"]
    for root in roots:
        root.mkdir()
    assert containers.ensure_cgroup(roots, "mlperf1") == containers.ensure_cgroup(roots, "mlperf1")
    assert all((root / "mlperf1").is_dir() for root in roots)
    containers.remove_cgroups([root / "mlperf1" for root in roots])
    assert [list(root.iterdir()) for root in roots] == [[], []]


def test_a_further_nodes_cgroup_of_version_2_gets_what_the_kubelet_asks_for(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory pids rdma\n")
    containers.ensure_cgroup([tmp_path], "mlperf1")
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+cpuset +cpu +memory +pids"


def test_a_cgroup_that_cannot_be_made_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="cannot make the cgroup mlperf1 for a further node"):
        containers.ensure_cgroup([tmp_path / "absent"], "mlperf1")


def test_mounts_come_last_first_and_only_from_the_folder() -> None:
    lines = [
        "1 0 8:1 / / rw - ext4 /dev/sda rw",
        "2 1 0:5 / /run/c rw - tmpfs tmpfs rw",
        "3 2 0:6 / /run/c/a\\040b rw - tmpfs tmpfs rw",
        "4 1 0:7 / /run/cc rw - tmpfs tmpfs rw",
    ]
    assert mounts.below("\n".join(lines), Path("/run/c")) == ["/run/c/a b", "/run/c"]


def test_a_dead_socket_is_removed_and_a_live_one_stays(tmp_path: Path) -> None:
    live, dead = str(tmp_path / "live"), str(tmp_path / "dead")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(live)
        listener.listen()
        with socket.socket(socket.AF_UNIX) as gone:
            gone.bind(dead)
        (tmp_path / "file").touch()
        machine.remove_dead_sockets(tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "live"]
