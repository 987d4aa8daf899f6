"""A real API server for the tests: the one that MLPERF_TEST_KUBECONFIG names, else this session's own control plane.

The user of that kubeconfig must be an administrator; the CRD is applied there and stays.
"""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import yaml
from local_cluster.layout import Layout, layout_for

from integration import api_server
from mlperf_operator.cluster import Cluster

ROOT = Path(__file__).parents[2]
LAUNCHER = ROOT / "hack/local-cluster/launcher.py"
REFUSED = 2
"""The launcher's exit code where it cannot work and says why."""


def _launch(command: str, name: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, str(LAUNCHER), command, "--control-plane-only", "--name", name]
    # The user's cluster for the demo is not ours to test on; MLPERF_TEST_KUBECONFIG would say so.
    environment = {key: value for key, value in os.environ.items() if key != "MLPERF_KUBECONFIG"}
    return subprocess.run(argv, capture_output=True, text=True, check=False, env=environment)


@pytest.fixture(scope="session")
def control_plane() -> Iterator[Layout | None]:
    """The control plane that this session started; None where the tests run against a cluster of the user's."""
    if os.environ.get("MLPERF_TEST_KUBECONFIG"):
        yield None
        return
    name = f"integration-{os.getpid()}"
    try:
        started = _launch("up", name)
        if started.returncode == REFUSED:
            pytest.skip(started.stderr.strip().splitlines()[-1])
        assert started.returncode == 0, started.stderr
        yield layout_for(name)
    finally:
        ended = _launch("down", name)
    assert ended.returncode == 0, ended.stderr


@pytest.fixture(scope="session")
def kubeconfig(control_plane: Layout | None) -> str:
    """Path of an administrator's kubeconfig."""
    return os.environ["MLPERF_TEST_KUBECONFIG"] if control_plane is None else str(control_plane.kubeconfig)


@pytest.fixture
async def cluster(kubeconfig: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cluster]:
    """A client, as the operator makes it."""
    monkeypatch.setenv("KUBECONFIG", kubeconfig)
    async with Cluster.from_environment() as client:
        yield client


@pytest.fixture
async def namespace(cluster: Cluster) -> AsyncIterator[str]:
    """A new namespace, deleted after the test."""
    async with _fresh(cluster, "test") as name:
        yield name


@pytest.fixture
async def home(cluster: Cluster) -> AsyncIterator[str]:
    """A new namespace of the operator's own, deleted after the test."""
    async with _fresh(cluster, "home") as name:
        yield name


@asynccontextmanager
async def _fresh(cluster: Cluster, prefix: str) -> AsyncIterator[str]:
    name = f"{prefix}-{uuid.uuid4().hex[:10]}"
    await api_server.create_namespace(cluster, name)
    yield name
    await api_server.delete_namespace(cluster, name)


@pytest.fixture
async def runs_served(cluster: Cluster) -> None:
    """The API server knows MLPerfRun, by the CRD that is checked in."""
    [file] = (ROOT / "crds").glob("mlperf.dev_*.yaml")
    await api_server.serve_custom_resource(cluster, yaml.safe_load(file.read_text()))
