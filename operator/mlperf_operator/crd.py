"""The CustomResourceDefinition, made from the models: `python -m mlperf_operator.crd` writes it, `--check` compares.

A short converter of our own from pydantic's JSON schema to what Kubernetes calls a structural schema; it refuses what
it does not know, rather than dropping it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from mlperf_operator.api import v1alpha1
from mlperf_operator.api_doc import render_api_doc
from mlperf_operator.crd_rules import code_rules, expectation_rules, root_rules, spec_rules, volume_rules

CRD_NAME = f"{v1alpha1.PLURAL}.{v1alpha1.GROUP}"
FILE_NAME = f"{v1alpha1.GROUP}_{v1alpha1.PLURAL}.yaml"
_HEADER = "# Made from operator/mlperf_operator/api/v1alpha1.py by `make generate`; do not edit.\n"

_KEPT = frozenset(
    {
        "default",
        "description",
        "enum",
        "format",
        "items",
        "maxItems",
        "maxLength",
        "maxProperties",
        "maximum",
        "minItems",
        "minLength",
        "minimum",
        "pattern",
        "properties",
        "required",
        "type",
    }
)
_DROPPED = frozenset({"title", "propertyNames", "additionalProperties"})
"""Keys without a meaning, or without a place, in a structural schema."""


class SchemaError(Exception):
    """A model uses something that a structural schema cannot say."""


def structural(schema: Mapping[str, Any], definitions: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Return the structural form of a JSON schema of pydantic's.

    Raises:
        SchemaError: it holds a key or a union that has no such form.
    """
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return structural({**definitions[name], **_without(schema, "$ref")}, definitions, path)
    if "anyOf" in schema:
        chosen = _union(schema["anyOf"], definitions, path)
        return structural({**chosen, **_without(schema, "anyOf")}, definitions, path)
    result: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "properties":
            result[key] = {name: structural(field, definitions, f"{path}.{name}") for name, field in value.items()}
        elif key == "items" or (key == "additionalProperties" and value is not False):
            result[key] = structural(value, definitions, f"{path}[]")
        elif key == "patternProperties" and len(value) == 1:
            # A map whose keys have a pattern, which only the model checks: keys have no schema of their own here.
            [result["additionalProperties"]] = (structural(v, definitions, f"{path}[]") for v in value.values())
        elif key == "const":
            result["enum"] = [value]
        elif _is_kept(key, value):
            result[key] = _set_fields(value)
        elif key not in _DROPPED and not (key == "default" and value is None):
            raise SchemaError(f"{path}: {key} has no form in a structural schema")
    return result


def _set_fields(value: object) -> object:
    """Return a default without the fields that it leaves unset."""
    if isinstance(value, Mapping):
        return {name: inner for name, inner in value.items() if inner is not None}
    return value


def _is_kept(key: str, value: object) -> bool:
    return key.startswith("x-kubernetes-") or (key in _KEPT and not (key == "default" and value is None))


def _union(options: list[Mapping[str, Any]], definitions: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Return what stands for a union: T or None is an optional T, integer or string is Kubernetes' int-or-string."""
    some = [structural(option, definitions, path) for option in options if option.get("type") != "null"]
    if len(some) == 1:
        return some[0]
    if sorted(option.get("type", "") for option in some) == ["integer", "string"]:
        lengths = [option["maxLength"] for option in some if "maxLength" in option]
        return {"x-kubernetes-int-or-string": True, **({"maxLength": lengths[0]} if lengths else {})}
    raise SchemaError(
        f"{path}: a union of {[option.get('type') for option in some]} has no form in a structural schema"
    )


def _without(schema: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key not in keys}


def schema_of(model: type[v1alpha1.MLPerfRunSpec | v1alpha1.MLPerfRunStatus]) -> dict[str, Any]:
    """Return a model's structural schema."""
    schema = model.model_json_schema(by_alias=True)
    return structural(_without(schema, "$defs"), schema.get("$defs", {}), model.__name__)


def _column(name: str, path: str, kind: str = "string", *, wide: bool = False) -> dict[str, Any]:
    return {"name": name, "type": kind, "jsonPath": path, **({"priority": 1} if wide else {})}


def _condition_column(name: str, condition: v1alpha1.ConditionType, *, wide: bool = False) -> dict[str, Any]:
    return _column(name, f'.status.conditions[?(@.type=="{condition}")].status', wide=wide)


COLUMNS = [
    _column("System", ".spec.system"),
    _column("Benchmarks", ".status.benchmarks"),
    _column("Stage", ".status.stage"),
    _condition_column("Succeeded", v1alpha1.ConditionType.SUCCEEDED),
    _condition_column("Valid", v1alpha1.ConditionType.RESULTS_VALID),
    _column("Result", ".status.summary"),
    _column("Age", ".metadata.creationTimestamp", "date"),
    _condition_column("Accuracy", v1alpha1.ConditionType.ACCURACY_MET, wide=True),
    _column("Node", ".status.node", wide=True),
    _column("Driver", ".status.driver.version", wide=True),
]


def build_crd() -> dict[str, Any]:
    """Return the CustomResourceDefinition."""
    spec = schema_of(v1alpha1.MLPerfRunSpec)
    spec["x-kubernetes-validations"] = spec_rules(spec)
    for volume in ("scratch", "results"):
        spec["properties"][volume]["x-kubernetes-validations"] = volume_rules()
    spec["properties"]["code"]["x-kubernetes-validations"] = code_rules()
    spec["properties"]["expectations"]["items"]["x-kubernetes-validations"] = expectation_rules()
    schema = {
        "type": "object",
        "description": v1alpha1.MLPerfRun.__doc__,
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": schema_of(v1alpha1.MLPerfRunStatus),
        },
        "x-kubernetes-validations": root_rules(),
    }
    version = {
        "name": v1alpha1.VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": COLUMNS,
        "schema": {"openAPIV3Schema": schema},
    }
    names = {
        "kind": v1alpha1.KIND,
        "listKind": f"{v1alpha1.KIND}List",
        "plural": v1alpha1.PLURAL,
        "singular": v1alpha1.KIND.lower(),
        "shortNames": [v1alpha1.SHORT_NAME],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": CRD_NAME},
        "spec": {"group": v1alpha1.GROUP, "scope": "Namespaced", "names": names, "versions": [version]},
    }


class _Plain(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:  # noqa: ANN401, ARG002 - the base class's signature
        return True


def _yaml(crd: Mapping[str, Any]) -> str:
    return _HEADER + yaml.dump(dict(crd), Dumper=_Plain, sort_keys=False, width=120, allow_unicode=True)


def generated_files(root: Path) -> dict[Path, str]:
    """Return every generated file of the repository with the content that it should have."""
    crd = build_crd()
    # Helm would delete the CRD, and with it every run, when the chart is uninstalled.
    kept = {**crd, "metadata": {**crd["metadata"], "annotations": {"helm.sh/resource-policy": "keep"}}}
    return {
        root / "crds" / FILE_NAME: _yaml(crd),
        root / "charts" / "mlperf-operator" / "crd" / FILE_NAME: _yaml(kept),
        root / "docs" / "api.md": render_api_doc(crd),
    }


def main(argv: list[str]) -> int:
    """Write the generated files, or say which are stale."""
    files = generated_files(Path.cwd())
    if "--check" in argv:
        stale = [str(path) for path, text in files.items() if not path.is_file() or path.read_text() != text]
        for name in stale:
            sys.stderr.write(f"{name} is stale; run make generate\n")
        return 1 if stale else 0
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
