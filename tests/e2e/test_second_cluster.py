"""A second cluster with a node beside the session's: a run in it, the crash of its node, and its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_cluster import containers, network, processes
from local_cluster.components import KUBELET_DEVICE_PLUGINS
from local_cluster.layout import Layout, Spec, layout_for

from e2e import lab
from installation import LAUNCHER, Cluster, condition, install, launcher

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

NAME = f"second-{os.getpid()}"


@pytest.fixture(scope="module")
def second(cluster: Cluster, images: tuple[str, str]) -> Iterator[Cluster]:
    """The cluster, with the images and the chart."""
    try:
        kubeconfig = launcher("up", "--name", NAME)
        for image in images:
            launcher("load-image", image, "--name", NAME)
        found = Cluster(kubeconfig, cluster.tools)
        install(found, *images)
        yield found
    finally:
        launcher("down", "--name", NAME)


@pytest.fixture(scope="module")
def layout(second: Cluster) -> Layout:
    """Its folders."""
    return layout_for(NAME)


def _spec(layout: Layout) -> Spec:
    spec = layout.read_spec()
    assert spec is not None
    return spec


def _healthy(name: str) -> bool:
    argv = [sys.executable, str(LAUNCHER), "status", "--name", name]
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


def test_a_run_in_each_of_two_clusters_ends_with_a_valid_result(operator: Cluster, second: Cluster) -> None:
    with lab.namespace(operator) as here, lab.namespace(second) as there:
        runs = [
            lab.Run.apply(operator, here, lab.manifest("same-name")),
            lab.Run.apply(second, there, lab.manifest("same-name")),
        ]
        finished = [run.finished(240) for run in runs]
        assert [condition(run, "ResultsValid")[0] for run in finished] == ["True", "True"]
        nodes = {run.pods()[-1]["spec"]["nodeName"] for run in runs}
    assert nodes == {"mlperf-local", f"mlperf-{NAME}"}


def test_each_node_has_its_own_rules_device_plugins_and_cgroups(second: Cluster, layout: Layout) -> None:
    namespaces = {Path(f"/proc/{pid}/ns/net").readlink() for pid in processes.find(["kube-proxy"])}
    assert len(namespaces) >= 2
    for name in ("containerd", "kubelet"):
        record = processes.running(layout.pids, name)
        assert record
        seen = Path(f"/proc/{record.pid}/root") / KUBELET_DEVICE_PLUGINS.removeprefix("/") / "kubelet.sock"
        assert seen.samefile(layout.device_plugins / "kubelet.sock")
    roots = [root / _spec(layout).place.cgroup for root in containers.cgroup_roots(containers.CGROUPS)]
    assert containers.pod_processes(roots)


def test_a_service_and_the_api_answer_inside_the_second_cluster(second: Cluster) -> None:
    pod = json.loads(second.kubectl("get", "pods", "-n", "mlperf-system", "-o", "json"))["items"][0]
    ask = (
        "import os, ssl, urllib.request as u; "
        "host = os.environ['KUBERNETES_SERVICE_HOST']; "
        "print(host, u.urlopen(f'https://{host}/readyz', context=ssl._create_unverified_context(), timeout=10).status)"
    )
    try:
        said = second.kubectl("exec", "-n", "mlperf-system", pod["metadata"]["name"], "--", "python3", "-c", ask)
    except RuntimeError as error:
        # Nobody without a token is let in; that the server says so is the answer.
        said = str(error)
    assert "401" in said


def test_a_second_node_comes_back_after_its_processes_were_killed(second: Cluster, layout: Layout) -> None:
    records = [processes.running(layout.pids, name) for name in ("containerd", "kubelet", "kube-proxy")]
    assert processes.end([record.pid for record in records if record], signal.SIGKILL, 10) == []
    assert not _healthy(NAME)
    assert _healthy("local")
    launcher("up", "--name", NAME)
    assert _healthy(NAME)
    assert second.kubectl("get", "nodes", "-o", "name").strip() == f"node/mlperf-{NAME}"


def test_the_end_of_the_second_cluster_leaves_nothing_and_the_first_alone(second: Cluster, layout: Layout) -> None:
    place = _spec(layout).place
    launcher("down", "--name", NAME)
    assert not layout.state.exists()
    assert not layout.run.exists()
    assert not Path(f"/sys/class/net/{place.interface}").exists()
    assert not [root for root in containers.cgroup_roots(containers.CGROUPS) if (root / place.cgroup).exists()]
    assert str(layout.run) not in Path("/proc/self/mountinfo").read_text()
    assert _healthy("local")
    assert network.read_sysctls()["net.ipv4.ip_forward"] == "1"
