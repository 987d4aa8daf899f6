"""docs/api.md, made from the CRD: every field with type, default and meaning, and the rules in words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

_INTRO = """# API reference: mlperf.dev/v1alpha1

Made from `operator/mlperf_operator/api/v1alpha1.py` by `make generate`; do not edit. `kubectl explain mlr.spec` shows
the same.

An `MLPerfRun` is namespaced; its short name is `mlr`. Of a spec that was created, only `suspend` and
`ttlSecondsAfterFinished` can be changed.
"""


def render_api_doc(crd: Mapping[str, Any]) -> str:
    """Return the reference of a CustomResourceDefinition with one version."""
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    parts = [_INTRO]
    for name in ("spec", "status"):
        parts.append(f"\n## {name}\n\n{schema['properties'][name].get('description', '')}\n")
        parts.append(_table(schema["properties"][name], name))
    parts.append("\n## Rules\n\nThe API server refuses, at apply:\n\n")
    parts += [f"- {text}\n" for text in dict.fromkeys(_messages(schema))]
    return "".join(parts)


def _table(schema: Mapping[str, Any], path: str) -> str:
    rows = ["\n| field | type | default | meaning |\n|---|---|---|---|\n"]
    for name, kind, default, meaning in _rows(schema, path):
        rows.append(f"| `{name}` | {kind} | {default} | {meaning} |\n")
    return "".join(rows)


def _rows(schema: Mapping[str, Any], path: str) -> Iterator[tuple[str, str, str, str]]:
    required = set(schema.get("required", ()))
    for name, field in schema.get("properties", {}).items():
        here = f"{path}.{name}"
        default = "required" if name in required else _default(field)
        yield here, _type(field), default, _cell(field.get("description", ""))
        inner = field.get("items", field)
        yield from _rows(inner, f"{here}[]" if "items" in field else here)


def _default(field: Mapping[str, Any]) -> str:
    value = field.get("default")
    if value in (None, ""):
        return ""
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _type(field: Mapping[str, Any]) -> str:
    if field.get("x-kubernetes-int-or-string"):
        return "integer or string"
    if "items" in field:
        return f"list of {_type(field['items'])}"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if "additionalProperties" in field:
        return "map of strings"
    bounds = [f"{word} {field[key]}" for key, word in (("minimum", "from"), ("maximum", "to")) if key in field]
    return " ".join([field.get("format", field.get("type", "")), *bounds])


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _messages(schema: Mapping[str, Any]) -> Iterator[str]:
    immutable = False
    for rule in schema.get("x-kubernetes-validations", ()):
        if "is immutable" not in rule["message"]:
            yield rule["message"]
        immutable = immutable or "is immutable" in rule["message"]
    if immutable:
        yield "any change of spec but of `suspend` and `ttlSecondsAfterFinished`"
    for field in schema.get("properties", {}).values():
        yield from _messages(field)
    if "items" in schema:
        yield from _messages(schema["items"])
