"""The built-in suites: complete, and consistent with what stands on them."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

import pytest

from mlperf_operator.api.v1alpha1 import AuditTest, ConfigVersion, Scenario
from mlperf_operator.suites import BUILT_IN, STAGE_ORDER, MakeStep, Postcondition, Suite

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


def test_a_list_of_cases_is_itself_looked_at() -> None:
    # Without that, an empty list would be no case and no objection.
    wanted = [c for step in steps(NVIDIA).values() for own in step.postconditions.values() for c in own]
    assert {c.cases_from for c in wanted if c.cases_from} == {c.glob for c in wanted if c.json_length}


def test_cases_go_with_a_place_for_their_names() -> None:
    with pytest.raises(ValueError, match="casesFrom goes with a glob that has"):
        Postcondition(glob="/scratch/*.npy", cases_from="/scratch/cases.json")
    with pytest.raises(ValueError, match="casesFrom goes with a glob that has"):
        Postcondition(glob="/scratch/{}.npy")


def test_what_bert_and_3d_unet_need_of_the_build_is_looked_at() -> None:
    built = {PurePosixPath(condition.glob).name for condition in steps(NVIDIA)["build"].postconditions["*"]}
    assert {
        "libmlperf_loadgen.a",
        "harness_bert",
        "harness_3dunet",
        "libpixelshuffle3dplugin.so",
        "libconv3D1X1X1K4Plugin.so",
        "libconv3D3X3X3C1K32Plugin.so",
        "accuracy-squad.py",
        "tokenization.py",
        "run_verification.py",
    } <= built


def test_the_data_of_both_benchmarks_is_known_to_the_last_file() -> None:
    data = steps(NVIDIA)["download_data"].postconditions
    assert [condition.md5 for condition in data["bert"]] == ["3e85deb501d4e538b6bc56f786231552"]
    lists = {condition.glob: condition.json_length for condition in data["3d-unet"] if condition.json_length}
    assert sorted(lists.values()) == [20, 43]
    packed = [(c.cases_from, PurePosixPath(c.glob).name) for c in data["3d-unet"] if c.gzip]
    assert sorted(packed) == [
        (name, f"{kind}.nii.gz") for name in sorted(lists) for kind in ("imaging", "segmentation")
    ]
    tensors = steps(NVIDIA)["preprocess_data"].postconditions
    assert {condition.npy_shape for condition in tensors["bert"]} == {(10833, 384)}
    assert len(tensors["bert"]) == 3


def test_audits_and_power_are_what_v4_1_has_for_these_benchmarks() -> None:
    for benchmark in NVIDIA.benchmarks.values():
        assert benchmark.audits == (AuditTest.TEST01, AuditTest.TEST05)
    assert NVIDIA.benchmarks["3d-unet"].max_q_scenarios == (Scenario.OFFLINE,)
    assert NVIDIA.benchmarks["bert"].max_q_scenarios == ()
