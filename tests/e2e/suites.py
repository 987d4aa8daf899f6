"""Suites that an administrator could add: the reference suite with one thing wrong each."""

from __future__ import annotations

from typing import Any

from mlperf_operator.suites import REFERENCE_CPU

ALLOWED_IMAGES = ["localhost/"]
HOST_PATH = "/var/tmp/mlperf-operator-e2e"


def _reference(name: str, **changes: Any) -> dict[str, Any]:
    # Without its image the suite would name one that is not on the node; suiteImages holds for the built-in name only.
    data = REFERENCE_CPU.model_dump(mode="json", by_alias=True, exclude_none=True)
    return data | {"name": name, "image": "localhost/mlperf-reference-harness:dev"} | changes


def _stages(**steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The reference suite's stages, some with other steps."""
    stages = _reference("any")["stages"]
    return [{**stage, "steps": steps.get(stage["name"].replace("-", "_"), stage["steps"])} for stage in stages]


def _without_postconditions() -> list[dict[str, Any]]:
    stages = _reference("any")["stages"]
    return [{**stage, "steps": [{**step, "postconditions": {}} for step in stage["steps"]]} for stage in stages]


NO_PYTHON = {"PYTHON": "true"}
"""With this in the environment every make target of the tree does nothing and ends with 0."""

BROKEN_STAGE = "broken-stage"
"""Its download-model asks make for a target that the tree does not have."""

LYING_DOWNLOAD = "lying-download"
"""Its downloads bring nothing and end with 0, as NVIDIA's do without a network."""

NO_RESULT = "no-result"
"""Nothing of it does anything, and all ends with 0, as NVIDIA's harness does on a system that it does not know."""

SMALL_SCRATCH = "small-scratch"
"""Its preflight asks for no free space."""

SUITES: list[dict[str, Any]] = [
    _reference(BROKEN_STAGE, stages=_stages(download_model=[{"target": "no_such_target"}])),
    _reference(LYING_DOWNLOAD, environment=NO_PYTHON),
    _reference(NO_RESULT, environment=NO_PYTHON, stages=_without_postconditions()),
    _reference(SMALL_SCRATCH, scratchMinFreeBytes=0),
]

OPERATOR_VALUES: dict[str, Any] = {
    "suites": SUITES,
    "allowedImages": ALLOWED_IMAGES,
    "allowedHostPaths": [HOST_PATH],
}
"""What these tests need of the chart."""
