"""The local cluster's control plane for real: started, broken, repaired, taken away."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_cluster import api, processes
from local_cluster.errors import ClusterError
from local_cluster.layout import Layout, layout_for

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1200)]

LAUNCHER = Path(__file__).parents[2] / "hack/local-cluster/launcher.py"


REFUSED = 2
"""The launcher's exit code where it cannot work and says why."""


def _launch(*arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, str(LAUNCHER), *arguments]
    # With it the launcher would ask the user's cluster instead.
    environment = {key: value for key, value in os.environ.items() if key != "MLPERF_KUBECONFIG"}
    return subprocess.run(argv, capture_output=True, text=True, check=False, env=environment)


@pytest.fixture(scope="module")
def layout() -> Iterator[Layout]:
    """A control plane of this test's own, beside any other."""
    name = f"test-{os.getpid()}"
    layout = layout_for(name)
    try:
        started = _launch("up", "--control-plane-only", "--audit", "--name", name)
        if started.returncode == REFUSED:
            pytest.skip(started.stderr.strip().splitlines()[-1])
        assert started.returncode == 0, started.stderr
        assert started.stdout.splitlines()[-1] == str(layout.kubeconfig)
        yield layout
    finally:
        ended = _launch("down", "--name", name)
    assert ended.returncode == 0, ended.stderr
    assert not layout.state.exists()
    assert not [argv for argv in processes.find(["etcd"]).values() if f"--name={name}" in argv]


def _server(layout: Layout) -> api.Api:
    spec = layout.read_spec()
    assert spec is not None
    return api.Api(f"https://127.0.0.1:{spec.ports.apiserver}", api.identities(layout.certs)["admin"])


def _config_map(name: str) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": "v"}}


def test_a_healthy_cluster_is_left_as_it_is_within_seconds(layout: Layout) -> None:
    before = {file.name: file.read_text() for file in layout.pids.glob("*.json")}
    begin = time.monotonic()
    again = _launch("up", "--control-plane-only", "--audit", "--name", layout.name)
    assert again.returncode == 0
    assert time.monotonic() - begin < 5
    assert {file.name: file.read_text() for file in layout.pids.glob("*.json")} == before


@pytest.mark.parametrize("victims", [["etcd"], ["kube-apiserver"], ["etcd", "kube-apiserver", "kube-scheduler"]])
def test_killed_processes_come_back_and_objects_are_kept(layout: Layout, victims: list[str]) -> None:
    path = "/api/v1/namespaces/default/configmaps/kept"
    _server(layout).apply(path, _config_map("kept"))
    records = [processes.running(layout.pids, name) for name in victims]
    pids = [record.pid for record in records if record]
    assert processes.end(pids, signal.SIGKILL, 10) == []
    assert _launch("status", "--name", layout.name).returncode == 1
    repaired = _launch("up", "--control-plane-only", "--audit", "--name", layout.name)
    assert repaired.returncode == 0, repaired.stderr
    assert _launch("status", "--name", layout.name).returncode == 0
    kept = _server(layout).get(path)
    assert kept is not None
    assert kept["data"] == {"k": "v"}


def test_pod_security_refuses_a_privileged_pod_where_a_namespace_asks_for_it(layout: Layout) -> None:
    label = {"pod-security.kubernetes.io/enforce": "restricted"}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "strict", "labels": label}}
    server = _server(layout)
    server.apply("/api/v1/namespaces/strict", namespace)
    deadline = time.monotonic() + 20
    while server.get("/api/v1/namespaces/strict/serviceaccounts/default") is None:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    container = {"name": "c", "image": "x", "securityContext": {"privileged": True}}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [container]}}
    with pytest.raises(ClusterError, match=r"violates PodSecurity .*restricted:latest"):
        server.apply("/api/v1/namespaces/strict/pods/p", pod)


def test_a_component_may_not_do_more_than_its_role(layout: Layout) -> None:
    spec = layout.read_spec()
    assert spec is not None
    scheduler = api.Identity(layout.certs / "ca.crt", layout.certs / "scheduler.crt", layout.certs / "scheduler.key")
    secrets = f"https://127.0.0.1:{spec.ports.apiserver}/api/v1/secrets"
    assert api.request(scheduler, "GET", secrets)[0] == 403


def test_requests_are_in_the_audit_log(layout: Layout) -> None:
    lines = (layout.logs / "audit.log").read_text().splitlines()
    users = {json.loads(line)["user"]["username"] for line in lines}
    assert {"kubernetes-admin", "system:kube-scheduler"} <= users


def test_a_second_control_plane_runs_beside_the_first_and_leaves_it_alone(layout: Layout) -> None:
    name, path = f"{layout.name}-b", "/api/v1/namespaces/default/configmaps/here"
    try:
        assert _launch("up", "--control-plane-only", "--name", name).returncode == 0
        _server(layout_for(name)).apply(path, _config_map("here"))
        assert _server(layout).get(path) is None
        listed = _launch("status", "--all").stdout
        assert {f"# {layout.name}", f"# {name}"} <= set(listed.splitlines())
    finally:
        assert _launch("down", "--name", name).returncode == 0
    assert _launch("status", "--name", layout.name).returncode == 0
    assert not layout_for(name).state.exists()
