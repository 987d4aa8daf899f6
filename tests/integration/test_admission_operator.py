"""The operator at work under its own account, with the chart's roles and all policies in force, and nothing more."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import yaml

from integration.admission import Wall, fresh, in_force, nvidia_run, run_of
from integration.admission_run import pod_of
from integration.chart import Object, container
from integration.operator_process import OperatorProcess, until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

SYSTEM, TEAM, BENCH = fresh("system", "team", "bench")
VALUES: Object = {
    "allowedNamespaces": [TEAM, BENCH],
    "allowedHostPaths": ["/mnt/scratch"],
    "harnessParity": {BENCH: {"volumes": ["scratch"], "nodeSelector": {"pool": "mlperf"}}},
}


@pytest.fixture(scope="module")
def wall(kubeconfig: str) -> Iterator[Wall]:
    with in_force(kubeconfig, VALUES, SYSTEM, [TEAM, BENCH]) as found:
        yield found


@pytest.fixture
async def operator(
    wall: Wall, kubeconfig: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> AsyncIterator[OperatorProcess]:
    """The operator as the chart sets it, with a token of its service account."""
    monkeypatch.setenv("KUBECONFIG", str(account_of(wall, kubeconfig, tmp_path)))
    prefix = "MLPERF_OPERATOR_"
    given = {e["name"].removeprefix(prefix): e["value"] for e in container(wall.rendered)["env"] if "value" in e}
    started = OperatorProcess(SYSTEM, "first", tmp_path / "operator.log", **given)
    try:
        await started.ready("leader")
        yield started
    finally:
        started.process.kill()
        started.process.wait()


def account_of(wall: Wall, kubeconfig: str, folder: Path) -> Path:
    """Write a kubeconfig with nothing but a token of the operator's account."""
    path = f"/api/v1/namespaces/{SYSTEM}/serviceaccounts/mlperf-operator/token"
    status, answer = wall.administrator.ask("POST", path, {"spec": {"expirationSeconds": 3600}})
    assert status == 201, answer
    document = yaml.safe_load(Path(kubeconfig).read_text())
    document["users"] = [{"name": "operator", "user": {"token": json.loads(answer)["status"]["token"]}}]
    document["contexts"][0]["context"]["user"] = "operator"
    document["current-context"] = document["contexts"][0]["name"]
    written = folder / "kubeconfig"
    written.write_text(yaml.safe_dump(document))
    return written


def pod_spec(wall: Wall, namespace: str) -> Object:
    return dict(pod_of(wall, namespace, "run")["spec"])


async def test_the_operator_does_all_that_it_does_under_the_policies(wall: Wall, operator: OperatorProcess) -> None:
    assert wall.user.create(run_of(TEAM, scratch={"hostPath": {"path": "/mnt/scratch/team"}}), dry=False) == ""
    assert wall.user.create(nvidia_run(BENCH, securityProfile="HarnessParity"), dry=False) == ""
    assert [v["hostPath"]["path"] for v in pod_spec(wall, TEAM)["volumes"] if "hostPath" in v] == ["/mnt/scratch"]
    privileged = pod_spec(wall, BENCH)
    assert (privileged["hostNetwork"], privileged["nodeSelector"]) == (True, {"pool": "mlperf"})

    for wanted in (True, False):
        assert wall.user.change("MLPerfRun", TEAM, "run", {"spec": {"suspend": wanted}}, dry=False) == ""

        async def done(suspend: bool = wanted) -> bool:
            return bool(wall.administrator.get("Job", TEAM, "run")["spec"]["suspend"]) is suspend

        await until(done)
    for namespace in (TEAM, BENCH):
        assert wall.user.delete("MLPerfRun", namespace, "run", dry=False) == ""

        async def gone(within: str = namespace) -> bool:
            kinds = ("Job", "ConfigMap")
            left = [item for kind in kinds for item in wall.administrator.get(kind, within)["items"]]
            return [item["metadata"]["name"] for item in left] == ["kube-root-ca.crt"]

        await until(gone)
    # It also meets what other tests left in namespaces that are being deleted.
    ours = [text for line in operator.lines() if TEAM in (text := json.dumps(line)) or BENCH in text]
    assert ours
    assert [text for text in ours if "denied request" in text or "forbidden" in text] == []
