"""JSON schemas of Kubernetes' kinds, from the OpenAPI document of Kubernetes' own source and from CRDs.

They are strict: a field that is not in the schema is an error, as the API server would drop it in silence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Schema = dict[str, Any]

DRAFT = "http://json-schema.org/draft-07/schema#"
DEFINITIONS = "_definitions.json"
_PREFIX = "#/definitions/"
_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"

# What the document calls a string and the API server takes in other forms too.
_LENIENT: dict[str, Schema] = {
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": {"type": ["string", "integer"]},
    "io.k8s.apimachinery.pkg.api.resource.Quantity": {"type": ["string", "number"]},
    "io.k8s.apimachinery.pkg.apis.meta.v1.Time": {"type": ["string", "null"], "format": "date-time"},
}


def file_name(group: str, version: str, kind: str) -> str:
    """Return the file of a kind's schema; the core group, which has no name, has the folder of its version."""
    return f"{group or version}/{kind.lower()}_{version}.json"


LOCATION = "{{.Group}}/{{.ResourceKind}}_{{.ResourceAPIVersion}}.json"
"""The same as a template of kubeconform's."""


def of_kubernetes(swagger: Mapping[str, Any]) -> dict[str, Schema]:
    """Return the schema files of Kubernetes' own kinds: one with all definitions, one a kind that points into it."""
    definitions = {name: _LENIENT.get(name) or closed(schema) for name, schema in swagger["definitions"].items()}
    files: dict[str, Schema] = {DEFINITIONS: {"$schema": DRAFT, "definitions": definitions}}
    for name, schema in swagger["definitions"].items():
        for kind in schema.get("x-kubernetes-group-version-kind", []):
            files[file_name(kind["group"], kind["version"], kind["kind"])] = {
                "$schema": DRAFT,
                "$ref": f"../{DEFINITIONS}{_PREFIX}{name}",
            }
    return files


def of_crd(crd: Mapping[str, Any]) -> dict[str, Schema]:
    """Return the schema files of a CustomResourceDefinition, one a version."""
    spec = crd["spec"]
    files = {}
    for version in spec["versions"]:
        schema = closed(version["schema"]["openAPIV3Schema"])
        properties = {
            **schema["properties"],
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"$ref": f"../{DEFINITIONS}{_PREFIX}{_META}"},
        }
        name = file_name(spec["group"], version["name"], spec["names"]["kind"])
        files[name] = {"$schema": DRAFT, **schema, "properties": properties}
    return files


def closed(schema: Mapping[str, Any]) -> Schema:
    """Return a schema that takes no other fields than those that it names, at every depth."""
    result: Schema = dict(_children(schema))
    open_ended = "additionalProperties" in schema or schema.get("x-kubernetes-preserve-unknown-fields")
    if "properties" in schema and not open_ended:
        result["additionalProperties"] = False
    if schema.get("nullable") and "type" in schema:
        result["type"] = [schema["type"], "null"]
    return result


def _children(schema: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    # What stands below allOf, anyOf and not only adds to a structural schema: it names few of its fields.
    for key, value in schema.items():
        match key, value:
            case "properties", dict():
                yield key, {name: closed(child) for name, child in value.items()}
            case (("items" | "additionalProperties"), dict()):
                yield key, closed(value)
            case _:
                yield key, value
