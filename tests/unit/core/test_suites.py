"""The built-in suites: complete, and consistent with what stands on them."""

from __future__ import annotations

import re

import pytest

from mlperf_operator.api.v1alpha1 import ConfigVersion, Scenario
from mlperf_operator.suites import BUILT_IN, STAGE_ORDER, MakeStep, Suite

NVIDIA = BUILT_IN["nvidia-v4.1"]
SUITES = pytest.mark.parametrize("suite", BUILT_IN.values(), ids=list(BUILT_IN))


def steps(suite: Suite) -> dict[str, MakeStep]:
    return {step.target: step for stage in suite.stages for step in stage.steps}


@SUITES
def test_every_config_version_is_run_or_refused_with_a_reason(suite: Suite) -> None:
    assert {*suite.config_versions, *suite.refused_config_versions} == set(ConfigVersion)
    assert not set(suite.config_versions) & set(suite.refused_config_versions)
    for benchmark in suite.benchmarks.values():
        assert set(benchmark.variants) == set(suite.config_versions)


@SUITES
def test_every_stage_is_one_of_nvidias_make_targets(suite: Suite) -> None:
    assert [stage.name for stage in suite.stages] == list(STAGE_ORDER)
    assert list(steps(suite)) == [
        *("prebuild", "link_dirs", "download_data", "download_model", "preprocess_data", "build"),
    ]


@SUITES
def test_what_is_downloaded_or_made_from_it_is_looked_at(suite: Suite) -> None:
    for target in ("download_data", "download_model", "preprocess_data"):
        step = steps(suite)[target]
        assert step.per_benchmark
        assert step.scope == "Shared"
        assert set(step.postconditions) == set(suite.benchmarks)
    assert steps(suite)["download_data"].retries > 0
    assert steps(suite)["build"].publish_tree


@SUITES
def test_no_benchmarks_files_are_anothers(suite: Suite) -> None:
    # A file at fault is removed before the retry.
    for step in steps(suite).values():
        for benchmark, conditions in step.postconditions.items():
            others = {c.glob for b, cs in step.postconditions.items() if b != benchmark for c in cs}
            assert not {condition.glob for condition in conditions} & others
            assert all("**" not in condition.glob for condition in conditions)


def test_nvidias_scenarios_are_those_of_v4_1() -> None:
    assert {name: benchmark.scenarios for name, benchmark in NVIDIA.benchmarks.items()} == {
        "bert": (Scenario.OFFLINE, Scenario.SERVER, Scenario.SINGLE_STREAM),
        "3d-unet": (Scenario.OFFLINE, Scenario.SINGLE_STREAM),
    }
    assert NVIDIA.variant("bert", ConfigVersion.HIGH_ACCURACY) == "bert-99.9"
    with pytest.raises(KeyError):
        NVIDIA.variant("bert", ConfigVersion.TRITON)


def test_nvidias_code_is_a_pinned_commit_since_the_image_holds_none() -> None:
    assert NVIDIA.code.git_url == "https://github.com/mlcommons/inference_results_v4.1"
    assert re.fullmatch(r"[0-9a-f]{40}", NVIDIA.code.git_commit or "")
    assert NVIDIA.code.sub_path == "closed/NVIDIA"


def test_nvidias_harness_gets_no_variable_that_breaks_it() -> None:
    broken = {"BUILD_DIR", "DATA_DIR", "MODEL_DIR", "PREPROCESSED_DATA_DIR"}
    assert not broken & set(NVIDIA.environment)
    # `ARCH := $(shell uname -p)`: a variable of the environment would be overwritten.
    assert "ARCH=x86_64" in NVIDIA.make_arguments
    for system in NVIDIA.systems.values():
        assert set(system.make_arguments) == {"SM=80", "NVSI_ARCH=Ampere"}


def test_a_systems_name_says_how_many_gpus_it_has() -> None:
    for name, system in NVIDIA.systems.items():
        assert name.endswith(f"x{system.gpu_count}")
