"""What runs and the operator may do on the node, seen from their processes, and namespaces that forbid a run."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from e2e.lab import Run, manifest, processes, send, wait_for
from e2e.suites import NVIDIA_TREE
from installation import Cluster, condition, operator_pods
from mlperf_operator.resources.containers import RUN

pytestmark = pytest.mark.e2e

HARNESS_PROCESS = "--action=run_harness"
SERVICE_ACCOUNT = "secrets/kubernetes.io/serviceaccount"
UNPRIVILEGED = {"NoNewPrivs": "1", "Seccomp": "2", "CapEff": "0" * 16, "CapBnd": "0" * 16}


def status(pid: int) -> dict[str, str]:
    """What /proc says of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: text.strip() for key, _, text in (line.partition(":") for line in lines)}


def mounts(pid: int) -> dict[str, list[str]]:
    """Options of each mount that a process sees, by its folder."""
    lines = [line.split() for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]
    return {fields[4]: fields[5].split(",") for fields in lines}


def has_token(pid: int) -> bool:
    """Say whether a process sees a service account's token."""
    return any(folder.endswith(SERVICE_ACCOUNT) for folder in mounts(pid))


def own_processes(pod: dict[str, Any]) -> list[int]:
    """A pod's processes but for the one that holds its namespaces."""
    return [pid for pid in processes(pod, "") if Path(f"/proc/{pid}/comm").read_text().strip() != "pause"]


def test_a_run_where_nothing_is_allowed_has_no_privilege_and_no_token(operator: Cluster, namespace: str) -> None:
    run = Run.apply(operator, namespace, manifest("restricted"))
    pod = run.started(RUN)
    harness = wait_for("the harness", lambda: processes(pod, HARNESS_PROCESS))
    send(signal.SIGSTOP, harness)
    try:
        found = own_processes(pod)
        assert len(found) > len(harness)
        for pid in found:
            said = status(pid)
            assert said.items() >= UNPRIVILEGED.items()
            assert "0" not in said["Uid"].split()
            assert not has_token(pid)
    finally:
        send(signal.SIGCONT, harness)
    ended = run.finished()
    assert condition(ended, "ResultsValid")[:2] == ("True", "Valid")


def test_the_operator_has_what_the_chart_says_and_a_token(operator: Cluster) -> None:
    [pod] = operator_pods(operator)
    found = own_processes(pod)
    assert found
    for pid in found:
        said = status(pid)
        assert said.items() >= UNPRIVILEGED.items()
        assert said["Uid"].split() == said["Gid"].split() == ["65532"] * 4
        assert "ro" in mounts(pid)["/"]
        # So that one in a run would be found.
        assert has_token(pid)


@pytest.mark.parametrize("level", ["restricted", "baseline"])
def test_a_namespace_that_forbids_a_run_is_told_at_once(operator: Cluster, namespace: str, level: str) -> None:
    operator.ensure_namespace(namespace, pod_security=level)
    body = manifest(
        "root",
        suite=NVIDIA_TREE,
        system="A100_SXM4_40GBx8",
        benchmarks=[{"name": "3d-unet", "scenarios": ["Offline"]}],
        scratch={"claimTemplate": {"size": "1Gi", "deleteWithRun": True}},
    )
    run = Run.apply(operator, namespace, body)
    wait_for("the reason", lambda: condition(run.get(), "Succeeded")[1] == "PodSecurityRefused", 30)
    message = condition(run.get(), "Succeeded")[2]
    assert message.startswith(f"namespace {namespace} enforces PodSecurity {level} ")
    assert f"possible: kubectl label namespace {namespace} " in message
    assert run.has_no("pods")
