"""`mlperf-operator check` and `controller`: their exit codes, and what they say."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from mlperf_operator import controller
from mlperf_operator.cli import app
from mlperf_operator.cluster import LEASES, ApiError, Cluster, Resource
from mlperf_operator.lease import LostLeadershipError

LEASE = {"spec": {"holderIdentity": "operator-1"}}


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


class Server:
    """Answers what `check` asks."""

    def __init__(self, lease: dict[str, Any] | None = None, refusal: ApiError | None = None) -> None:
        self.lease, self.refusal = lease, refusal
        self.asked: list[str] = []

    async def list_page(self, resource: Resource, query: dict[str, str]) -> dict[str, Any]:
        self.asked.append(resource.plural)
        if self.refusal is not None:
            raise self.refusal
        return {"items": []}

    async def get(self, resource: Resource, namespace: str, name: str) -> dict[str, Any] | None:
        assert resource is LEASES
        self.asked.append(f"{namespace}/{name}")
        return self.lease


def connect(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    @asynccontextmanager
    async def connected() -> AsyncIterator[Server]:
        yield server

    monkeypatch.setattr(Cluster, "from_environment", connected)


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("MLPERF_OPERATOR_NAMESPACE", "its-own")
    # The controller takes over every logger of the process, which is pytest's here.
    monkeypatch.setattr(controller, "configure", lambda level: None)


def test_check_is_content_with_a_leader(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(LEASE)
    connect(monkeypatch, server)
    done = invoke("check")
    assert (done.exit_code, done.stdout) == (0, "the API serves MLPerfRuns and an operator leads\n")
    assert server.asked == ["mlperfruns", "its-own/mlperf-operator"]


@pytest.mark.parametrize("lease", [None, {}, {"spec": {"holderIdentity": ""}}])
def test_check_misses_a_leader(monkeypatch: pytest.MonkeyPatch, lease: dict[str, Any] | None) -> None:
    connect(monkeypatch, Server(lease))
    done = invoke("check")
    assert done.exit_code == 1
    assert "no operator holds the Lease mlperf-operator in namespace its-own; is its pod running?" in done.stderr


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        (ApiError(404, "NotFound", "the server could not find"), "does not serve MLPerfRuns; install the CRD"),
        (ApiError(403, "Forbidden", "may not list"), "403 Forbidden: may not list"),
        (ApiError(0, "ClientConnectorError", "no answer from the API server"), "no answer from the API server"),
    ],
)
def test_check_says_why_the_api_server_refused(monkeypatch: pytest.MonkeyPatch, refusal: ApiError, said: str) -> None:
    connect(monkeypatch, Server(refusal=refusal))
    done = invoke("check")
    assert done.exit_code == 1
    assert said in done.stderr


def test_check_without_a_cluster_is_told_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    done = invoke("check")
    assert done.exit_code == 1
    assert "no cluster to talk to" in done.stderr


@pytest.mark.parametrize("command", ["check", "controller"])
def test_wrong_settings_end_a_command_before_it_begins(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setenv("MLPERF_OPERATOR_WORKERS", "none")
    done = invoke(command)
    assert done.exit_code == 2
    assert "Error: MLPERF_OPERATOR_WORKERS: " in done.stderr


def test_a_suites_file_that_cannot_be_read_ends_the_controller(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLPERF_OPERATOR_SUITES_FILE", str(tmp_path / "none.yaml"))
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(json.dumps(KUBECONFIG))
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    done = invoke("controller")
    assert done.exit_code == 2
    assert "none.yaml" in done.stderr


KUBECONFIG = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "c",
    "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}],
    "users": [{"name": "u", "user": {}}],
}


def test_help_names_every_command() -> None:
    done = invoke("--help")
    assert done.exit_code == 0
    for command in ("results", "check", "controller"):
        assert command in done.stdout


def test_a_controller_that_lost_its_lease_ends_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    async def lost(_settings: object) -> None:
        raise LostLeadershipError

    monkeypatch.setattr(controller, "serve", lost)
    result = invoke("controller")
    assert (result.exit_code, result.output) == (1, "")
    assert isinstance(result.exception, SystemExit)
