"""Every example is a run that is accepted where its administrator allows what its comments say, and is rendered."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from mlperf_operator.acceptance import refusal
from mlperf_operator.api.v1alpha1 import MLPerfRun
from mlperf_operator.grants import ParityGrant
from mlperf_operator.limits import Limits
from mlperf_operator.plan import Inputs, desired_objects
from mlperf_operator.resources.overrides import override_files
from mlperf_operator.suites import BUILT_IN
from unit.core.builders import IMAGES, UID
from unit.nodes.builders import SETTINGS

FOLDER = Path(__file__).parents[2] / "examples"
FILES = sorted(set(FOLDER.glob("*.yaml")) - set(FOLDER.glob("*-values.yaml")))
ALLOWED = Limits(
    suites=BUILT_IN,
    images=("registry.internal/mlperf/",),
    drivers=SETTINGS,
    harness_parity={"bench": ParityGrant(volumes=("mlperf-scratch",), images=("registry.internal/mlperf/",))},
    upload_endpoints=("https://s3.example.com",),
)


@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_an_example_is_accepted_and_rendered(file: Path) -> None:
    for document in yaml.safe_load_all(file.read_text()):
        document["metadata"] |= {"namespace": "bench", "uid": UID}
        run = MLPerfRun.model_validate(document)
        assert refusal(run, ALLOWED) is None
        suite = BUILT_IN[run.spec.suite]
        inputs = Inputs(suite=suite, images=IMAGES, agent_files={}, override_files=override_files(run, suite))
        assert desired_objects(run, inputs)[-1]["kind"] == "Job"


def test_what_the_administrator_does_not_allow_is_refused_in_the_examples_too() -> None:
    refused = set()
    for file in FILES:
        document = yaml.safe_load(file.read_text())
        document["metadata"] |= {"namespace": "bench", "uid": UID}
        if refusal(MLPerfRun.model_validate(document), Limits(suites=BUILT_IN)) is not None:
            refused.add(file.stem)
    assert refused == {"a100-bert-ensure", "a100-offline", "a100-harness-parity", "a100-upload"}
