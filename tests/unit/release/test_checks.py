"""What the checks of the supply chain look at, and what they make of it."""

import datetime as dt
import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from supply_chain import files, sbom, schemas, vulnerabilities
from supply_chain.outcome import REPOSITORY, Status, judged, skipped
from supply_chain.vulnerabilities import Accepted, Finding

TODAY = dt.date(2026, 12, 1)
FOUND = Finding(program="helm", id="GO-1", module="example.org/m", version="v1.0.0", fixed_in="v1.1.0")
ENTRY = Accepted(
    programs=["helm"], module="example.org/m", ids=["GO-1"], reason="only tests start it, for themselves",
    expires=TODAY + dt.timedelta(days=1),
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "head", "shell"),
    [
        ("a.sh", b"", True),
        ("run", b"#!/usr/bin/env bash\n", True),
        ("run", b"#!/bin/sh\n", True),
        ("run", b"#! /bin/bash -e\n", True),
        ("run", b"#!/usr/bin/env python3\n", False),
        ("run", b"", False),
        ("shell.py", b"", False),
    ],
)
def test_shell_scripts_are_known_by_name_or_first_line(name: str, head: bytes, *, shell: bool) -> None:
    assert files.is_shell(Path(name), head) is shell


def test_no_script_and_no_dockerfile_of_this_repository_is_missed() -> None:
    known = files.known_files()
    scripts = {str(path.relative_to(REPOSITORY)) for path in files.shell_scripts(known)}
    assert {".ci/run", "hack/test.sh", "hack/bootstrap.sh", "tests/e2e/standin_gpu/nvidia-smi"} <= scripts
    dockerfiles = {str(path.relative_to(REPOSITORY)) for path in known if files.is_dockerfile(path)}
    assert {"Dockerfile", "reference_harness/Dockerfile"} <= dockerfiles


def test_a_schema_takes_no_field_that_it_does_not_name() -> None:
    schema = {
        "type": "object",
        "properties": {
            "spec": {"type": "object", "properties": {"items": {"type": "array", "items": {"properties": {"a": {}}}}}},
            "free": {"type": "object", "additionalProperties": {"type": "string"}},
            "open": {"properties": {"a": {}}, "x-kubernetes-preserve-unknown-fields": True},
            "maybe": {"type": "string", "nullable": True},
        },
        "anyOf": [{"properties": {"a": {}}}],
    }
    closed = schemas.closed(schema)
    assert closed["additionalProperties"] is False
    spec = closed["properties"]["spec"]
    assert spec["additionalProperties"] is False
    assert spec["properties"]["items"]["items"]["additionalProperties"] is False
    assert closed["properties"]["free"]["additionalProperties"] == {"type": "string"}
    assert "additionalProperties" not in closed["properties"]["open"]
    assert closed["properties"]["maybe"]["type"] == ["string", "null"]
    assert closed["anyOf"] == [{"properties": {"a": {}}}]


def test_a_kind_has_its_schema_where_kubeconform_looks() -> None:
    swagger = {
        "definitions": {
            "io.k8s.Pod": {"x-kubernetes-group-version-kind": [{"group": "", "version": "v1", "kind": "Pod"}]},
            "io.k8s.Job": {"x-kubernetes-group-version-kind": [{"group": "batch", "version": "v1", "kind": "Job"}]},
        }
    }
    assert set(schemas.of_kubernetes(swagger)) == {schemas.DEFINITIONS, "v1/pod_v1.json", "batch/job_v1.json"}


def test_only_code_that_is_in_the_program_is_a_finding() -> None:
    place = {"module": "example.org/m", "version": "v1.0.0"}
    messages = [
        {"config": {}},
        {"finding": {"osv": "GO-2", "fixed_version": "v1.1.0", "trace": [place]}},
        {"finding": {"osv": "GO-1", "fixed_version": "v1.1.0", "trace": [{**place, "function": "Read"}]}},
        {"finding": {"osv": "GO-1", "trace": [{**place, "module": "example.org/other", "function": "Read"}]}},
    ]
    text = "\n".join(json.dumps(message, indent=1) for message in messages)
    assert vulnerabilities.findings("helm", text) == [FOUND]


def test_a_finding_in_our_modules_and_in_gos_library_is_told_of_both() -> None:
    messages = [
        {"finding": {"osv": "GO-1", "trace": [{"module": module, "version": "v1.0.0", "function": "Read"}]}}
        for module in ("stdlib", "example.org/m")
    ]
    found = vulnerabilities.findings("helm", "\n".join(json.dumps(message) for message in messages))
    assert {finding.module for finding in found} == {"stdlib", "example.org/m"}


def test_a_finding_that_nobody_accepted_is_a_problem() -> None:
    assert "GO-1" in vulnerabilities.problems([FOUND], [], TODAY)[0]
    other = FOUND.model_copy(update={"program": "kube"})
    assert vulnerabilities.problems([FOUND, other], [ENTRY], TODAY) == [other.text()]


def test_an_accepted_finding_is_none_until_its_day() -> None:
    assert vulnerabilities.problems([FOUND], [ENTRY], TODAY) == []
    [line] = vulnerabilities.problems([FOUND], [ENTRY], ENTRY.expires)
    assert "which is past" in line


def test_an_entry_that_covers_nothing_must_go() -> None:
    [line] = vulnerabilities.problems([], [ENTRY], TODAY)
    assert "no longer found" in line


def test_the_machines_go_is_told_and_fails_nothing() -> None:
    go = Finding(program="helm", id="GO-3", module="stdlib", version="v1.26.8", fixed_in="v1.26.10")
    older = go.model_copy(update={"id": "GO-4", "fixed_in": "v1.26.9"})
    assert vulnerabilities.problems([go, older], [], TODAY) == []
    assert "1.26.8 has 2 known ones, v1.26.10 mends them" in vulnerabilities.standard_library([older, go])
    assert vulnerabilities.standard_library([FOUND]) == ""


def test_nothing_is_accepted_without_reason_and_day() -> None:
    assert all(entry.reason and entry.expires for entry in vulnerabilities.accepted_findings())
    for missing in ("reason", "expires"):
        with pytest.raises(ValidationError):
            Accepted.model_validate(ENTRY.model_dump(exclude={missing}))


def test_a_bill_says_the_same_each_time() -> None:
    bom = {"specVersion": "1.5", "serialNumber": "urn:uuid:1", "metadata": {"timestamp": "now", "component": {}}}
    again = {**bom, "serialNumber": "urn:uuid:2", "metadata": {"timestamp": "later", "component": {}}}
    assert sbom.repeatable(bom, 0) == sbom.repeatable(again, 0)
    assert sbom.repeatable(bom, 0)["metadata"]["timestamp"] == "1970-01-01T00:00:00Z"
    assert sbom.repeatable(bom, 0)["serialNumber"] != sbom.repeatable({**bom, "components": []}, 0)["serialNumber"]


def test_requirements_of_another_system_are_not_in_the_image() -> None:
    lines = ["Aio_http==3.1.0", "colorama==0.4.6 ; sys_platform == 'win32'", "uvloop==0.2 ; sys_platform == 'linux'"]
    assert sbom.pinned(lines) == {("aio-http", "3.1.0"), ("uvloop", "0.2")}


def test_a_bill_that_is_none_is_seen() -> None:
    bom = {"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1}
    assert sbom.invalid(bom) == []
    assert sbom.invalid({**bom, "components": [{"name": "without a type"}]}) != []


def test_an_images_bill_has_its_debian_packages() -> None:
    bom = {"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1}
    bom |= {"metadata": {"component": {"type": "library", "name": "x"}}}
    whole = sbom.with_packages(bom, [("libc6", "2.36-9+deb12u14"), ("tzdata", "1:2026a")])
    assert sbom.invalid(whole) == []
    assert sbom.packages(whole) == {("libc6", "2.36-9+deb12u14"), ("tzdata", "1:2026a")}
    assert [part["purl"] for part in whole["components"]] == [
        "pkg:deb/debian/libc6@2.36-9%2Bdeb12u14",
        "pkg:deb/debian/tzdata@1%3A2026a",
    ]


def test_what_could_not_be_looked_at_is_no_pass() -> None:
    assert skipped("x", "no database").status is Status.SKIPPED
    assert judged("x", "2 files", ["a"]).status is Status.FAILED
    assert judged("x", "2 files", []).status is Status.OK
