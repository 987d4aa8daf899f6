"""The chart's admission policies as they are rendered."""

from __future__ import annotations

import pytest
import yaml

from integration.chart import CHART, Object, helm, render
from mlperf_operator.suites import BUILT_IN

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

POLICY, BINDING = "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"
PRIVILEGED: Object = {"harnessParity": {"bench": {"volumes": ["scratch"]}}, "driver": {"enabled": True}}


def names(kind: str, values: Object) -> set[str]:
    found = {o["metadata"]["name"] for o in render(values) if o["kind"] == kind}
    return {name.removeprefix("mlperf-operator-") for name in found}


def test_a_policy_is_there_for_whatever_is_switched_on() -> None:
    always = {"runs", "children", "jobs", "objects", "origin", "pods"}
    assert names(POLICY, {}) == always
    assert names(POLICY, PRIVILEGED) == always | {"parity", "driver", "nodes"}
    for values in ({}, PRIVILEGED):
        assert names(BINDING, values) == names(POLICY, values)
        assert names(POLICY, {**values, "admissionPolicies": {"enabled": False}}) == set()


def test_what_cannot_be_judged_is_refused() -> None:
    objects = render(PRIVILEGED)
    assert {o["spec"]["failurePolicy"] for o in objects if o["kind"] == POLICY} == {"Fail"}
    bindings = [o["spec"] for o in objects if o["kind"] == BINDING]
    assert all(set(spec) <= {"policyName", "validationActions", "paramRef"} for spec in bindings)
    assert {spec["paramRef"]["parameterNotFoundAction"] for spec in bindings if "paramRef" in spec} == {"Deny"}
    assert {action for spec in bindings for action in spec["validationActions"]} == {"Deny"}


def test_the_policies_know_the_built_in_suites() -> None:
    text = (CHART / "templates/_policies.tpl").read_text()
    told = text.partition('define "mlperf-operator.builtInSuites" -}}\n')[2].partition("{{- end }}")[0]
    assert {suite["name"]: suite for suite in yaml.safe_load(told)} == {
        name: {
            "name": name,
            "image": suite.image,
            "usesGpu": suite.uses_gpu,
            "devicePaths": list(suite.device_paths),
        }
        for name, suite in BUILT_IN.items()
    }


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"admissionPolicies": {"enable": False}}, "additional properties 'enable' not allowed"),
        ({"admissionPolicies": {"enabled": "no"}}, "'/admissionPolicies/enabled': got string, want boolean"),
        (
            {"admissionPolicies": {"trustedGroups": "admins"}},
            "'/admissionPolicies/trustedGroups': got string, want array",
        ),
        ({"admissionPolicies": {"controllers": []}}, "'/admissionPolicies/controllers': minItems: got 0, want 1"),
        (
            {"admissionPolicies": {"controllers": ["alice"]}},
            "'/admissionPolicies/controllers/0': 'alice' does not match",
        ),
    ],
)
def test_a_wrong_value_is_refused_and_named(values: Object, said: str) -> None:
    done = helm("template", "x", str(CHART), "--kube-version", "1.35.0", values=values)
    assert done.returncode != 0
    assert said in done.stderr
