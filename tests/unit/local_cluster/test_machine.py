"""What clusters with a node change on the machine as a whole, and which of them puts it back."""

from pathlib import Path

import pytest
from local_cluster import machine, network
from local_cluster.layout import Layout, Ports, Spec

FOUND = {"net.ipv4.ip_forward": "0", "vm.overcommit_memory": "2"}


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """The machine's settings, without the machine."""
    present = dict(FOUND)
    monkeypatch.setattr(network, "read_sysctls", lambda: dict(present))
    monkeypatch.setattr(network, "write_sysctls", present.update)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("CONTAINER_LOG_LINKS", "SHIM_SOCKETS", "DEVICE_PLUGINS"):
        monkeypatch.setattr(machine, name, tmp_path / "machine" / name / "folder")
    return present


def _cluster(layout: Layout, name: str, *, full: bool = True, slot: int = 0) -> Layout:
    cluster = Layout(name, layout.base, layout.run_base)
    cluster.state.mkdir(parents=True)
    cluster.spec_file.write_text(Spec(name, full=full, audit=False, ports=Ports(), slot=slot).to_json())
    return cluster


def test_the_last_cluster_puts_back_what_the_first_one_found(layout: Layout, settings: dict[str, str]) -> None:
    first, second = _cluster(layout, "a"), _cluster(layout, "b", slot=1)
    machine.take(first)
    settings["vm.overcommit_memory"] = "1"
    machine.take(second)
    assert settings["net.ipv4.ip_forward"] == "1"
    machine.give_back(first)
    assert settings["net.ipv4.ip_forward"] == "1"
    assert machine.DEVICE_PLUGINS.is_dir()
    machine.give_back(second)
    assert settings == FOUND
    assert not machine.DEVICE_PLUGINS.parent.exists()
    assert [file for file in layout.base.iterdir() if file.is_file()] == []


def test_a_control_plane_alone_keeps_no_settings_changed(layout: Layout, settings: dict[str, str]) -> None:
    first = _cluster(layout, "a")
    _cluster(layout, "c", full=False)
    machine.take(first)
    machine.give_back(first)
    assert settings == FOUND


def test_taking_down_twice_restores_once(layout: Layout, settings: dict[str, str]) -> None:
    first = _cluster(layout, "a")
    machine.take(first)
    machine.give_back(first)
    settings["net.ipv4.ip_forward"] = "1"
    machine.give_back(first)
    assert settings["net.ipv4.ip_forward"] == "1"


def test_what_an_earlier_version_remembered_for_one_cluster_is_put_back(
    layout: Layout, settings: dict[str, str]
) -> None:
    first = _cluster(layout, "a")
    settings["net.ipv4.ip_forward"] = "1"
    (first.state / machine.SETTINGS).write_text("net.ipv4.ip_forward=0\n")
    machine.give_back(first)
    assert settings == FOUND


def test_only_links_to_this_clusters_logs_are_removed(tmp_path: Path) -> None:
    links = tmp_path / "links"
    links.mkdir()
    for name in ("a", "b"):
        (links / name).symlink_to(tmp_path / name / "pod-logs/0.log")
    machine.remove_log_links(links, tmp_path / "a")
    assert [link.name for link in links.iterdir()] == ["b"]
