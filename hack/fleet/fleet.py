"""The fleet as a whole: control plane, CRD and the operator's rights, nodes, KWOK, and the nodes' logs."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

import yaml
from local_cluster.layout import Layout
from local_cluster.ports import free_port

from fleet import control_plane, requests
from fleet.program import program
from fleet.stages import Delays, stages
from fleet.workload import namespace, node
from mlperf_operator.cluster import NODES, Cluster

REPOSITORY = Path(__file__).resolve().parents[2]
OPERATOR_NAMESPACE = "mlperf-system"
OPERATOR = "mlperf-operator"
OPERATOR_USER = f"system:serviceaccount:{OPERATOR_NAMESPACE}:{OPERATOR}"
START_SECONDS = 300.0

_OPERATORS_RIGHTS = ("ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")


@dataclass
class Fleet:
    """A fleet that runs."""

    layout: Layout
    cluster: Cluster
    """A client of its administrator."""
    nodes: list[str]
    kwok: subprocess.Popen[bytes]
    logs: subprocess.Popen[bytes]
    operator_kubeconfig: Path = field(default=Path())
    """Of the operator's service account, with exactly the rights of manifests/."""

    @property
    def folder(self) -> Path:
        """Where its own files are; it goes with the control plane."""
        return self.layout.state / "fleet"

    @property
    def audit_logs(self) -> Path:
        """The folder of the API server's audit logs, audit.log and the rotated audit-*.log."""
        return self.layout.logs

    def pause(self, *, paused: bool = True) -> None:
        """Stop every kubelet where it is, or let all go on."""
        self.kwok.send_signal(signal.SIGSTOP if paused else signal.SIGCONT)


@asynccontextmanager
async def fleet(
    name: str, nodes: int, delays: Delays | None = None, flags: control_plane.Flags | None = None
) -> AsyncIterator[Fleet]:
    """Start a fleet under a name of its own; at the end nothing of it is left.

    Raises:
        RefusalError: this machine has no Go to build KWOK with, or cannot have a control plane.
        RuntimeError: a part of it did not start; the message says which and why.
    """
    kwok_program = program()
    layout = control_plane.up(name, flags)
    started: list[subprocess.Popen[bytes]] = []
    try:
        folder = layout.state / "fleet"
        folder.mkdir(exist_ok=True)
        async with AsyncExitStack() as stack:
            with patch.dict(os.environ, KUBECONFIG=str(layout.kubeconfig)):
                cluster = await stack.enter_async_context(Cluster.from_environment())
            port = free_port()
            started.append(_start_logs(layout, folder, port))
            started.append(_start_kwok(kwok_program, layout, folder, delays or Delays()))
            await _install(cluster)
            names = [f"node-{index:04}" for index in range(nodes)]
            await requests.create_all(cluster, (node(each, port) for each in names))
            made = Fleet(layout, cluster, names, kwok=started[1], logs=started[0])
            made.operator_kubeconfig = await requests.account(
                cluster, layout.kubeconfig, OPERATOR_NAMESPACE, OPERATOR, folder
            )
            await _until_serving(cluster, port)
            yield made
    finally:
        for process in started:
            process.send_signal(signal.SIGCONT)
            process.terminate()
            process.wait(30)
        control_plane.down(name)


def _start_logs(layout: Layout, folder: Path, port: int) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-m", "fleet.node_logs", str(port)]
    argv += [str(layout.certs / "apiserver.crt"), str(layout.certs / "apiserver.key")]
    return _start(argv, folder / "node-logs.log", layout)


def _start_kwok(kwok: Path, layout: Layout, folder: Path, delays: Delays) -> subprocess.Popen[bytes]:
    config = folder / "kwok.yaml"
    options = {
        "apiVersion": "config.kwok.x-k8s.io/v1alpha1",
        "kind": "KwokConfiguration",
        "options": {"enableCRDs": [], "podPlayStageParallelism": 16, "nodePlayStageParallelism": 4},
    }
    config.write_text(yaml.safe_dump_all([options, *stages(delays)]))
    argv = [str(kwok), f"--config={config}", f"--kubeconfig={layout.kubeconfig}", "--manage-all-nodes", "--v=WARN"]
    return _start(argv, folder / "kwok.log", layout)


def _start(argv: list[str], log: Path, layout: Layout) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "KUBECONFIG": str(layout.kubeconfig), "PYTHONPATH": os.pathsep.join(sys.path)}
    with log.open("ab") as output:
        return subprocess.Popen(argv, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output)


async def _install(cluster: Cluster) -> None:
    """Apply the CRD, and the operator's account with its rights, as `kubectl apply -k manifests` would."""
    await requests.apply(cluster, namespace(OPERATOR_NAMESPACE))
    files = [*sorted((REPOSITORY / "crds").glob("*.yaml")), *sorted((REPOSITORY / "manifests").glob("operator.yaml"))]
    bodies = [body for file in files for body in yaml.safe_load_all(file.read_text()) if body]
    for body in bodies:
        if body["kind"] in (*_OPERATORS_RIGHTS, "CustomResourceDefinition"):
            await requests.apply(cluster, body)


async def _until_serving(cluster: Cluster, port: int) -> None:
    """Wait until the runs are served, KWOK has made a node Ready, and the nodes' logs answer."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        page = await cluster.list_page(NODES, {})
        ready = [_is_ready(body) for body in page["items"]]
        if all(ready) and _listens(port):
            return
        time.sleep(1)  # noqa: ASYNC251 - nothing else runs yet
    raise RuntimeError(f"{ready.count(False)} of {len(ready)} nodes are not Ready")


def _is_ready(body: dict[str, object]) -> bool:
    conditions = body["status"].get("conditions", ())  # type: ignore[attr-defined]
    return any((c["type"], c["status"]) == ("Ready", "True") for c in conditions)


def _listens(port: int) -> bool:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as plain, context.wrap_socket(plain):
            return True
    except OSError:
        return False
