"""No value that a user may set reaches a shell, a path or a name as anything but itself: every string of the spec."""

from __future__ import annotations

import ast
import copy
import json
import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mlperf_operator.acceptance import refusal
from mlperf_operator.api.v1alpha1 import MLPerfRun, MLPerfRunSpec
from mlperf_operator.gpu_config_schema import ConfigError
from mlperf_operator.limits import Limits
from mlperf_operator.plan import Inputs, desired_objects
from mlperf_operator.resources.job import Bounds
from mlperf_operator.resources.overrides import override_files
from mlperf_operator.suites import BUILT_IN
from unit.core.builders import IMAGES, UID

Spec = dict[str, Any]
Place = tuple[str | int, ...]

A100: Spec = {
    "suite": "nvidia-v4.1",
    "system": "A100_SXM4_40GBx8",
    "benchmarks": [{"name": "bert", "scenarios": ["Offline", "Server"]}, {"name": "3d-unet"}],
    "configVersion": "Default",
    "testModes": ["PerformanceOnly", "AccuracyOnly"],
    "audits": ["TEST01", "TEST05"],
    "gpuConfig": {
        "configMapRef": {"name": "own"},
        "overrides": [
            {"benchmark": "bert", "scenario": "Server", "field": "server_target_qps", "value": "11000.5"},
            {"benchmark": "bert", "scenario": "Offline", "field": "precision", "value": "fp16"},
        ],
    },
    "driver": {"policy": "Verify", "version": "550.54.14", "fabricManager": "Auto"},
    "code": {"claimName": "trees", "path": "/v4.1"},
    "image": "registry.example/mlperf:1",
    "imagePullSecrets": [{"name": "registry"}],
    "scratch": {"claimName": "scratch"},
    "results": {"claimTemplate": {"size": "10Gi", "storageClassName": "fast", "accessMode": "ReadWriteOnce"}},
    "upload": {
        "s3": {
            "endpoint": "https://s3.example",
            "bucket": "results",
            "prefix": "a100/x",
            "region": "eu-1",
            "credentialsSecret": {"name": "keys"},
        }
    },
    "nodeSelector": {"example.com/pool": "nd96"},
    "tolerations": [{"key": "sku", "operator": "Equal", "value": "gpu", "effect": "NoSchedule"}],
    "resources": {"requests": {"cpu": "64", "memory": "512Gi"}, "limits": {"cpu": "96", "memory": "1Ti"}},
    "queueName": "a100",
    "expectations": [
        {"benchmark": "bert", "scenario": "Offline", "metric": "result_samples_per_second", "min": "1", "max": "2.5"}
    ],
}
OTHER: Spec = {
    **A100,
    "code": {"image": "registry.example/code:1", "path": "/"},
    "scratch": {"hostPath": {"path": "/mnt/scratch/a"}},
    "results": {"emptyDir": {"sizeLimit": "1Gi", "medium": "Disk"}},
    "environment": {"strategy": "Image", "offline": True},
}
TEMPLATE: Spec = {
    **A100,
    "scratch": {"claimTemplate": {"size": "1Ti", "storageClassName": "slow"}},
    "results": {"claimName": "results"},
}
REFERENCE: Spec = {
    "suite": "reference-cpu",
    "system": "CPU_REFERENCE",
    "benchmarks": [{"name": "digits"}],
    "scratch": {"emptyDir": {"sizeLimit": "2Gi"}},
    "results": {"hostPath": {"path": "/mnt/scratch/results"}},
}
SPECS = [A100, OTHER, TEMPLATE, REFERENCE]

LIMITS = Limits(
    suites=BUILT_IN,
    host_paths=("/mnt/scratch",),
    images=("registry.example",),
    code_claims=("bench/trees",),
    upload_endpoints=("https://s3.example",),
)

HOSTILE = [
    *(
        "; touch /pwned",
        "$(id)",
        "`id`",
        "a b",
        "a\nb",
        "a\tb",
        "|tee x",
        "&& id",
        "> /x",
        "< /x",
        "${IFS}id",
        "$$",
        "$(shell id)",
    ),
    *(
        "../..",
        "/../etc",
        "/a/../../etc",
        "..",
        ".",
        "-rf",
        "--test_mode=SubmissionRun",
        "a=b",
        "a,b",
        "*",
        "?",
        "[a]",
        "~",
    ),
    *(
        "'",
        '"',
        "\\",
        "#",
        "!",
        "%s",
        "{}",
        "{{ 7*7 }}",
        "{% raw %}",
        "a\x00b",
        "\r\n",
        "é",
        "\u202e",
        "\uff21\uff22",
        "x" * 300,
    ),
    *(
        "__import__('os')",
        "1); import os",
        "true\nMLPERF=1",
        "bert Server",
        "bert;id",
        "bert\n",
        "/\n",
        "550\n",
        "550;id",
        "1Gi\n",
    ),
    # What the patterns let pass, at their edges.
    *("a-b.c", "a..b", "A_b.-c", "/-x/./y", "//", "0", "-1", "1.5", "a--b", "550.1.2", "1Ei", "x.y/z_w", "x:5000/y@z"),
]
ALPHABET = st.sampled_from("abzAZ09-_./:@=,;$`'\"\\ \t\n|&<>(){}[]*?!#%~^+é\x00")
TEXTS = st.one_of(st.sampled_from(HOSTILE), st.text(ALPHABET, max_size=24))


def places(value: Any, at: Place = ()) -> Iterator[Place]:
    """Yield where strings stand in a spec; a map's key stands behind its value, as `@key`."""
    if isinstance(value, str):
        yield at
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, (*at, key))
            if at and at[-1] == "nodeSelector":
                yield (*at, key, "@key")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from places(inner, (*at, index))


def put(spec: Spec, place: Place, text: str) -> Spec:
    """Return a spec with another string at a place."""
    changed = copy.deepcopy(spec)
    *way, last = place if place[-1] != "@key" else place[:-1]
    holder: Any = changed
    for step in way:
        holder = holder[step]
    if place[-1] == "@key":
        holder[text] = holder.pop(last)
    else:
        holder[last] = text
    return changed


def kinds(schema: dict[str, Any], definitions: dict[str, Any], at: str = "") -> Iterator[str]:
    """Yield where the API takes free strings."""
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    for option in schema.get("anyOf", ()):
        yield from kinds(option, definitions, at)
    for name, inner in schema.get("properties", {}).items():
        yield from kinds(inner, definitions, f"{at}.{name}")
    if "items" in schema:
        yield from kinds(schema["items"], definitions, f"{at}[]")
    for inner in schema.get("patternProperties", {}).values():
        yield f"{at}.@key"
        yield from kinds(inner, definitions, f"{at}.*")
    if schema.get("type") == "string" and not {"enum", "const"} & set(schema):
        yield at


def kind(place: Place) -> str:
    """Return the kind of a place, as `kinds` names it."""
    if "nodeSelector" in place:
        return ".nodeSelector.@key" if place[-1] == "@key" else ".nodeSelector.*"
    return "".join("[]" if isinstance(step, int) else f".{step}" for step in place)


def test_every_string_of_the_api_has_a_place_in_these_specs() -> None:
    schema = MLPerfRunSpec.model_json_schema(by_alias=True)
    free = set(kinds(schema, schema["$defs"]))
    assert free <= {kind(place) for spec in SPECS for place in places(spec)}
    assert {".gpuConfig.overrides[].value", ".code.path", ".nodeSelector.@key", ".upload.s3.prefix"} <= free


def rendered(spec: Spec) -> list[dict[str, Any]] | None:
    """Return the objects of a run, or None when it is refused."""
    try:
        run = MLPerfRun.model_validate({"metadata": {"name": "demo", "namespace": "bench", "uid": UID}, "spec": spec})
    except ValidationError:
        return None
    if refusal(run, LIMITS) is not None:
        return None
    suite = BUILT_IN[run.spec.suite]
    try:
        files = override_files(run, suite)
    except ConfigError:
        return None
    inputs = Inputs(suite=suite, images=IMAGES, agent_files={}, override_files=files, bounds=Bounds(LIMITS.host_paths))
    return desired_objects(run, inputs)


@pytest.mark.parametrize("spec", SPECS, ids=["a100", "offline", "template", "reference"])
def test_the_specs_themselves_are_accepted_and_sound(spec: Spec) -> None:
    objects = rendered(spec)
    assert objects is not None
    assert_sound(objects)


@settings(max_examples=1500, deadline=None)
@given(data=st.data())
def test_whatever_stands_in_a_string_reaches_neither_shell_nor_path_nor_name(data: st.DataObject) -> None:
    spec = data.draw(st.sampled_from(SPECS))
    for place in data.draw(
        st.lists(st.sampled_from(sorted(places(spec), key=str)), min_size=1, max_size=3, unique=True)
    ):
        if place[-1] != "@key":
            spec = put(spec, place, data.draw(TEXTS))
    objects = rendered(spec)
    if objects is not None:
        assert_sound(objects)


@pytest.mark.parametrize("text", HOSTILE, ids=[repr(text)[:24] for text in HOSTILE])
def test_each_hostile_string_in_each_place(text: str) -> None:
    for spec in SPECS:
        for place in places(spec):
            objects = rendered(put(spec, place, text))
            if objects is not None:
                assert_sound(objects)


WORD = re.compile(r"[A-Za-z0-9_.=,/-]+\Z")
MAKE_ARGUMENT = re.compile(r"(BENCHMARKS|ARCH|SM|NVSI_ARCH)=[A-Za-z0-9_.-]+\Z")
TARGET = re.compile(r"[a-z][a-z0-9_]*\Z")
VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*\Z")
OBJECT_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?\Z")
LABEL_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?\Z")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?\Z")
DATA_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}\Z")


def assert_sound(objects: list[dict[str, Any]]) -> None:
    """Hold everything that a kubelet, make or Python will read against what it may be."""
    for body in objects:
        assert OBJECT_NAME.match(body["metadata"]["name"])
        assert_labels(body["metadata"].get("labels", {}))
        for key, text in body.get("data", {}).items():
            assert DATA_KEY.match(key), key
            if key == "plan.json":
                assert_plan(json.loads(text))
            elif key.endswith(".py"):
                assert_literals(text)
        if body["kind"] == "Job":
            assert_pod(body["spec"]["template"])


def assert_labels(labels: dict[str, str]) -> None:
    for key, value in labels.items():
        assert LABEL_KEY.match(key), key
        assert LABEL_VALUE.match(value), value


def assert_pod(template: dict[str, Any]) -> None:
    pod = template["spec"]
    assert_labels({**template["metadata"]["labels"], **pod.get("nodeSelector", {})})
    for container in [*pod["initContainers"], *pod["containers"]]:
        command = container.get("command", container.get("args"))
        assert command in (
            ["python3", "/agent/stage.py", container["name"]],
            ["python3", "-m", "mlperf_operator.agent.collect"],
        )
        for entry in container["env"]:
            assert VARIABLE.match(entry["name"]), entry
            assert WORD.match(entry.get("value") or "none"), entry
        for mount in container["volumeMounts"]:
            assert_path(mount["mountPath"])
            assert_path(f"/{mount.get('subPath', '')}")
    for volume in pod["volumes"]:
        for item in volume.get("configMap", {}).get("items", ()):
            assert DATA_KEY.match(item["key"])
            assert_path(f"/{item['path']}")
        if "hostPath" in volume:
            assert_path(volume["hostPath"]["path"])
            assert PurePosixPath(volume["hostPath"]["path"]).is_relative_to("/mnt/scratch")
        if "persistentVolumeClaim" in volume:
            assert OBJECT_NAME.match(volume["persistentVolumeClaim"]["claimName"])


def assert_path(path: str) -> None:
    assert WORD.match(path), path
    assert path.startswith("/")
    assert ".." not in path.split("/")


def assert_plan(plan: dict[str, Any]) -> None:
    for stage in plan["stages"].values():
        assert_variables(stage.get("env", {}))
        for step in stage["steps"]:
            assert_variables(step.get("env", {}))
            assert_argv(step.get("argv", []))
            for pattern in (*step.get("removeOnFailure", ()), *step.get("engineGlobs", ()), *step.get("inputs", ())):
                assert_path(pattern.replace("*", "x"))
            if step["action"] == "copyTree" and step["source"]["type"] == "Path":
                assert_path(step["source"]["path"])
    for result in (*plan["expected"], *plan["expectedAudits"]):
        assert_path(result["logDir"])
    for name, value in plan.get("upload", {}).items():
        # An address, a bucket or a folder in it: no shell reads it, and no header has it in two lines.
        assert re.fullmatch(r"[-A-Za-z0-9_./:]*", value), name


def assert_variables(variables: dict[str, str]) -> None:
    for name, value in variables.items():
        assert VARIABLE.match(name), name
        assert WORD.match(value), value


def assert_argv(argv: list[str]) -> None:
    """A command is a list that no shell reads, but for RUN_ARGS and BENCHMARKS, which recipes leave unquoted."""
    assert isinstance(argv, list)
    if argv[:1] != ["make"]:
        assert argv in ([], ["rm", "-rf", "/work/build/submission-staging"])
        return
    assert TARGET.match(argv[1])
    for argument in argv[2:]:
        if argument.startswith("RUN_ARGS="):
            words = argument.removeprefix("RUN_ARGS=").split(" ")
            assert all(word.startswith("--") and WORD.match(word) for word in words), argument
        else:
            assert MAKE_ARGUMENT.match(argument), argument


def assert_literals(text: str) -> None:
    """Of what a custom.py says, values are literals: a string of a user's stays a string."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef):
            for statement in node.body:
                assert isinstance(statement, ast.Assign), ast.dump(statement)
                if not isinstance(statement.value, ast.Attribute):
                    ast.literal_eval(statement.value)
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) in ("import_module", "ConfigRegistry.register"), ast.unparse(node)
