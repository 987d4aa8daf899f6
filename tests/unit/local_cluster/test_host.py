"""What a machine must be, and how a refusal sounds."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from local_cluster import host, packages, processes
from local_cluster.errors import RefusalError
from local_cluster.layout import Layout


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("ID=debian\n", {"debian"}),
        ('ID=linuxmint\nID_LIKE="ubuntu debian"\n', {"linuxmint", "ubuntu", "debian"}),
        ('NAME="Fedora Linux"\nID=fedora\n', {"fedora"}),
        ("", set()),
    ],
)
def test_the_distribution_is_read(text: str, known: set[str]) -> None:
    assert host.distribution(text) == known


@pytest.mark.parametrize(
    ("effective", "capability", "lacks"),
    [
        ("000001ffffffffff", host.CAP_SYS_ADMIN, False),
        ("00000000a80425fb", host.CAP_SYS_ADMIN, True),
        ("0000000000001000", host.CAP_NET_ADMIN, False),
    ],
)
def test_a_missing_capability_is_seen(effective: str, capability: int, *, lacks: bool) -> None:
    status = f"Name:\tx\nCapInh:\t0\nCapEff:\t{effective}\n"
    assert host.lacks_capability(status, capability) is lacks


def test_a_node_without_root_is_refused_and_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(RefusalError, match=r"needs root \(--control-plane-only does not\)"):
        host.refuse_machine(full=True)
    host.refuse_machine(full=False)


def test_another_distribution_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(host, "is_debian_like", lambda: False)
    with pytest.raises(RefusalError, match="needs Debian or Ubuntu"):
        host.refuse_machine(full=True)


def test_a_foreign_kubelet_is_named_and_our_own_is_not() -> None:
    found = {10: ["/opt/ours/kubelet", "--config=x"], 20: ["/usr/bin/k3s", "server"]}
    assert host.foreign_kubernetes(found, {10}) == "k3s (process 20)"
    assert host.foreign_kubernetes(found, {10, 20}) == ""


def test_pods_of_another_node_are_not_ended_with_ours(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    here, k3s = os.getpid(), ["/usr/local/bin/k3s", "server"]
    monkeypatch.setattr(processes, "find", lambda names: {here: k3s})
    with pytest.raises(RefusalError, match=rf"k3s \(process {here}\); its pods would end .*'test': stop it first"):
        host.refuse_foreign_pods(layout)


def test_our_own_kubelet_and_one_inside_a_container_are_no_reason_to_keep_pods(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = {os.getpid(): ["/x/kubelet", f"--root-dir={layout.state}/kubelet"]}
    monkeypatch.setattr(processes, "find", lambda names: ours)
    host.refuse_foreign_pods(layout)
    monkeypatch.setattr(processes, "find", lambda names: {os.getpid(): ["/usr/bin/kubelet"]})
    monkeypatch.setattr(processes, "shares_namespace", lambda pid: False)
    host.refuse_foreign_pods(layout)


def test_the_kubelet_of_another_cluster_of_ours_is_not_foreign(layout: Layout) -> None:
    kubelet = ["/x/kubelet", f"--root-dir={layout.base}/other/kubelet"]
    assert host.of_our_clusters({1: kubelet, 2: ["/usr/bin/kubelet", "--root-dir=/var/lib/kubelet"]}, layout.base) == {
        1
    }


def test_a_process_shares_our_namespace_unless_it_has_ended() -> None:
    assert processes.shares_namespace(os.getpid())
    ended = subprocess.Popen(["true"])
    ended.wait()
    assert not processes.shares_namespace(ended.pid)


def test_a_package_is_wanted_once_and_only_where_its_program_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "present"
    program.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    needed = {"present": "a", "absent-one": "b", "absent-two": "b"}
    assert packages.missing(needed) == ["b"]


def test_administrators_programs_are_found_without_a_login_shell() -> None:
    assert packages.search_path("/usr/bin:/sbin") == "/usr/bin:/sbin:/usr/local/sbin:/usr/sbin"


def test_packages_that_only_root_may_install_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(host, "is_debian_like", lambda: True)
    with pytest.raises(RefusalError, match=r"only root may install them: one-package"):
        packages.ensure({"no-such-program": "one-package"})


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Run no package manager and no systemd; return what would have been run."""
    run: list[str] = []
    record: Callable[..., Any] = lambda label, argv, log, **options: run.append(" ".join(argv))  # noqa: E731
    monkeypatch.setattr(packages, "run_long", record)
    monkeypatch.setattr(packages, "_SYSTEMD", tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(host, "is_debian_like", lambda: True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return run


def test_a_service_that_only_our_installation_started_is_stopped(commands: list[str]) -> None:
    packages.ensure({"no-such-program": "containerd", "nor-this": "runc"})
    assert [line.split()[0] for line in commands] == ["apt-get", "apt-get", "systemctl"]
    assert commands[-1] == "systemctl disable --now containerd.service"


def test_a_service_that_was_there_before_goes_on(commands: list[str], tmp_path: Path) -> None:
    packages.ensure({"sh": "containerd", "no-such-program": "runc"})
    assert not [line for line in commands if "systemctl" in line]


def test_without_systemd_no_service_is_stopped(commands: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "_SYSTEMD", Path("/does/not/exist"))
    packages.ensure({"no-such-program": "containerd"})
    assert [line.split()[0] for line in commands] == ["apt-get", "apt-get"]
