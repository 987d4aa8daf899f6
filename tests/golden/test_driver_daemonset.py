"""The DaemonSets of drivers, and the Job that asks for one, against files that a person has read."""

from __future__ import annotations

from typing import Any

import pytest

from golden.cases import nvidia
from golden.test_golden import FILES, UPDATE, readable
from mlperf_operator.api.v1alpha1 import MLPerfRun
from mlperf_operator.catalogue import DriverSettings, Mode
from mlperf_operator.resources.driver_daemonset import DriverImages, daemon_set_name, driver_daemon_set, template_digest
from mlperf_operator.resources.job import Images, job
from mlperf_operator.suites import BUILT_IN

KEY = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n"
REPOSITORY = {"url": "https://packages.example/cuda", "key": KEY}
SETTINGS = DriverSettings.model_validate(
    {
        "drivers": [
            {
                "branch": "550",
                "version": "550.54.14",
                "sources": [
                    {
                        "type": "Packages",
                        "os": ["ubuntu 22.04"],
                        "repository": REPOSITORY,
                        "driver": [{"name": "nvidia-driver-550-server", "version": "550.54.14-0ubuntu0.22.04.1"}],
                        "fabricManager": [{"name": "nvidia-fabricmanager-550", "version": "550.54.14-1"}],
                    }
                ],
            },
            {
                "branch": "535",
                "version": "535.183.01",
                "sources": [
                    {
                        "type": "RunFile",
                        "os": ["rhel"],
                        "url": "https://packages.example/cuda.run",
                        "sha256": "0" * 64,
                    }
                ],
            },
        ],
        "toolkit": {
            "sources": [
                {
                    "os": ["ubuntu"],
                    "repository": REPOSITORY,
                    "packages": [{"name": "nvidia-container-toolkit", "version": "1.16.2-1"}],
                }
            ]
        },
        "mirrors": [{"prefix": "https://packages.example", "replacement": "http://mirror.example/packages"}],
    }
)
IMAGES = DriverImages("registry.example/mlperf-operator:1", "IfNotPresent", ("registry",))
CASES: list[tuple[str, Mode, str | None]] = [
    ("driver-install", "Install", "550"),
    ("driver-adopt-run-file", "Adopt", "535.183.01"),
    ("driver-verify", "Verify", None),
]


def made(mode: Mode, version: str | None, settings: DriverSettings = SETTINGS) -> dict[str, Any]:
    driver = settings.find(version) if version else None
    return driver_daemon_set(mode, driver, settings, IMAGES, "mlperf-system")


def compare(case: str, name: str, body: dict[str, Any]) -> None:
    file = FILES / case / f"{name}.yaml"
    if UPDATE:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(readable(body))
    assert readable(body) == file.read_text(), "run `UPDATE_GOLDEN=1 pytest tests/golden` and read the difference"


@pytest.mark.parametrize(("case", "mode", "version"), CASES, ids=[case[0] for case in CASES])
def test_a_daemon_set_renders_as_its_golden_file_says(case: str, mode: Mode, version: str | None) -> None:
    body = made(mode, version)
    compare(case, f"daemonset-{body['metadata']['name']}", body)


def test_a_job_that_asks_for_a_driver_renders_as_its_golden_file_says() -> None:
    meta = {"name": "golden", "namespace": "bench", "uid": "11111111-2222-3333-4444-555555555555"}
    run = MLPerfRun.model_validate({"metadata": meta, "spec": nvidia(benchmarks=[{"name": "bert"}])})
    images = Images("harness:1", "operator:1", "IfNotPresent")
    body = job(run, BUILT_IN["nvidia-v4.1"], images, [], "digest", driver="550.54.14")
    compare("driver-job", "job-golden", body)
    without = job(run, BUILT_IN["nvidia-v4.1"], images, [], "digest")
    assert body["spec"]["template"]["spec"].pop("affinity")
    assert body == without


def _pod(body: dict[str, Any]) -> dict[str, Any]:
    return dict(body["spec"]["template"]["spec"])


@pytest.mark.parametrize(("case", "mode", "version"), CASES, ids=[case[0] for case in CASES])
def test_every_driver_pod_runs_only_where_its_own_word_was_opted_in(case: str, mode: Mode, version: str | None) -> None:
    body = made(mode, version)
    required = _pod(body)["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    [term] = required["nodeSelectorTerms"]
    opted_in = {"key": "mlperf.dev/driver-opt-in", "operator": "In", "values": [mode.lower()]}
    assert opted_in in term["matchExpressions"], case
    wanted = [rule["values"] for rule in term["matchExpressions"] if rule["key"] == "mlperf.dev/driver-wanted"]
    exact = body["metadata"]["labels"]["mlperf.dev/driver-version"]
    assert wanted == ([[exact]] if version else [])
    assert body["spec"]["updateStrategy"] == {"type": "OnDelete"}
    assert body["spec"]["selector"]["matchLabels"].items() <= body["spec"]["template"]["metadata"]["labels"].items()
    assert "ownerReferences" not in body["metadata"]


def test_verify_sees_the_host_but_cannot_write_to_it() -> None:
    for mode, version in (("Verify", None), ("Install", "550"), ("Adopt", "550")):
        pod = _pod(made(mode, version))  # type: ignore[arg-type]
        mounts = [mount for c in [*pod["initContainers"], *pod["containers"]] for mount in c["volumeMounts"]]
        assert [mount["readOnly"] for mount in mounts] == [mode == "Verify"] * 2


def test_the_digest_changes_with_whatever_the_pod_is_made_from_and_with_nothing_else() -> None:
    digest = template_digest(made("Install", "550"))
    assert digest == template_digest(made("Install", "550"))
    assert digest == template_digest(made("Install", "550", SETTINGS.model_copy(update={"retry_seconds": 60})))
    others = [
        made("Adopt", "550"),
        made("Install", "535"),
        made("Install", "550", SETTINGS.model_copy(update={"verify_port": 10400})),
        made("Install", "550", SETTINGS.model_copy(update={"mirrors": ()})),
        made("Install", "550", SETTINGS.model_copy(update={"toolkit": None})),
    ]
    assert digest not in {template_digest(body) for body in others}


def test_each_mode_and_version_has_a_name_of_its_own() -> None:
    driver = SETTINGS.find("550")
    assert daemon_set_name("Install", driver) == "mlperf-driver-550-54-14"
    assert daemon_set_name("Adopt", driver) == "mlperf-driver-550-54-14-adopt"
    assert daemon_set_name("Verify", None) == "mlperf-driver-verify"


def test_without_pull_secrets_none_are_named() -> None:
    body = driver_daemon_set("Verify", None, SETTINGS, DriverImages("operator:1", "Always"), "mlperf-system")
    assert "imagePullSecrets" not in _pod(body)
