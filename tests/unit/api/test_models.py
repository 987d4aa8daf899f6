"""What the models take, what they refuse, and what they fill in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel, ValidationError

from mlperf_operator.api import v1alpha1
from mlperf_operator.api.v1alpha1 import MLPerfRun, MLPerfRunSpec, MLPerfRunStatus, to_wire

MINIMAL: dict[str, Any] = {"system": "A100_SXM4_40GBx8", "benchmarks": [{"name": "bert"}]}


def spec(**fields: Any) -> MLPerfRunSpec:
    return MLPerfRunSpec.model_validate({**MINIMAL, **fields})


def _models(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield model
    for field in model.model_fields.values():
        for kind in _parts(field.annotation):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from _models(kind)


def _parts(annotation: Any) -> Iterator[Any]:
    yield annotation
    if get_origin(annotation) is not None:
        for argument in get_args(annotation):
            yield from _parts(argument)


SPEC_MODELS = sorted(set(_models(MLPerfRunSpec)), key=lambda model: model.__name__)
ALL_MODELS = sorted({*SPEC_MODELS, *_models(MLPerfRunStatus)}, key=lambda model: model.__name__)


@pytest.mark.parametrize("model", ALL_MODELS)
def test_every_model_is_frozen_and_every_field_explained(model: type[BaseModel]) -> None:
    assert model.model_config.get("frozen") is True
    assert model.__doc__
    for name, field in model.model_fields.items():
        assert field.description, f"{model.__name__}.{name}"
        assert field.description.endswith("."), f"{model.__name__}.{name}"


@pytest.mark.parametrize("model", SPEC_MODELS)
def test_a_misspelt_field_of_a_spec_is_refused(model: type[BaseModel]) -> None:
    with pytest.raises(ValidationError) as caught:
        model.model_validate({"mispelt": 1})
    assert "mispelt" in {error["loc"][0] for error in caught.value.errors()}


@pytest.mark.parametrize("model", SPEC_MODELS)
def test_a_spec_has_no_floats(model: type[BaseModel]) -> None:
    for name, field in model.model_fields.items():
        assert float not in set(_parts(field.annotation)), f"{model.__name__}.{name}"


def test_a_status_that_a_newer_operator_wrote_can_be_read() -> None:
    status = MLPerfRunStatus.model_validate({"summary": "s", "invented": {"later": 1}})
    assert to_wire(status) == {"summary": "s", "conditions": [], "stages": [], "results": [], "audits": []}


def test_what_the_user_leaves_out_is_filled_in() -> None:
    assert to_wire(spec()) == {
        "suite": "nvidia-v4.1",
        "system": "A100_SXM4_40GBx8",
        "benchmarks": [{"name": "bert"}],
        "configVersion": "Default",
        "testModes": ["PerformanceOnly", "AccuracyOnly"],
        "testRun": False,
        "driver": {"policy": "Auto", "version": "550", "fabricManager": "Auto"},
        "gpu": {"access": "DevicePlugin"},
        "environment": {"strategy": "Snapshot", "offline": False},
        "securityProfile": "Minimal",
        "powerSetting": "MaxP",
        "audits": [],
        "baseline": {"policy": "Compare", "tolerancePercent": 10},
        "imagePullSecrets": [],
        "nodeSelector": {},
        "tolerations": [],
        "resources": {},
        "suspend": False,
        "startTimeoutSeconds": 1800,
        "stageTimeoutSeconds": 36000,
        "runTimeoutSeconds": 172800,
        "backoffLimit": 0,
        "expectations": [],
    }


def test_two_runs_do_not_share_a_default() -> None:
    spec().test_modes.clear()
    assert len(spec().test_modes) == 2


TOO_MUCH: list[tuple[str, dict[str, Any], str]] = [
    ("no benchmarks", {"benchmarks": []}, "benchmarks"),
    ("nine benchmarks", {"benchmarks": [{"name": f"b{i}"} for i in range(9)]}, "benchmarks"),
    ("no scenarios", {"benchmarks": [{"name": "bert", "scenarios": []}]}, "scenarios"),
    ("an unknown scenario", {"benchmarks": [{"name": "bert", "scenarios": ["MultiStream"]}]}, "scenarios"),
    ("a shell line for a benchmark", {"benchmarks": [{"name": "bert;id"}]}, "name"),
    ("a path for a system", {"system": "../x"}, "system"),
    ("no test modes", {"testModes": []}, "testModes"),
    ("an unknown config version", {"configVersion": "Fast"}, "configVersion"),
    ("17 GPUs", {"gpu": {"count": 17}}, "count"),
    ("no GPU", {"gpu": {"count": 0}}, "count"),
    ("a driver that is no version", {"driver": {"version": "latest"}}, "version"),
    ("an image with a blank", {"image": "a b"}, "image"),
    ("code of two places", {"code": {"claimName": "a", "image": "b"}}, "code"),
    ("code of no place", {"code": {"path": "/a"}}, "code"),
    ("a code path with a blank", {"code": {"claimName": "a", "path": "/a b"}}, "path"),
    ("an audit that there is not", {"audits": ["TEST02"]}, "audits"),
    ("a profile that there is not", {"securityProfile": "Privileged"}, "securityProfile"),
    ("an endpoint with a path", {"upload": {"s3": {"endpoint": "https://a/b"}}}, "endpoint"),
    ("a tolerance beyond everything", {"baseline": {"tolerancePercent": 101}}, "tolerancePercent"),
    ("a relative host path", {"scratch": {"hostPath": {"path": "data"}}}, "path"),
    ("a size without a number", {"scratch": {"claimTemplate": {"size": "Ti"}}}, "size"),
    ("a size in a unit that Kubernetes lacks", {"scratch": {"claimTemplate": {"size": "1KB"}}}, "size"),
    ("a size with a capital K", {"scratch": {"claimTemplate": {"size": "1K"}}}, "size"),
    ("a size in ki", {"resources": {"limits": {"memory": "1ki"}}}, "memory"),
    ("a label key that no node has", {"nodeSelector": {"a b": "c"}}, "nodeSelector"),
    ("a label value that no node has", {"nodeSelector": {"a": "b c"}}, "nodeSelector"),
    ("33 labels", {"nodeSelector": {f"l{i}": "" for i in range(33)}}, "nodeSelector"),
    ("a start timeout of 1 s", {"startTimeoutSeconds": 1}, "startTimeoutSeconds"),
    ("a run timeout of a year", {"runTimeoutSeconds": 31_536_000}, "runTimeoutSeconds"),
    ("a negative time to live", {"ttlSecondsAfterFinished": -1}, "ttlSecondsAfterFinished"),
    ("a time to live beyond the calendar", {"ttlSecondsAfterFinished": 10**12}, "ttlSecondsAfterFinished"),
    ("eleven retries", {"backoffLimit": 11}, "backoffLimit"),
    ("a float for an expectation", {"expectations": [{"min": 0.5}]}, "min"),
    ("an expectation in scientific notation", {"expectations": [{"min": "1e3"}]}, "min"),
    ("a field that is code", {"gpuConfig": {"overrides": [{"field": "x = 1"}]}}, "field"),
    ("an override that is a float", {"gpuConfig": {"overrides": [{"value": 0.5}]}}, "value"),
]


@pytest.mark.parametrize(("case", "fields", "where"), TOO_MUCH, ids=[case[0] for case in TOO_MUCH])
def test_what_cannot_be_is_refused_where_it_stands(case: str, fields: dict[str, Any], where: str) -> None:
    with pytest.raises(ValidationError) as caught:
        spec(**fields)
    assert any(where in error["loc"] for error in caught.value.errors()), case


@pytest.mark.parametrize("size", ["1", "500m", "1.5", "64k", "10M", "1Gi", "1Ti", "2Ki", "1E"])
def test_quantities_as_kubernetes_writes_them_are_taken(size: str) -> None:
    assert spec(resources={"limits": {"memory": size}}).resources.limits == v1alpha1.ResourceAmounts(memory=size)


@pytest.mark.parametrize(
    "volumes", [{}, {"claimName": "a", "emptyDir": {}}, {"hostPath": {"path": "/a"}, "claimName": "b"}]
)
def test_a_volume_is_of_exactly_one_kind(volumes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="exactly one of claimName, claimTemplate, hostPath, emptyDir"):
        spec(scratch=volumes)


def test_an_override_keeps_the_type_that_was_written() -> None:
    values: list[int | str] = [5, "5", "0.5", "true"]
    override = {"benchmark": "bert", "scenario": "Server", "field": "soft_drop"}
    made = spec(gpuConfig={"overrides": [{**override, "value": value} for value in values]})
    assert made.gpu_config is not None
    assert [o.value for o in made.gpu_config.overrides] == values


def test_the_wire_form_reads_back_as_the_same_run() -> None:
    run = MLPerfRun.model_validate(
        {
            "metadata": {"name": "a", "namespace": "b", "uid": "c"},
            "spec": {**MINIMAL, "scratch": {"claimTemplate": {"size": "1Ti"}}, "tolerations": [{"operator": "Exists"}]},
        }
    )
    assert MLPerfRun.model_validate(to_wire(run)) == run


def test_reasons_and_states_are_camel_case() -> None:
    for kind in (v1alpha1.ConditionType, v1alpha1.StageState, v1alpha1.DriverPolicy, v1alpha1.GpuAccess):
        for value in kind:
            assert re.fullmatch(r"([A-Z][a-zA-Z]*)+", value)
