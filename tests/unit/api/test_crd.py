"""The CRD: structural, bounded, immutable but for two fields, and written to the repository as it is made."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlperf_operator import crd, crd_rules
from mlperf_operator.api.v1alpha1 import MLPerfRunSpec
from mlperf_operator.crd import SchemaError, build_crd, structural

ROOT = Path(__file__).parents[3]
CRD = build_crd()
VERSION = CRD["spec"]["versions"][0]
SCHEMA = VERSION["schema"]["openAPIV3Schema"]
SPEC = SCHEMA["properties"]["spec"]
STATUS = SCHEMA["properties"]["status"]

Node = tuple[str, dict[str, Any]]


def nodes(schema: dict[str, Any], path: str) -> Iterator[Node]:
    yield path, schema
    for name, field in schema.get("properties", {}).items():
        yield from nodes(field, f"{path}.{name}")
    for key, suffix in (("items", "[]"), ("additionalProperties", "{}")):
        if key in schema:
            yield from nodes(schema[key], path + suffix)


EVERYTHING = [*nodes(SPEC, "spec"), *nodes(STATUS, "status")]


@pytest.mark.parametrize(
    ("schema", "wanted"),
    [
        ({"type": "string", "title": "A"}, {"type": "string"}),
        ({"type": "object", "additionalProperties": False, "properties": {}}, {"type": "object", "properties": {}}),
        ({"const": "a", "type": "string"}, {"enum": ["a"], "type": "string"}),
        ({"type": "string", "default": None}, {"type": "string"}),
        ({"type": "string", "default": ""}, {"type": "string", "default": ""}),
        ({"type": "object", "default": {"a": 1, "b": None}}, {"type": "object", "default": {"a": 1}}),
        ({"type": "integer", "minimum": 0, "maximum": 9}, {"type": "integer", "minimum": 0, "maximum": 9}),
        ({"type": "string", "x-kubernetes-anything": 1}, {"type": "string", "x-kubernetes-anything": 1}),
        (
            {"type": "array", "items": {"type": "string", "title": "A"}, "maxItems": 1},
            {"type": "array", "items": {"type": "string"}, "maxItems": 1},
        ),
        (
            {"type": "object", "additionalProperties": {"type": "string", "title": "A"}, "propertyNames": {}},
            {"type": "object", "additionalProperties": {"type": "string"}},
        ),
        (
            {"type": "object", "patternProperties": {"^a$": {"type": "string", "title": "A"}}},
            {"type": "object", "additionalProperties": {"type": "string"}},
        ),
        ({"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}, {"type": "string"}),
        (
            {"anyOf": [{"$ref": "#/$defs/A"}, {"type": "null"}], "description": "here"},
            {"type": "string", "description": "here"},
        ),
        ({"$ref": "#/$defs/A", "description": "here"}, {"type": "string", "description": "here"}),
        ({"$ref": "#/$defs/A"}, {"type": "string", "description": "there"}),
        (
            {"anyOf": [{"type": "integer"}, {"type": "string", "maxLength": 5}]},
            {"x-kubernetes-int-or-string": True, "maxLength": 5},
        ),
        ({"anyOf": [{"type": "integer"}, {"type": "string"}]}, {"x-kubernetes-int-or-string": True}),
    ],
)
def test_a_schema_becomes_structural(schema: dict[str, Any], wanted: dict[str, Any]) -> None:
    definitions = {"A": {"type": "string", "title": "A", "description": "there"}}
    assert structural(schema, definitions) == wanted


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "string", "contentEncoding": "base64"}, "here: contentEncoding"),
        ({"properties": {"a": {"items": {"not": {}}}}}, "here.a[]: not"),
        ({"anyOf": [{"type": "boolean"}, {"type": "string"}]}, "here: a union of ['boolean', 'string']"),
        ({"anyOf": [{"type": "object"}, {"type": "array"}]}, "here: a union of ['object', 'array']"),
        ({"type": "object", "patternProperties": {"^a$": {}, "^b$": {}}}, "here: patternProperties"),
        ({"type": "integer", "exclusiveMinimum": 0}, "here: exclusiveMinimum"),
    ],
)
def test_what_a_structural_schema_cannot_say_is_refused_and_located(schema: dict[str, Any], said: str) -> None:
    with pytest.raises(SchemaError, match=re.escape(said)):
        structural(schema, {}, "here")


@pytest.mark.parametrize(("path", "schema"), EVERYTHING, ids=[path for path, _ in EVERYTHING])
def test_every_part_is_structural_and_explained(path: str, schema: dict[str, Any]) -> None:
    assert not {"title", "$ref", "anyOf", "oneOf", "allOf", "$defs"} & set(schema)
    assert ("type" in schema) != ("x-kubernetes-int-or-string" in schema)
    assert not {"properties", "additionalProperties"} <= set(schema)
    if path.endswith(("]", "}")):
        return
    assert schema["description"]


@pytest.mark.parametrize(("path", "schema"), [*nodes(SPEC, "spec")], ids=[path for path, _ in nodes(SPEC, "spec")])
def test_every_part_of_spec_has_a_bound_so_that_cel_stays_in_budget(path: str, schema: dict[str, Any]) -> None:
    assert schema.get("type") != "number"
    if schema.get("type") == "string" or "x-kubernetes-int-or-string" in schema:
        assert "maxLength" in schema or "enum" in schema
    if schema.get("type") == "array":
        assert "maxItems" in schema
    if "additionalProperties" in schema:
        assert "maxProperties" in schema


def test_every_list_of_spec_says_how_it_is_merged() -> None:
    kinds = {path: schema["x-kubernetes-list-type"] for path, schema in EVERYTHING if schema.get("type") == "array"}
    assert kinds["spec.benchmarks"] == "map"
    assert kinds["spec.testModes"] == kinds["spec.benchmarks[].scenarios"] == "set"
    assert kinds["status.conditions"] == kinds["status.stages"] == "map"


def test_what_the_user_leaves_out_the_server_shows() -> None:
    defaults = {name: field["default"] for name, field in SPEC["properties"].items() if "default" in field}
    assert defaults == {
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


def test_the_columns_are_those_of_the_design() -> None:
    columns = VERSION["additionalPrinterColumns"]
    assert ["Name", *(c["name"] for c in columns if not c.get("priority"))] == [
        *("Name", "System", "Benchmarks", "Stage", "Succeeded", "Valid", "Result", "Age")
    ]
    assert [c["name"] for c in columns if c.get("priority")] == ["Accuracy", "Node", "Driver"]


def test_every_column_shows_a_field_that_exists() -> None:
    known = {f".{path}" for path, _ in EVERYTHING} | {".metadata.creationTimestamp"}
    for column in VERSION["additionalPrinterColumns"]:
        path = re.sub(r"\[\?\(@\.type==\"\w+\"\)\]", "[]", column["jsonPath"])
        assert path in known, column


@pytest.mark.parametrize("field", SPEC["properties"])
def test_every_field_of_spec_is_immutable_but_two(field: str) -> None:
    rules = [rule for rule in SPEC["x-kubernetes-validations"] if rule["message"].startswith(f"{field} is immutable")]
    if field in ("suspend", "ttlSecondsAfterFinished"):
        assert rules == []
        return
    [rule] = rules
    # Adding and removing are changes too; and a field that one side lacks must not be read.
    assert rule["rule"] == (
        f"has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})"
    )
    assert "suspend and ttlSecondsAfterFinished" in rule["message"]


def test_every_rule_says_in_a_sentence_what_is_possible() -> None:
    for path, schema in nodes(SCHEMA, ""):
        for rule in schema.get("x-kubernetes-validations", ()):
            assert len(rule["message"]) > 15, path
            assert "\n" not in rule["rule"] + rule["message"]


def test_names_stay_short_enough_for_what_is_named_after_them() -> None:
    longest = "gpu-config"
    assert len("x" * 52 + f"-{longest}") <= 63
    assert "self.metadata.name.size() <= 52" in SCHEMA["x-kubernetes-validations"][0]["rule"]


def test_the_status_is_a_subresource_and_the_kind_has_a_short_name() -> None:
    assert VERSION["subresources"] == {"status": {}}
    assert CRD["spec"]["names"]["shortNames"] == ["mlr"]
    assert CRD["spec"]["scope"] == "Namespaced"


def test_a_value_that_cannot_stand_in_a_rule_is_refused() -> None:
    assert crd_rules._literal("a-b.c") == "'a-b.c'"
    for value in ("it's", "a\\"):
        with pytest.raises(ValueError, match="cannot stand in a CEL string"):
            crd_rules._literal(value)


@pytest.mark.parametrize("path", crd.generated_files(ROOT), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_generated_file_is_stale(path: Path) -> None:
    assert path.read_text() == crd.generated_files(ROOT)[path], "run `make generate`"


def test_helm_keeps_the_crd_when_the_chart_goes() -> None:
    chart = yaml.safe_load((ROOT / "charts/mlperf-operator/crd/mlperf.dev_mlperfruns.yaml").read_text())
    assert chart["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
    assert chart == CRD


def test_check_names_what_is_stale_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert crd.main(["--check"]) == 1
    assert capsys.readouterr().err.count("is stale; run make generate") == 3
    assert list(tmp_path.iterdir()) == []
    assert crd.main([]) == 0
    assert crd.main(["--check"]) == 0
    (tmp_path / "docs/api.md").write_text("x")
    assert crd.main(["--check"]) == 1
    assert "api.md is stale" in capsys.readouterr().err


def test_the_reference_names_every_field_and_every_rule_once() -> None:
    text = (ROOT / "docs/api.md").read_text()
    for path, _ in EVERYTHING:
        if path not in ("spec", "status") and not path.endswith(("]", "}")):
            assert text.count(f"| `{path}` |") == 1, path
    for _, schema in nodes(SCHEMA, ""):
        for rule in schema.get("x-kubernetes-validations", ()):
            assert text.count(f"- {rule['message']}\n") == (0 if "is immutable" in rule["message"] else 1)
    assert "any change of spec but of `suspend`" in text


def test_the_reference_writes_defaults_as_yaml_does() -> None:
    text = (ROOT / "docs/api.md").read_text()
    assert "| `spec.testRun` | boolean | `false` |" in text
    assert "| `spec.suite` | string | `nvidia-v4.1` |" in text
    assert "| `spec.benchmarks` | list of object | required |" in text
    assert "| `spec.gpuConfig.overrides[].value` | integer or string | required |" in text
    assert "| `spec.nodeSelector` | map of strings |  |" in text
    assert "| `spec.gpu.count` | integer from 1 to 16 |  |" in text
    assert "``" not in text


def test_the_schema_and_the_model_have_the_same_fields() -> None:
    assert set(SPEC["properties"]) == {field.alias for field in MLPerfRunSpec.model_fields.values()}
