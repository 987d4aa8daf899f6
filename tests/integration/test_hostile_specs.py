"""Hostile users against a real API server and the operator's own process.

Whatever they write is refused with a sentence, by the API server or by the operator, or becomes a run with children of
its own. The operator never ends, never meets what it was not made for, and changes nobody else's object.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from integration import api_server
from integration.hostile import (
    NEIGHBOUR,
    REFERENCE,
    SUFFIXES,
    Body,
    generated,
    hostile_runs,
)
from integration.hostile_statuses import pod_statuses, statuses
from integration.operator_process import replica, until
from integration.siege import Siege, condition, gathered, neighbours
from integration.test_cluster import config_map
from mlperf_operator.api.v1alpha1 import API_VERSION, KIND
from mlperf_operator.cluster import JOBS, MLPERF_RUNS, PODS, Cluster

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

COUNT = 10_000
BATCH = 250
SETTINGS = {
    "ALLOWED_IMAGES": "registry.example",
    "ALLOWED_UPLOAD_ENDPOINTS": "https://s3.example",
    "ALLOW_RUNTIME_CLASS_ACCESS": "true",
    # Long: on a busy machine an API server under siege answers late, which is not what is tried here.
    "LEASE_DURATION_SECONDS": "60",
    "LEASE_RENEW_DEADLINE_SECONDS": "40",
    "LEASE_RETRY_SECONDS": "5",
}
PLACES = ("spec", "metadata", "kind", "apiVersion", "API version", "namespace", "resourceVersion", "ObjectMeta", "time")
NAMES_SOMETHING = re.compile(rf"\b({'|'.join(PLACES)}|already exists|unknown field)\b")
KUBERNETES_ITSELF = "resourceVersion should not be set on objects to be created"
"""The one thing that its API server answers with 500 for every kind of object."""

VALUES: Body = {
    "system": "CPU_REFERENCE",
    "suites": ["reference-cpu"],
    "configs": [{"benchmark": "digits", "scenario": "Offline", "values": {"threads": 1}, "origin": "this test"}],
}


@pytest.fixture
async def siege(cluster: Cluster, namespace: str, runs_served: None, tmp_path: Path) -> AsyncIterator[Siege]:
    settings = {**SETTINGS, "ALLOWED_CODE_CLAIMS": f"{namespace}/trees"}
    home = f"{namespace}-operator"
    await api_server.create_namespace(cluster, home)
    with replica(home, "besieged", tmp_path / "operator.log", **settings) as operator:
        await operator.ready("leader")
        yield Siege(cluster, namespace, operator)
    await api_server.delete_namespace(cluster, home)


def sound(name: str, **spec: object) -> Body:
    """A run that nothing is wrong with, but for its name."""
    fields = {**REFERENCE, "suspend": True, **spec}
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}, "spec": fields}


async def test_ten_thousand_hostile_runs_are_refused_or_run_and_touch_nothing_of_others(siege: Siege) -> None:
    beside = f"{siege.namespace}-beside"
    await api_server.create_namespace(siege.cluster, beside)
    planted = await siege.plant(body for space in (siege.namespace, beside) for body in neighbours(space))
    runs = [*(sound(f"{NEIGHBOUR}{suffix}") for suffix in SUFFIXES), *generated(COUNT, hostile_runs())]
    for start in range(0, len(runs), BATCH):
        await siege.batch(runs[start : start + BATCH])
    await siege.untouched(planted)
    siege.operator_is_well()
    await api_server.delete_namespace(siege.cluster, beside)
    assert_sentences(siege)


def assert_sentences(siege: Siege) -> None:
    """Each refusal says what is wrong, and enough of the runs were refused in each place and accepted."""
    for status, message in siege.refused:
        assert status in (400, 409, 422) or message == KUBERNETES_ITSELF, (status, message)
        assert NAMES_SOMETHING.search(message), message
    for said, reason, message in siege.judged:
        assert re.fullmatch("[A-Z][A-Za-z]+", reason)
        assert re.search(r"\w+ \w+.* \w+", message), message
        assert said in ("True", "False")
    accepted, refused = (sum(n for key, n in siege.judged.items() if key[0] == word) for word in ("True", "False"))
    assert min(accepted, refused) > 100
    assert {reason for _, reason, _ in siege.judged} > {"Accepted", "NameConflict", "InvalidSpec", "ImageNotAllowed"}


async def test_a_status_that_somebody_else_wrote_stops_nobody(siege: Siege) -> None:
    found = generated(300, statuses())
    runs = [sound(f"victim-{number}", ttlSecondsAfterFinished=number % 3 * 1000) for number in range(30)]
    made = [run for run in await gathered(siege.create(run) for run in runs) if run is not None]
    assert len(made) == len(runs)
    await siege.answered({run["metadata"]["uid"] for run in made})
    names = [run["metadata"]["name"] for run in made]
    await gathered(
        siege.patch_status(MLPERF_RUNS, names[number % len(names)], status) for number, status in enumerate(found)
    )
    await siege.answered({run["metadata"]["uid"] for run in made})
    siege.operator_is_well()
    # The operator goes on: a new run among these is judged as ever.
    new = await siege.create(sound("new"))
    assert new is not None
    [judged] = (await siege.answered({new["metadata"]["uid"]})).values()
    assert condition(judged, "Accepted")["status"] == "True"


async def test_objects_with_a_runs_names_and_labels_are_not_taken_for_its_children(siege: Siege) -> None:
    run = await siege.create(sound("victim", gpuConfig={"configMapRef": {"name": "late"}}))
    assert run is not None
    uid = run["metadata"]["uid"]
    await siege.answered({uid})
    planted = await siege.plant(neighbours(siege.namespace, "victim", uid))
    await siege.cluster.create({**config_map(siege.namespace, "late"), "data": {"values.yaml": json.dumps(VALUES)}})

    async def refused() -> bool:
        [found] = (await siege.answered({uid})).values()
        return condition(found, "Accepted").get("reason") == "NameConflict"

    await until(refused)
    await siege.cluster.delete(MLPERF_RUNS, siege.namespace, "victim", uid)
    await siege.untouched(planted)


async def test_objects_that_name_a_run_as_their_owner_are_not_taken_for_its_children(siege: Siege) -> None:
    """Whoever may edit an object may do that, and no policy keeps it from them; a run's labels are kept."""
    run = await siege.create(sound("victim", gpuConfig={"configMapRef": {"name": "late"}}))
    assert run is not None
    uid = run["metadata"]["uid"]
    await siege.answered({uid})
    owner = {"apiVersion": "mlperf.dev/v1alpha1", "kind": "MLPerfRun", "name": "victim", "uid": uid, "controller": True}
    meta = {"name": "victim-agent", "namespace": siege.namespace, "ownerReferences": [owner]}
    await siege.cluster.create({**config_map(siege.namespace), "metadata": meta, "data": {"plan.json": "{}"}})
    await siege.cluster.create({**config_map(siege.namespace, "late"), "data": {"values.yaml": json.dumps(VALUES)}})

    async def refused() -> bool:
        [found] = (await siege.answered({uid})).values()
        return condition(found, "Accepted").get("reason") == "NameConflict"

    await until(refused)


async def test_a_pod_that_claims_to_be_a_runs_and_says_absurd_things_stops_nobody(siege: Siege) -> None:
    run = await siege.create(sound("victim", suspend=False))
    assert run is not None
    uid = run["metadata"]["uid"]
    [pod] = await until(partial(siege.listed, PODS))
    for status in generated(150, pod_statuses()):
        await siege.patch_status(PODS, pod["metadata"]["name"], status)
        await siege.patch_status(JOBS, "victim", {"startTime": status.get("startTime"), "failed": 7})
    await siege.answered({uid})
    siege.operator_is_well()


CONFIGS = [
    *(
        "[" * 5000,
        "&a [*a]",
        "!!python/object/apply:os.system [id]",
        "a: !!bool maybe",
        "a: !!int ''",
        "\0",
        "a" * 900_000,
    ),
    *("a: !!timestamp x", "a: 2026-13-45", "<<: 1", "? [a]\n: b", "---\na\n---\nb", "%YAML 9.9\n---\n", "\ufeff", "="),
]


async def test_a_config_map_that_no_config_is_refuses_the_run_with_a_sentence(siege: Siege) -> None:
    for number, text in enumerate(CONFIGS):
        await siege.cluster.create({**config_map(siege.namespace, f"config-{number}"), "data": {"values.yaml": text}})
    runs = [
        sound(f"run-{number}", gpuConfig={"configMapRef": {"name": f"config-{number}"}})
        for number in range(len(CONFIGS))
    ]
    made = [run for run in await gathered(siege.create(run) for run in runs) if run is not None]
    judged = await siege.answered({run["metadata"]["uid"] for run in made})
    assert len(judged) == len(CONFIGS)
    for run in judged.values():
        found = condition(run, "Accepted")
        assert (found["status"], found["reason"]) == ("False", "InvalidGpuConfig")
        assert found["message"].startswith(("config-", "ConfigMap config-"))
    siege.operator_is_well()
