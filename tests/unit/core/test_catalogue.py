"""The administrator's catalogue: what a version means, from where a node gets it, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from pydantic import ValidationError

from mlperf_operator.catalogue import (
    Catalogue,
    Driver,
    DriverSettings,
    Mirror,
    PackageSource,
    RunFileSource,
    Target,
    target,
    upstream,
)

KEY = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n"
SHA = "0" * 64


def repository(**changes: Any) -> dict[str, Any]:
    return {"url": "https://nvidia.example/cuda", "key": KEY, **changes}


def packages(**changes: Any) -> dict[str, Any]:
    return {
        "type": "Packages",
        "os": ["ubuntu 22.04"],
        "repository": repository(),
        "driver": [{"name": "nvidia-driver-550", "version": "550.54.14-0ubuntu1"}],
        "fabricManager": [{"name": "nvidia-fabricmanager-550", "version": "550.54.14-1"}],
        **changes,
    }


def run_file(**changes: Any) -> dict[str, Any]:
    return {
        "type": "RunFile",
        "os": ["debian"],
        "url": "https://nvidia.example/cuda.run",
        "sha256": SHA,
        "repository": repository(),
        "fabricManager": [{"name": "nvidia-fabricmanager-550", "version": "550.54.14-1"}],
        **changes,
    }


def driver(version: str = "550.54.14", **changes: Any) -> dict[str, Any]:
    source = packages(fabricManager=[{"name": "nvidia-fabricmanager", "version": f"{version}-1"}])
    return {"branch": version.partition(".")[0], "version": version, "sources": [source], **changes}


def toolkit(**changes: Any) -> dict[str, Any]:
    source = {
        "os": ["ubuntu"],
        "repository": repository(url="https://toolkit.example/deb"),
        "packages": [{"name": "nvidia-container-toolkit", "version": "1.17.8-1"}],
    }
    return {"sources": [source], **changes}


def catalogue(*drivers: dict[str, Any], **changes: Any) -> Catalogue:
    return Catalogue.model_validate({"drivers": list(drivers), **changes})


def refusal(model: type[Catalogue | Driver | Mirror | PackageSource | RunFileSource], document: Any) -> tuple[str, str]:
    """Return where the one thing wrong with a document is, and what is said of it."""
    with pytest.raises(ValidationError) as caught:
        model.model_validate(document)
    problems = {".".join(str(part) for part in problem["loc"]): problem["msg"] for problem in caught.value.errors()}
    # A list of wrong items also counts as empty, for pydantic.
    [where] = [place for place in problems if not any(other.startswith(f"{place}.") for other in problems)]
    return where, problems[where]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("550", "550.54.14"),
        ("550.54.14", "550.54.14"),
        ("550.90.07", "550.90.07"),
        ("535", "535.183.06"),
        ("550.54", None),
        ("55", None),
        ("560", None),
    ],
)
def test_a_branch_means_its_first_driver_and_a_version_exactly_itself(asked: str, found: str | None) -> None:
    known = catalogue(driver("550.54.14"), driver("550.90.07"), driver("535.183.06"))
    driver_found = known.find(asked)
    assert (driver_found.version if driver_found else None) == found


def test_what_a_run_may_ask_for_is_listed() -> None:
    assert catalogue(driver("550.54.14"), driver("535.183.06")).names() == "550 (550.54.14), 535 (535.183.06)"
    assert catalogue().names() == "none"


@pytest.mark.parametrize(
    ("version", "found"),
    [
        ("550.54.14-1", "550.54.14"),
        ("550.54.14", "550.54.14"),
        ("1:550.54.14-0ubuntu0.22.04.1", "550.54.14"),
        ("3:550.54.14", "550.54.14"),
    ],
)
def test_the_upstream_version_lacks_epoch_and_revision(version: str, found: str) -> None:
    assert upstream(version) == found


@pytest.mark.parametrize("make", [packages, run_file])
@pytest.mark.parametrize("version", ["550.54.15-1", "550.90.07-1", "550", "550.54-1", "1:550.54.1-4"])
def test_a_fabric_manager_of_another_version_than_the_driver_is_refused(make: Any, version: str) -> None:
    source = make(fabricManager=[{"name": "nvidia-fabricmanager-550", "version": version}])
    where, said = refusal(Driver, driver(sources=[source]))
    assert where == ""
    assert said == (
        f"Value error, fabric manager package nvidia-fabricmanager-550 has version {version}; it must be exactly the "
        "driver's, 550.54.14, or it does not start"
    )


def test_the_second_source_is_held_to_the_drivers_version_too() -> None:
    wrong = run_file(fabricManager=[{"name": "nvidia-fabricmanager-550", "version": "550.54.15-1"}])
    assert "has version 550.54.15-1" in refusal(Driver, driver(sources=[packages(), wrong]))[1]


@pytest.mark.parametrize("version", ["550.54.14-1", "1:550.54.14-0ubuntu0.22.04.1"])
def test_a_fabric_manager_of_the_drivers_version_is_taken_whatever_its_revision(version: str) -> None:
    source = packages(fabricManager=[{"name": "nvidia-fabricmanager-550", "version": version}])
    [kept] = Driver.model_validate(driver(sources=[source])).sources
    assert [package.version for package in kept.fabric_manager] == [version]


def test_a_driver_is_of_its_branch() -> None:
    said = "Value error, version 550.54.14 is not of branch 535"
    assert refusal(Driver, driver(branch="535")) == ("", said)


def test_a_version_stands_in_the_catalogue_once() -> None:
    document = {"drivers": [driver("550.54.14"), driver("535.183.06"), driver("550.54.14")]}
    assert refusal(Catalogue, document) == ("", "Value error, more than one driver has the version 550.54.14")


@pytest.mark.parametrize(
    "places",
    [{"url": None}, {"hostPath": "/opt/cuda.run"}],
    ids=["none", "both"],
)
def test_a_run_file_has_exactly_one_place(places: dict[str, Any]) -> None:
    assert refusal(RunFileSource, run_file(**places)) == ("", "Value error, set exactly one of url and hostPath")


def test_a_run_file_may_lie_on_the_node() -> None:
    source = RunFileSource.model_validate(run_file(url=None, hostPath="/opt/cuda.run"))
    assert (source.url, source.host_path) == (None, "/opt/cuda.run")


def test_a_fabric_manager_beside_a_run_file_needs_a_repository() -> None:
    said = "Value error, fabricManager packages need a repository"
    assert refusal(RunFileSource, run_file(repository=None)) == ("", said)
    assert RunFileSource.model_validate(run_file(repository=None, fabricManager=[])).repository is None


@pytest.mark.parametrize("name", ["ubuntu", "ubuntu 22.04", "opensuse-leap 15.6", "rhel 9", "centos_stream"])
def test_a_system_is_named_as_os_release_names_it(name: str) -> None:
    assert PackageSource.model_validate(packages(os=[name])).os == (name,)


@pytest.mark.parametrize("name", ["Ubuntu", "ubuntu jammy", "ubuntu  22.04", "ubuntu 22.04 ", "22.04", ""])
def test_another_name_of_a_system_is_refused(name: str) -> None:
    where, said = refusal(PackageSource, packages(os=[name]))
    assert where == "os.0"
    assert said.startswith("String should match pattern")


@pytest.mark.parametrize(
    ("document", "where", "said"),
    [
        (driver(branch="550.54"), "drivers.0.branch", "should match pattern"),
        (driver(branch=550), "drivers.0.branch", "valid string"),
        (driver(version="550"), "drivers.0.version", "should match pattern"),
        (driver(sources=[]), "drivers.0.sources", "at least 1 item"),
        (driver(minFreeBytes=-1), "drivers.0.minFreeBytes", "greater than or equal to 0"),
        (driver(verison="550"), "drivers.0.verison", "Extra inputs are not permitted"),
        (driver(sources=[packages(type="Tarball")]), "drivers.0.sources.0", "'Packages', 'RunFile'"),
        (driver(sources=[{"os": ["ubuntu"]}]), "drivers.0.sources.0", "discriminator 'type'"),
        (driver(sources=[packages(os=[])]), "drivers.0.sources.0.Packages.os", "at least 1 item"),
        (driver(sources=[packages(driver=[])]), "drivers.0.sources.0.Packages.driver", "at least 1 item"),
        (driver(sources=[packages(manager="pacman")]), "drivers.0.sources.0.Packages.manager", "'apt', 'dnf'"),
        (
            driver(sources=[packages(driver=[{"name": "nvidia-driver-550"}])]),
            "drivers.0.sources.0.Packages.driver.0.version",
            "Field required",
        ),
        (
            driver(sources=[packages(driver=[{"name": "--force", "version": "1"}])]),
            "drivers.0.sources.0.Packages.driver.0.name",
            "should match pattern",
        ),
        (
            driver(sources=[packages(driver=[{"name": "a", "version": "1 -o Dpkg::Options::=x"}])]),
            "drivers.0.sources.0.Packages.driver.0.version",
            "should match pattern",
        ),
        (
            driver(sources=[packages(repository=repository(url="https://a b"))]),
            "drivers.0.sources.0.Packages.repository.url",
            "should match pattern",
        ),
        (
            driver(sources=[packages(repository=repository(url="https://a/x\ndeb https://b"))]),
            "drivers.0.sources.0.Packages.repository.url",
            "should match pattern",
        ),
        (
            driver(sources=[packages(repository=repository(suite="stable main"))]),
            "drivers.0.sources.0.Packages.repository.suite",
            "should match pattern",
        ),
        (
            driver(sources=[packages(repository=repository(key=""))]),
            "drivers.0.sources.0.Packages.repository.key",
            "at least 1 character",
        ),
        (driver(sources=[run_file(sha256="abc")]), "drivers.0.sources.0.RunFile.sha256", "should match pattern"),
        (
            driver(sources=[run_file(url=None, hostPath="opt/cuda.run")]),
            "drivers.0.sources.0.RunFile.hostPath",
            "should match pattern",
        ),
    ],
)
def test_what_is_wrong_with_a_driver_is_named_by_its_field(document: dict[str, Any], where: str, said: str) -> None:
    found, message = refusal(Catalogue, {"drivers": [document]})
    assert found == where
    assert said in message


@pytest.mark.parametrize(
    ("document", "where"),
    [
        ({"toolkit": {"sources": []}}, "toolkit.sources"),
        ({"toolkit": toolkit(containerdConfig="config.toml")}, "toolkit.containerdConfig"),
        ({"toolkit": toolkit(setAsDefault="perhaps")}, "toolkit.setAsDefault"),
        ({"mirrors": [{"prefix": "https://a"}]}, "mirrors.0.replacement"),
        ({"mirrors": [{"prefix": "nvidia.com", "replacement": "https://b"}]}, "mirrors.0.prefix"),
        ({"retrySeconds": 0}, "retrySeconds"),
        ({"retrySeconds": 3601}, "retrySeconds"),
        ({"verifyPort": 80}, "verifyPort"),
        ({"hostRoot": "host"}, "hostRoot"),
        ({"evictGpuPods": "some"}, "evictGpuPods"),
        ({"tolerations": [{"operator": "Is"}]}, "tolerations.0.operator"),
        ({"driver": []}, "driver"),
    ],
)
def test_what_is_wrong_with_a_setting_is_named_by_its_field(document: dict[str, Any], where: str) -> None:
    assert refusal(DriverSettings, document)[0] == where


def mirrors(*pairs: tuple[str, str]) -> Sequence[dict[str, str]]:
    return [{"prefix": prefix, "replacement": replacement} for prefix, replacement in pairs]


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("https://nvidia.example/cuda/x", "http://near/cuda/x"),
        ("https://nvidia.example/", "http://far/"),
        ("https://other.example/cuda", "https://other.example/cuda"),
        ("http://near/https://nvidia.example/cuda", "http://near/https://nvidia.example/cuda"),
    ],
)
def test_the_first_mirror_that_fits_is_used_and_only_at_the_beginning(url: str, found: str) -> None:
    pairs = (("https://nvidia.example/cuda", "http://near/cuda"), ("https://nvidia.example", "http://far"))
    assert catalogue(mirrors=mirrors(*pairs)).mirrored(url) == found


def urls(value: Any) -> set[str]:
    if isinstance(value, dict):
        here = {value["url"]} if value.get("url") else set()
        return here.union(*(urls(item) for item in value.values()))
    return set().union(*(urls(item) for item in value)) if isinstance(value, list) else set()


def test_a_driver_pod_is_told_every_url_as_its_node_reaches_it() -> None:
    known = catalogue(
        driver(sources=[packages(), run_file(repository=repository(url="https://nvidia.example/fm"))]),
        toolkit=toolkit(),
        mirrors=mirrors(("https://nvidia.example", "http://mirror/n"), ("https://toolkit.example", "file:///srv/t")),
    )
    told = target(known, "Install", known.find("550"))
    assert urls(told.model_dump(mode="json", by_alias=True)) == {
        "http://mirror/n/cuda",
        "http://mirror/n/cuda.run",
        "http://mirror/n/fm",
        "file:///srv/t/deb",
    }


def test_a_mirror_changes_nothing_but_urls() -> None:
    document = driver(sources=[packages(repository=repository(key="https://nvidia.example is in the key"))])
    known = catalogue(document, toolkit=toolkit(), mirrors=mirrors(("https://nvidia.example", "http://mirror")))
    told = target(known, "Adopt", known.find("550"))
    unmirrored = target(catalogue(document, toolkit=toolkit()), "Adopt", known.find("550"))
    text = unmirrored.model_dump_json().replace('"https://nvidia.example/cuda"', '"http://mirror/cuda"')
    assert told.model_dump_json() == text


def test_without_a_driver_a_pod_only_looks() -> None:
    assert target(catalogue(driver(), toolkit=toolkit()), "Verify", None) == Target(mode="Verify")


def test_a_target_is_read_as_it_was_written() -> None:
    known = catalogue(driver(sources=[packages(), run_file()]), toolkit=toolkit(setAsDefault=True))
    told = target(known, "Install", known.find("550"))
    assert Target.model_validate_json(told.model_dump_json(by_alias=True)) == told
    assert json.loads(told.model_dump_json(by_alias=True))["driver"]["sources"][1]["sha256"] == SHA


def test_without_settings_nothing_is_evicted_and_every_taint_is_tolerated() -> None:
    settings = DriverSettings()
    assert (settings.drivers, settings.evict_gpu_pods, settings.host_root) == ((), False, "/")
    assert [toleration.operator for toleration in settings.tolerations] == ["Exists"]
