"""The CRD on a real API server: what it takes, what it refuses and with which words, what may change."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from integration import api_server
from mlperf_operator.api.v1alpha1 import API_VERSION, KIND
from mlperf_operator.cluster import MLPERF_RUNS, ApiError, Cluster

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600), pytest.mark.usefixtures("runs_served")]

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(set((ROOT / "examples").glob("*.yaml")) - set((ROOT / "examples").glob("*-values.yaml")))
SYSTEM = "A100_SXM4_40GBx8"
NVIDIA: dict[str, Any] = {"system": SYSTEM, "benchmarks": [{"name": "bert"}], "scratch": {"claimName": "scratch"}}
REFERENCE: dict[str, Any] = {
    "suite": "reference-cpu",
    "system": "CPU_REFERENCE",
    "benchmarks": [{"name": "digits"}],
}


def body(namespace: str, spec: dict[str, Any], name: str = "demo") -> dict[str, Any]:
    meta = {"namespace": namespace, "name": name}
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": meta, "spec": copy.deepcopy(spec)}


async def dry(cluster: Cluster, run: dict[str, Any]) -> dict[str, Any]:
    """Ask the server what it would store; an unknown field is an error, as it is for kubectl."""
    query = {"dryRun": "All", "fieldValidation": "Strict"}
    return await cluster._json("POST", MLPERF_RUNS.url(run["metadata"]["namespace"]), run, query=query)


async def refused(cluster: Cluster, run: dict[str, Any]) -> str:
    with pytest.raises(ApiError) as caught:
        await dry(cluster, run)
    assert caught.value.status in (400, 422)
    return caught.value.message


def nvidia(**fields: Any) -> dict[str, Any]:
    return {key: value for key, value in {**NVIDIA, **fields}.items() if value is not None}


def pair(benchmark: str, *scenarios: str) -> list[dict[str, Any]]:
    return [{"name": benchmark, "scenarios": list(scenarios)}]


def override(benchmark: str, scenario: str, value: Any = 1) -> dict[str, Any]:
    change = {"benchmark": benchmark, "scenario": scenario, "field": "server_target_qps", "value": value}
    return {"overrides": [change]}


@pytest.mark.parametrize("text", [file.read_text() for file in EXAMPLES], ids=[file.name for file in EXAMPLES])
async def test_every_example_is_accepted(cluster: Cluster, namespace: str, text: str) -> None:
    for run in yaml.safe_load_all(text):
        run["metadata"]["namespace"] = namespace
        await dry(cluster, run)


ACCEPTED: list[tuple[str, dict[str, Any]]] = [
    ("every pair of bert and 3d-unet", nvidia(benchmarks=[{"name": "bert"}, {"name": "3d-unet"}])),
    ("high accuracy", nvidia(configVersion="HighAccuracy")),
    ("the audits that bert has", nvidia(audits=["TEST01", "TEST05"])),
    (
        "MaxQ where it has values",
        nvidia(benchmarks=pair("3d-unet", "Offline"), powerSetting="MaxQ", securityProfile="HarnessParity"),
    ),
    ("code of a claim", nvidia(code={"claimName": "code"})),
    ("code of an image", nvidia(code={"image": "registry.example/code:1", "path": "/src"})),
    ("an override of a requested pair", nvidia(gpuConfig=override("bert", "Server", "0.5"))),
    ("an override of an unnamed scenario", nvidia(gpuConfig=override("bert", "Offline"))),
    ("a suite that only the administrator knows", nvidia(suite="own", system="X", benchmarks=[{"name": "any"}])),
    ("a scratch to be made", nvidia(scratch={"claimTemplate": {"size": "1Ti", "accessMode": "ReadWriteMany"}})),
    ("a scratch that ends with the pod, for the reference suite", {**REFERENCE, "scratch": {"emptyDir": {}}}),
    ("labels with and without a value", {**REFERENCE, "nodeSelector": {"a.example/b": "c", "d": ""}}),
    (
        "everything at its bound",
        nvidia(
            benchmarks=[{"name": name, "scenarios": ["Offline"]} for name in ("bert", "3d-unet")],
            gpuConfig={"overrides": override("bert", "Offline", "x" * 255)["overrides"] * 64},
            nodeSelector={f"example.com/{i}": "x" * 63 for i in range(32)},
            tolerations=[{"operator": "Exists"}] * 32,
            ttlSecondsAfterFinished=315_360_000,
            audits=["TEST01", "TEST05"],
            expectations=[{"benchmark": "bert", "scenario": "Offline", "metric": "m" * 80, "min": "0.5"}] * 32,
        ),
    ),
]


@pytest.mark.parametrize(("case", "spec"), ACCEPTED, ids=[case for case, _ in ACCEPTED])
async def test_what_can_be_is_accepted(cluster: Cluster, namespace: str, case: str, spec: dict[str, Any]) -> None:
    await dry(cluster, body(namespace, spec, "n" * 52))


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    (
        "3d-unet with Server",
        nvidia(benchmarks=pair("3d-unet", "Server")),
        "3d-unet in suite nvidia-v4.1 has the scenarios Offline, SingleStream",
    ),
    ("an unknown system", nvidia(system="H100x8"), f"suite nvidia-v4.1 has the systems {SYSTEM}, A100_SXM4_40GBx1"),
    (
        "an unknown benchmark",
        nvidia(benchmarks=[{"name": "resnet50"}]),
        "suite nvidia-v4.1 has the benchmarks bert, 3d",
    ),
    (
        "bert in the reference suite",
        {**REFERENCE, "benchmarks": [{"name": "bert"}]},
        "reference-cpu has the benchmarks",
    ),
    ("Triton", nvidia(configVersion="Triton"), "the config versions Default, HighAccuracy; the v4.1 tree cannot build"),
    ("no scratch", nvidia(scratch=None), "needs a scratch that outlives the pod: set scratch.claimName, claimTemplate"),
    ("a scratch that ends with the pod", nvidia(scratch={"emptyDir": {}}), "needs a scratch that outlives the pod"),
    (
        "two kinds of volume",
        nvidia(scratch={"claimName": "a", "hostPath": {"path": "/a"}}),
        "set exactly one of claimName",
    ),
    ("no kind of volume", nvidia(results={}), "set exactly one of claimName, claimTemplate, hostPath, emptyDir"),
    (
        "an override of a benchmark that is not run",
        nvidia(gpuConfig=override("3d-unet", "Offline")),
        "gpuConfig.overrides may only name benchmarks and scenarios that the run asks for",
    ),
    (
        "an override of a scenario that is not run",
        nvidia(benchmarks=pair("bert", "Offline"), gpuConfig=override("bert", "Server")),
        "gpuConfig.overrides may only name benchmarks and scenarios that the run asks for",
    ),
    (
        "an expectation of a pair that is not run",
        nvidia(expectations=[{"benchmark": "3d-unet", "scenario": "Offline", "metric": "m", "min": "1"}]),
        "expectations may only name benchmarks and scenarios that the run asks for",
    ),
    (
        "an expectation of nothing",
        nvidia(expectations=[{"benchmark": "bert", "scenario": "Offline", "metric": "m"}]),
        "set min, max or both",
    ),
    (
        "an audit that bert has not",
        nvidia(audits=["TEST04"]),
        "bert in suite nvidia-v4.1 has the audits TEST01, TEST05",
    ),
    (
        "an audit of the reference suite",
        {**REFERENCE, "audits": ["TEST01"]},
        "digits in suite reference-cpu has no audits",
    ),
    (
        "audits without both results",
        nvidia(audits=["TEST01"], testModes=["PerformanceOnly"]),
        "set testModes to PerformanceOnly, AccuracyOnly",
    ),
    (
        "MaxQ without the profile",
        nvidia(benchmarks=pair("3d-unet", "Offline"), powerSetting="MaxQ"),
        "powerSetting MaxQ needs securityProfile HarnessParity",
    ),
    (
        "MaxQ of a pair without values",
        nvidia(benchmarks=[{"name": "3d-unet"}], powerSetting="MaxQ", securityProfile="HarnessParity"),
        "suite nvidia-v4.1 has MaxQ values for 3d-unet Offline: ask for these only",
    ),
    (
        "audits of MaxQ",
        nvidia(
            benchmarks=pair("3d-unet", "Offline"),
            powerSetting="MaxQ",
            securityProfile="HarnessParity",
            audits=["TEST01"],
        ),
        "audits are of powerSetting MaxP results only",
    ),
    ("code of two places", nvidia(code={"claimName": "a", "image": "b"}), "set exactly one of claimName, image"),
    ("code of no place", nvidia(code={"path": "/src"}), "set exactly one of claimName, image"),
    ("the same benchmark twice", nvidia(benchmarks=[{"name": "bert"}, {"name": "bert"}]), "Duplicate value"),
    ("the same scenario twice", nvidia(benchmarks=pair("bert", "Server", "Server")), "Duplicate value"),
    ("a scenario that LoadGen lacks", nvidia(benchmarks=pair("bert", "server")), '"Offline", "Server", "SingleStream"'),
    ("a misspelt field", nvidia(benchmark="bert"), 'unknown field "spec.benchmark"'),
    ("no system", nvidia(system=None), "spec.system: Required value"),
    ("a float", nvidia(gpuConfig=override("bert", "Server", 0.5)), "must be of type"),
    ("a label value that no node has", {**REFERENCE, "nodeSelector": {"a": "b c"}}, "should match"),
]


@pytest.mark.parametrize(("case", "spec", "said"), REFUSED, ids=[case[0] for case in REFUSED])
async def test_what_cannot_be_is_refused_with_what_is_possible(
    cluster: Cluster, namespace: str, case: str, spec: dict[str, Any], said: str
) -> None:
    assert said in await refused(cluster, body(namespace, spec))


async def test_a_name_that_is_too_long_for_what_is_named_after_it_is_refused(cluster: Cluster, namespace: str) -> None:
    said = await refused(cluster, body(namespace, REFERENCE, "n" * 53))
    assert "metadata.name may have at most 52 characters" in said


async def test_defaults_are_filled_in(cluster: Cluster, namespace: str) -> None:
    made = await dry(cluster, body(namespace, NVIDIA))
    assert made["spec"] == {
        **NVIDIA,
        "suite": "nvidia-v4.1",
        "configVersion": "Default",
        "testModes": ["PerformanceOnly", "AccuracyOnly"],
        "testRun": False,
        "driver": {"policy": "Auto", "version": "550", "fabricManager": "Auto"},
        "gpu": {"access": "DevicePlugin"},
        "environment": {"strategy": "Snapshot", "offline": False},
        "securityProfile": "Minimal",
        "powerSetting": "MaxP",
        "baseline": {"policy": "Compare", "tolerancePercent": 10},
        "suspend": False,
        "startTimeoutSeconds": 1800,
        "stageTimeoutSeconds": 36000,
        "runTimeoutSeconds": 172800,
        "backoffLimit": 0,
    }


async def test_a_given_part_is_completed(cluster: Cluster, namespace: str) -> None:
    spec = nvidia(driver={"policy": "Verify"}, scratch={"claimTemplate": {"size": "1Ti"}})
    made = await dry(cluster, body(namespace, spec))
    assert made["spec"]["driver"] == {"policy": "Verify", "version": "550", "fabricManager": "Auto"}
    template = {"size": "1Ti", "accessMode": "ReadWriteOnce", "deleteWithRun": False}
    assert made["spec"]["scratch"] == {"claimTemplate": template}


async def change(cluster: Cluster, namespace: str, spec: dict[str, Any]) -> dict[str, Any]:
    await api_server.merge(cluster, MLPERF_RUNS, namespace, "demo", {"spec": spec})
    found = await cluster.get(MLPERF_RUNS, namespace, "demo")
    assert found is not None
    return dict(found["spec"])


async def test_suspend_and_time_to_live_can_change_and_go(cluster: Cluster, namespace: str) -> None:
    await cluster.create(body(namespace, NVIDIA))
    for changes in (
        {"suspend": True},
        {"ttlSecondsAfterFinished": 5},
        {"suspend": False, "ttlSecondsAfterFinished": 6},
    ):
        assert (await change(cluster, namespace, changes)).items() >= changes.items()
    assert "ttlSecondsAfterFinished" not in await change(cluster, namespace, {"ttlSecondsAfterFinished": None})


CHANGES: list[tuple[str, dict[str, Any]]] = [
    ("system", {"system": "A100_SXM4_40GBx1"}),
    ("suite", {"suite": "own"}),
    ("benchmarks", {"benchmarks": [{"name": "3d-unet"}]}),
    ("scratch", {"scratch": {"claimName": "other"}}),
    ("driver", {"driver": {"policy": "Verify"}}),
    ("testModes", {"testModes": ["AccuracyOnly"]}),
    ("runTimeoutSeconds", {"runTimeoutSeconds": 90}),
    # Fields that were not there, and one that goes.
    ("image", {"image": "registry.example/x:1"}),
    ("securityProfile", {"securityProfile": "HarnessParity"}),
    ("code", {"code": {"claimName": "code"}}),
    ("results", {"results": {"claimName": "results"}}),
    ("queueName", {"queueName": "gpus"}),
    ("gpuConfig", {"gpuConfig": override("bert", "Server")}),
    ("tolerations", {"tolerations": [{"operator": "Exists"}]}),
    ("nodeSelector", {"nodeSelector": None}),
]


@pytest.mark.parametrize(("field", "changes"), CHANGES, ids=[field for field, _ in CHANGES])
async def test_every_other_change_is_refused_and_named(
    cluster: Cluster, namespace: str, field: str, changes: dict[str, Any]
) -> None:
    await cluster.create(body(namespace, nvidia(nodeSelector={"a": "b"})))
    with pytest.raises(ApiError) as caught:
        await change(cluster, namespace, changes)
    assert f"{field} is immutable: delete the MLPerfRun and create another" in caught.value.message


async def test_applying_the_same_manifest_again_changes_nothing(cluster: Cluster, namespace: str) -> None:
    made = await cluster.create(body(namespace, NVIDIA))
    await change(cluster, namespace, NVIDIA)
    found = await cluster.get(MLPERF_RUNS, namespace, "demo")
    assert found is not None
    assert found["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


async def test_the_status_belongs_to_its_subresource(cluster: Cluster, namespace: str) -> None:
    made = await cluster.create({**body(namespace, NVIDIA), "status": {"summary": "mine"}})
    assert "status" not in made
    meta = made["metadata"]
    await cluster.apply_run_status(namespace, "demo", meta["uid"], meta["resourceVersion"], {"summary": "ours"})
    stored = await cluster.get(MLPERF_RUNS, namespace, "demo")
    assert stored is not None
    assert stored["status"] == {"summary": "ours"}
    assert stored["metadata"]["generation"] == made["metadata"]["generation"]


async def test_kubectl_shows_the_columns_of_the_design(cluster: Cluster, namespace: str) -> None:
    await cluster.create(body(namespace, NVIDIA))
    accept = "application/json;as=Table;v=v1;g=meta.k8s.io"
    table = await _table(cluster, namespace, accept)
    narrow = [c["name"].upper() for c in table["columnDefinitions"] if not c["priority"]]
    wide = [c["name"].upper() for c in table["columnDefinitions"] if c["priority"]]
    assert narrow == ["NAME", "SYSTEM", "BENCHMARKS", "STAGE", "SUCCEEDED", "VALID", "RESULT", "AGE"]
    assert wide == ["ACCURACY", "NODE", "DRIVER"]
    assert table["rows"][0]["cells"][:2] == ["demo", SYSTEM]


async def _table(cluster: Cluster, namespace: str, accept: str) -> dict[str, Any]:
    headers = {"Accept": accept}
    url = MLPERF_RUNS.url(namespace)
    await cluster._api.update_params_for_auth(headers, [], ["BearerToken"], url, "GET", None)
    answer = await cluster._api.call_api("GET", cluster._api.configuration.host + url, headers)
    return dict(await answer.response.json())
