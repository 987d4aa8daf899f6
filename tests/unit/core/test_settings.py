"""What an administrator may set, and what they are told when it is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from mlperf_operator.catalogue import DriverSettings
from mlperf_operator.grants import ParityGrant
from mlperf_operator.settings import Settings, SettingsError
from mlperf_operator.suites import BUILT_IN


def set_to(monkeypatch: pytest.MonkeyPatch, **values: str) -> Settings:
    for name, value in values.items():
        monkeypatch.setenv(f"MLPERF_OPERATOR_{name.upper()}", value)
    return Settings.from_environment()


def own(**changes: Any) -> dict[str, Any]:
    """Return a suite of the administrator's own, as YAML has it."""
    suite = BUILT_IN["reference-cpu"].model_dump(mode="json", by_alias=True, exclude_none=True)
    return {**suite, "name": "own", **changes}


def file_of(tmp_path: Path, document: Any) -> str:
    path = tmp_path / "suites.yaml"
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    return str(path)


def test_an_empty_environment_gives_an_operator_that_allows_nothing_extra() -> None:
    settings = Settings.from_environment()
    assert settings.allowed_host_paths == settings.allowed_images == ()
    assert settings.allowed_code_claims == settings.allowed_upload_endpoints == ()
    assert settings.harness_parity == {}
    assert settings.allowed_namespaces == settings.allowed_upload_secrets == ()
    assert settings.suites() == BUILT_IN


@pytest.mark.parametrize(("text", "paths"), [("", ()), (" , ", ()), ("/a", ("/a",)), (" /a, /b ,", ("/a", "/b"))])
def test_a_list_is_separated_by_commas(monkeypatch: pytest.MonkeyPatch, text: str, paths: tuple[str, ...]) -> None:
    settings = set_to(monkeypatch, allowed_host_paths=text, allowed_images=text)
    assert settings.allowed_host_paths == settings.allowed_images == paths


def test_namespaces_are_a_list_too(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set_to(monkeypatch, allowed_namespaces="bench, lab-2").allowed_namespaces == ("bench", "lab-2")


def test_what_privileged_runs_may_have_is_told_by_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    grant = '{"volumes": ["scratch", "/mnt/nvme"], "images": ["r.example/"], "nodeSelector": {"pool": "a"}}'
    settings = set_to(monkeypatch, harness_parity=f'{{"bench": {grant}, "b2": {{}}}}')
    wanted = ParityGrant(volumes=("scratch", "/mnt/nvme"), images=("r.example/",), node_selector={"pool": "a"})
    assert settings.harness_parity == {"bench": wanted, "b2": ParityGrant()}
    assert wanted.host_paths == ("/mnt/nvme",)


def test_a_suites_image_can_be_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    suites = set_to(monkeypatch, suite_images='{"reference-cpu": "registry.example/h:1"}').suites()
    assert suites["reference-cpu"].image == "registry.example/h:1"
    assert suites["nvidia-v4.1"] == BUILT_IN["nvidia-v4.1"]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("workers", "0", "MLPERF_OPERATOR_WORKERS: Input should be greater than or equal to 1"),
        ("workers", "many", "MLPERF_OPERATOR_WORKERS: Input should be a valid integer"),
        ("log_level", "loud", "MLPERF_OPERATOR_LOG_LEVEL: Input should be 'DEBUG', 'INFO', 'WARNING' or 'ERROR'"),
        ("image_pull_policy", "Sometimes", "MLPERF_OPERATOR_IMAGE_PULL_POLICY: Input should be 'Always'"),
        ("suite_images", "reference-cpu=x", "suite_images"),
        ("allowed_host_paths", "/mnt/a,.", "MLPERF_OPERATOR_ALLOWED_HOST_PATHS: Value error, . is no absolute path"),
        ("allowed_host_paths", "/mnt/..", "/mnt/.. is no absolute path"),
        ("allowed_host_paths", "/", "/ is no absolute path of a folder below /"),
        ("allowed_host_paths", "/mnt,//./", "//./ is no absolute path of a folder below /"),
        ("allowed_code_claims", "bench/a,code", "'code' is no namespace/name of a claim"),
        ("allowed_code_claims", "bench/a/b", "'bench/a/b' is no namespace/name of a claim"),
        ("allowed_upload_secrets", "bench/keys,keys", "'keys' is no namespace/name of a Secret"),
        ("allowed_namespaces", "bench,a/b", "'a/b' is no name of a namespace"),
        ("harness_parity", '{"bench": {"volumes": ["../a"]}}', "../a is no name of a claim and no absolute path"),
        ("harness_parity", '{"bench": {"volumes": ["/mnt/.."]}}', "HARNESS_PARITY.bench.volumes: Value error, /mnt/.."),
        ("harness_parity", '{"bench": {"images": [""]}}', "HARNESS_PARITY.bench.images.0: String should have at least"),
        ("harness_parity", '{"bench": {"nodeSelector": {"a b": "c"}}}', "HARNESS_PARITY.bench.nodeSelector"),
        ("harness_parity", '{"bench": ["scratch"]}', "HARNESS_PARITY.bench: Input should be a valid dictionary"),
        ("harness_parity", '{"a b": {}}', "'a b' is no name of a namespace"),
        ("harness_parity", "bench", "harness_parity"),
        ("suite_images", "[]", "MLPERF_OPERATOR_SUITE_IMAGES: Input should be a valid dictionary"),
        ("lease_duration_seconds", "5", "lease_retry_seconds < lease_renew_deadline_seconds < lease_duration_seconds"),
    ],
)
def test_a_wrong_setting_is_refused_by_its_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        set_to(monkeypatch, **{name: value})
    assert said in str(caught.value)


@pytest.mark.parametrize("outer", ["/mnt", "/mnt/nvme/", "/mnt/nvme/mlperf"])
def test_no_allowed_folder_lies_above_one_of_privileged_runs(monkeypatch: pytest.MonkeyPatch, outer: str) -> None:
    monkeypatch.setenv("MLPERF_OPERATOR_ALLOWED_HOST_PATHS", f"/data,{outer}")
    with pytest.raises(SettingsError) as caught:
        set_to(monkeypatch, harness_parity='{"bench": {"volumes": ["/mnt/nvme/mlperf/a"]}}')
    assert f"has {outer}, from which a run could reach /mnt/nvme/mlperf/a by a link" in str(caught.value)
    assert "namespace bench; name folders beside each other" in str(caught.value)


@pytest.mark.parametrize("beside", ["/mnt/nvme", "/mnt/nvme/", "/mnt/nvme/a", "/mnt/nv", "/data"])
def test_the_same_folder_or_one_beside_or_below_it_may_be_allowed(monkeypatch: pytest.MonkeyPatch, beside: str) -> None:
    settings = set_to(
        monkeypatch, allowed_host_paths=beside, harness_parity='{"bench": {"volumes": ["claim", "/mnt/nvme"]}}'
    )
    assert settings.allowed_host_paths == (beside,)


def test_suites_of_the_administrators_own_stand_beside_the_built_in(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = set_to(
        monkeypatch, suites_file=file_of(tmp_path, [own()]), suite_images='{"own": "registry.example/own:2"}'
    )
    assert sorted(settings.suites()) == ["nvidia-v4.1", "own", "reference-cpu"]
    assert settings.suites()["own"].image == "registry.example/own:2"


def test_a_suites_file_without_suites_adds_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert set_to(monkeypatch, suites_file=file_of(tmp_path, "")).suites() == BUILT_IN


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ([own(name="nvidia-v4.1")], "nvidia-v4.1 is built in; give the suite another name"),
        ([own(imagee="x")], "own: imagee: Extra inputs are not permitted"),
        ([own(stages=[])], "own: it: Value error, stages must be prebuild, download-data, download-model, preprocess"),
        (
            [own(code={"path": "/a", "gitUrl": "b"})],
            "own: code: Value error, set path, or gitUrl together with gitCommit",
        ),
        ([own(code={"gitUrl": "b"})], "set path, or gitUrl together with gitCommit"),
        ([own(systems={"A-1": {}})], "own: systems.A-1.[key]: String should match pattern"),
        ([own(benchmarks={"a;b": own()["benchmarks"]["digits"]})], "own: benchmarks.a;b.[key]: String should match"),
        (
            [own(benchmarks={"digits": {"scenarios": ["Offline"], "variants": {"Default": "digits-99"}}})],
            "own: it: Value error, benchmark digits has no variant for config version HighAccuracy",
        ),
        ([own(configFields={"a": "Text"})], "own: configFields.a: Input should be 'Integer', 'Number', 'Boolean'"),
        ([{"image": "x"}], "a suite: name: Field required"),
        (["own"], "a suite: it: Input should be"),
        ({"name": "own"}, "must be a list of suites"),
        ("a: [", "while parsing"),
        ("a: 2026-13-45", "month must be in 1..12"),
    ],
)
def test_a_wrong_suites_file_is_refused_with_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, document: Any, said: str
) -> None:
    settings = set_to(monkeypatch, suites_file=file_of(tmp_path, document))
    with pytest.raises(SettingsError) as caught:
        settings.suites()
    assert said in str(caught.value)
    assert "suites.yaml" in str(caught.value)


def test_a_suites_file_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nowhere\.yaml"):
        set_to(monkeypatch, suites_file=str(tmp_path / "nowhere.yaml")).suites()


def test_an_image_for_a_suite_that_is_not_there_names_those_that_are(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r"suite images name nvidia-v9; possible: nvidia-v4\.1, reference-cpu"):
        set_to(monkeypatch, suite_images='{"nvidia-v9": "x"}').suites()


KEY = "-----BEGIN PGP PUBLIC KEY BLOCK-----"


def driver(**changes: Any) -> dict[str, Any]:
    """Return a driver of the catalogue, as YAML has it."""
    source = {
        "type": "Packages",
        "os": ["ubuntu 22.04"],
        "repository": {"url": "https://nvidia.example/cuda", "key": KEY},
        "driver": [{"name": "nvidia-driver-550", "version": "550.54.14-0ubuntu1"}],
        "fabricManager": [{"name": "nvidia-fabricmanager-550", "version": "550.54.14-1"}],
    }
    return {"branch": "550", "version": "550.54.14", "sources": [source], **changes}


def driver_file_of(tmp_path: Path, document: Any) -> str:
    path = tmp_path / "driver.yaml"
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    return str(path)


def test_without_a_driver_file_no_driver_is_managed() -> None:
    assert Settings.from_environment().driver() is None


def test_an_empty_driver_file_manages_drivers_with_an_empty_catalogue(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert set_to(monkeypatch, driver_file=driver_file_of(tmp_path, "")).driver() == DriverSettings()


def test_what_the_administrator_says_of_drivers_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    document = {
        "drivers": [driver(minFreeBytes=1)],
        "mirrors": [{"prefix": "https://nvidia.example", "replacement": "http://mirror"}],
        "evictGpuPods": True,
        "hostRoot": "/srv/root",
        "retrySeconds": 5,
        "verifyPort": 12345,
        "tolerations": [{"key": "sku", "value": "gpu"}],
    }
    found = set_to(monkeypatch, driver_file=driver_file_of(tmp_path, document)).driver()
    assert found is not None
    kept = found.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True)
    assert kept == document
    assert found.find("550") == found.drivers[0]


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (
            {"drivers": [driver(), driver(version="550.54")]},
            "driver 550.54: it: Value error, fabric manager package nvidia-fabricmanager-550 has version 550.54.14-1",
        ),
        ({"drivers": [driver(branch="535")]}, "driver 550.54.14: it: Value error, version 550.54.14 is not of branch"),
        ({"drivers": [driver(), driver()]}, "it: Value error, more than one driver has the version 550.54.14"),
        ({"drivers": [driver(), {"branch": "535"}]}, "driver 535: version: Field required; driver 535: sources: Field"),
        ({"drivers": [driver(), {"sources": []}]}, "driver number 2: branch: Field required"),
        ({"drivers": [driver(), "550"]}, "drivers.1: Input should be a valid dictionary"),
        ({"drivers": driver()}, "drivers: Input should be a valid tuple"),
        ({"drivers": [driver(sources=[{"type": "Tarball"}])]}, "driver 550.54.14: sources.0: Input tag 'Tarball'"),
        (
            {"drivers": [driver(sources=[{**driver()["sources"][0], "os": ["Ubuntu"]}])]},
            "driver 550.54.14: sources.0.Packages.os.0: String should match pattern",
        ),
        ({"evictGpuPod": True}, "evictGpuPod: Extra inputs are not permitted"),
        ({"toolkit": {}}, "toolkit.sources: Field required"),
        ({"mirrors": [{"prefix": "https://a"}]}, "mirrors.0.replacement: Field required"),
        ({"retrySeconds": 0}, "retrySeconds: Input should be greater than or equal to 1"),
        ([driver()], "it: Input should be a valid dictionary"),
        ("drivers: [", "while parsing"),
    ],
)
def test_a_wrong_driver_file_is_refused_with_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, document: Any, said: str
) -> None:
    settings = set_to(monkeypatch, driver_file=driver_file_of(tmp_path, document))
    with pytest.raises(SettingsError) as caught:
        settings.driver()
    assert f"driver.yaml: {said}" in str(caught.value)


def test_a_wrong_item_is_named_without_what_follows_from_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = set_to(monkeypatch, driver_file=driver_file_of(tmp_path, {"drivers": [driver(sources=[{"type": "a"}])]}))
    with pytest.raises(SettingsError) as caught:
        settings.driver()
    assert "at least 1 item" not in str(caught.value)


def test_a_driver_file_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nowhere\.yaml"):
        set_to(monkeypatch, driver_file=str(tmp_path / "nowhere.yaml")).driver()
