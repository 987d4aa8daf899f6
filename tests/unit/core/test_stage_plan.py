"""What plan.json asks of the stage wrapper; the whole of it is in tests/golden."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from mlperf_operator.api.v1alpha1 import MLPerfRun
from mlperf_operator.resources.stage_plan import build_plan
from mlperf_operator.suites import BUILT_IN, MakeStep, Prebuild
from unit.core.builders import UID, a100, run

NVIDIA = BUILT_IN["nvidia-v4.1"]
OFFLINE = {"strategy": "Image", "offline": True}
UNET = [{"name": "3d-unet", "scenarios": ["Offline"]}]


def plan(wanted: MLPerfRun) -> dict[str, Any]:
    return build_plan(wanted, BUILT_IN[wanted.spec.suite], "harness:1")


def steps(wanted: MLPerfRun, stage: str) -> dict[str, dict[str, Any]]:
    return {step["id"]: step for step in plan(wanted)["stages"][stage]["steps"]}


def run_args(step: dict[str, Any]) -> list[str]:
    [argument] = [argument for argument in step["argv"] if argument.startswith("RUN_ARGS=")]
    return str(argument).removeprefix("RUN_ARGS=").split()


class TestEnvironment:
    def test_a_snapshot_is_installed_once_and_laid_over_every_later_stage(self) -> None:
        stages = plan(a100())["stages"]
        first, second = stages["prebuild"]["steps"]
        assert (first["id"], first["action"], first["scope"]) == ("environment", "snapshot", "Shared")
        assert first["argv"][:2] == ["make", "prebuild"]
        assert first["env"] == {"MLPERF_PREBUILD": "install"}
        assert first["store"] == "/scratch/.mlperf/environments"
        assert second["id"] == "link_dirs"
        with_it = [name for name, stage in stages.items() if stage.get("environment")]
        assert with_it == ["download-data", "download-model", "preprocess-data", "build", "run"]

    def test_what_it_is_made_from_is_named_with_the_rendered_makefile(self) -> None:
        [step] = [s for s in plan(a100())["stages"]["prebuild"]["steps"] if s["id"] == "environment"]
        folder = "/work/docker/common"
        assert step["inputs"] == [
            "/work/Makefile.docker",
            *(f"{folder}/install_{kind}_deps.sh" for kind in ("apt", "pip", "misc")),
            f"{folder}/requirements.x86_64.*.txt",
        ]

    def test_an_image_that_has_it_is_verified_in_every_pod_and_nothing_is_laid_over(self) -> None:
        stages = plan(a100(environment={"strategy": "Image"}))["stages"]
        first = stages["prebuild"]["steps"][0]
        assert (first["id"], first["action"], first["scope"]) == ("prebuild", "exec", "Private")
        assert first["env"] == {"MLPERF_PREBUILD": "verify"}
        assert first["always"] is True
        assert not any(stage.get("environment") for stage in stages.values())

    def test_another_image_or_other_scripts_are_another_environment(self) -> None:
        prebuild = NVIDIA.prebuild
        assert prebuild is not None
        other = NVIDIA.model_copy(update={"prebuild": prebuild.model_copy(update={"leave_out": ()})})
        plans = [
            build_plan(a100(), NVIDIA, "harness:1"),
            build_plan(a100(), NVIDIA, "harness:2"),
            build_plan(a100(), other, "harness:1"),
        ]
        digests = [made["stages"]["prebuild"]["steps"][0]["digest"] for made in plans]
        assert len(set(digests)) == 3

    def test_a_tree_that_was_built_with_another_environment_is_another_tree(self) -> None:
        built = [steps(a100(environment={"strategy": s}), "build")["build"] for s in ("Snapshot", "Image")]
        assert built[0]["digest"] != built[1]["digest"]

    def test_a_suite_without_one_is_prepared_as_it_is(self) -> None:
        first = plan(run())["stages"]["prebuild"]["steps"][0]
        assert (first["id"], first["action"]) == ("prebuild", "exec")
        assert "env" not in first
        assert not any(stage.get("environment") for stage in plan(run())["stages"].values())

    @pytest.mark.parametrize(("strategy", "looks"), [("Snapshot", False), ("Image", True)])
    def test_preflight_looks_only_for_programs_that_the_image_must_bring(self, strategy: str, *, looks: bool) -> None:
        step = steps(a100(environment={"strategy": strategy}), "preflight")["preflight"]
        assert ("numactl" in step["checks"]["tools"]) is looks
        assert {"git", "wget", "nvidia-cuda-mps-control"} <= set(step["checks"]["tools"])

    def test_a_prebuild_that_brings_a_program_the_suite_does_not_ask_for_changes_nothing(self) -> None:
        prebuild = Prebuild(folder="d", scripts=("s.sh",), programs=("other",))
        suite = NVIDIA.model_copy(update={"prebuild": prebuild})
        checks = build_plan(a100(), suite, "i")["stages"]["preflight"]["steps"][0]["checks"]
        assert checks["tools"] == list(NVIDIA.tools)


class TestMeasurements:
    def test_engines_are_built_once_a_pair_and_measured_once_a_mode(self) -> None:
        made = list(steps(a100(benchmarks=UNET), "run").values())
        assert [step["argv"][1] for step in made] == ["generate_engines", "run_harness", "run_harness"]
        assert [step.get("requires") for step in made[1:]] == [[made[0]["id"]]] * 2
        folders = [step["env"]["LOG_DIR"] for step in made]
        assert len(set(folders)) == 3
        assert made[0]["engineGlobs"] == ["/work/build/engines/**/3d-unet/Offline/*.plan"]

    @pytest.mark.parametrize(
        ("version", "power", "wanted"),
        [
            ("Default", "MaxP", ["--config_ver=default"]),
            ("HighAccuracy", "MaxP", ["--config_ver=high_accuracy"]),
            ("Default", "MaxQ", ["--config_ver=maxq", "--power_setting=MaxQ"]),
            ("HighAccuracy", "MaxQ", ["--config_ver=maxq_high_accuracy", "--power_setting=MaxQ"]),
        ],
    )
    def test_config_version_and_power_setting_are_told_so_that_both_hold(
        self, version: str, power: str, wanted: list[str]
    ) -> None:
        for step in steps(a100(benchmarks=UNET, configVersion=version, powerSetting=power), "run").values():
            asked = run_args(step)
            assert [a for a in asked if a.startswith(("--config_ver", "--power_setting"))] == wanted

    def test_a_test_run_is_the_harnesss_own_short_run(self) -> None:
        for step in steps(a100(testRun=True), "run").values():
            assert run_args(step)[-1] == "--test_run"
        for step in steps(a100(), "run").values():
            assert "--test_run" not in run_args(step)

    def test_maxq_sets_its_limit_by_sudo_which_preflight_looks_for(self) -> None:
        checks = steps(a100(powerSetting="MaxQ"), "preflight")["preflight"]["checks"]
        assert "sudo" in checks["tools"]
        assert "sudo" not in steps(a100(), "preflight")["preflight"]["checks"]["tools"]


class TestAudits:
    AUDITED = a100(benchmarks=[{"name": "bert", "scenarios": ["Offline", "Server"]}], audits=["TEST01", "TEST05"])

    def test_every_pair_is_measured_before_the_first_audit(self) -> None:
        kinds = ["audit" if "audit" in s else "result" for s in steps(self.AUDITED, "run").values() if _judged(s)]
        assert kinds == ["result"] * 4 + ["audit"] * 4

    def test_an_audit_has_a_target_of_its_own_and_compares_with_what_was_staged_of_this_run(self) -> None:
        made = steps(self.AUDITED, "run")
        audit, stage = made["audit-TEST05-bert-Server"], made["stage_results-bert-Server"]
        assert audit["argv"][:2] == ["make", "run_audit_test05"]
        assert not any("audit_test" in argument or "test_mode" in argument for argument in run_args(audit))
        assert set(audit["requires"]) == {
            "generate_engines-bert-Server",
            "run_harness-bert-Server-PerformanceOnly",
            "run_harness-bert-Server-AccuracyOnly",
            "stage_results-bert-Server",
        }
        assert run_args(stage) == ["--log_dir=/results/logs/bert/Server", "--ignore_power"]
        assert audit["audit"] == {
            "test": "TEST05",
            "benchmark": "bert",
            "variant": "bert-99",
            "scenario": "Server",
            "logDir": "/results/audits/bert/Server/TEST05",
            "from": "/work/build/compliance_logs/TEST05",
        }

    def test_what_another_measurement_left_is_not_staged(self) -> None:
        made = steps(self.AUDITED, "run")
        for before, after in itertools.pairwise(made):
            if after.startswith("stage_results"):
                assert made[before]["argv"] == ["rm", "-rf", "/work/build/submission-staging"]
                assert made[before]["always"]
                assert made[after]["always"]

    def test_results_without_a_place_in_the_staging_folder_end_the_step(self) -> None:
        [first, second] = steps(self.AUDITED, "run")["stage_results-bert-Offline"]["postconditions"]
        folder = "/work/build/submission-staging/closed/NVIDIA/results/*/bert-99/Offline"
        assert first["glob"] == f"{folder}/performance/run_1/mlperf_log_summary.txt"
        assert second["glob"] == f"{folder}/accuracy/mlperf_log_accuracy.json"

    def test_collect_is_told_which_audits_to_expect(self) -> None:
        expected = plan(self.AUDITED)["expectedAudits"]
        assert [audit["step"] for audit in expected] == [
            f"audit-{test}-bert-{scenario}" for scenario in ("Offline", "Server") for test in ("TEST01", "TEST05")
        ]
        assert plan(a100())["expectedAudits"] == []
        assert not any("audit" in step or "staging" in step["id"] for step in steps(a100(), "run").values())


def _judged(step: dict[str, Any]) -> bool:
    return "audit" in step or "result" in step


class TestCode:
    def test_the_suites_commit_is_the_default(self) -> None:
        source = steps(a100(), "code")["code"]["source"]
        assert source == {
            "type": "Git",
            "url": NVIDIA.code.git_url,
            "commit": NVIDIA.code.git_commit,
            "subPath": "closed/NVIDIA",
        }

    @pytest.mark.parametrize(
        ("code", "path"),
        [
            ({"claimName": "trees"}, "/code/"),
            ({"claimName": "trees", "path": "/v4.1"}, "/code/v4.1"),
            ({"image": "registry.example/code:1"}, "/"),
            ({"image": "registry.example/code:1", "path": "/src"}, "/src"),
        ],
    )
    def test_a_claim_and_an_image_are_folders_that_hold_the_tree_or_a_checkout(
        self, code: dict[str, str], path: str
    ) -> None:
        source = steps(a100(code=code), "code")["code"]["source"]
        assert source == {"type": "Path", "path": path, "subPath": "closed/NVIDIA"}

    def test_another_source_is_copied_anew(self) -> None:
        codes: list[dict[str, str] | None] = [None, {"claimName": "a"}, {"image": "i:1"}, {"image": "i:2"}]
        digests = [steps(a100(code=code), "code")["code"]["digest"] for code in codes]
        assert len(set(digests)) == len(codes)


class TestOffline:
    def test_downloads_are_only_looked_at_and_nothing_is_removed(self) -> None:
        for stage in ("download-data", "download-model"):
            for name, step in steps(a100(environment=OFFLINE), stage).items():
                online = steps(a100(environment={"strategy": "Image"}), stage)[name]
                assert online["argv"]
                assert not step["argv"]
                assert step["postconditions"] == online["postconditions"]
                assert not step["removeOnFailure"]
                assert not step["retries"]
                # What was downloaded before counts as done, and the other way round.
                assert step["digest"] == online["digest"]

    def test_git_and_pip_look_on_scratch_in_every_stage_that_runs_commands(self) -> None:
        for name, stage in plan(a100(environment=OFFLINE))["stages"].items():
            if name != "preflight":
                assert stage["env"] == {
                    "GIT_CONFIG_GLOBAL": "/agent/gitconfig",
                    "PIP_NO_INDEX": "1",
                    "PIP_FIND_LINKS": "/scratch/offline/wheels",
                }

    def test_volumes_of_other_users_are_no_obstacle_to_git_online_either(self) -> None:
        for name, stage in plan(a100())["stages"].items():
            if name != "preflight":
                assert stage["env"] == {"GIT_CONFIG_GLOBAL": "/agent/gitconfig"}

    def test_preflight_looks_for_all_that_the_stages_would_have_fetched(self) -> None:
        checks = steps(a100(environment=OFFLINE), "preflight")["preflight"]["checks"]
        assert checks["offline"] == {
            "repositories": [
                f"/scratch/offline/git/{name}.git"
                for name in ("inference", "power-dev", "DeepLearningExamples", "inference_results_v4.1")
            ],
            "files": [
                f"/scratch/offline/wheels/{name}"
                for name in ("setuptools-*.whl", "wheel-*.whl", "pybind11-2.11.1-*.whl")
            ],
        }
        assert "offline" not in steps(a100(), "preflight")["preflight"]["checks"]

    def test_code_that_comes_from_a_claim_needs_no_repository(self) -> None:
        wanted = a100(environment=OFFLINE, code={"claimName": "trees"})
        repositories = steps(wanted, "preflight")["preflight"]["checks"]["offline"]["repositories"]
        assert not any("inference_results" in path for path in repositories)


def test_links_into_scratch_are_made_in_every_pod() -> None:
    for wanted in (a100(), run()):
        assert steps(wanted, "prebuild")["link_dirs"]["always"] is True


def test_a_step_that_fetches_says_so() -> None:
    fetching = {s.target for stage in NVIDIA.stages for s in stage.steps if s.fetches}
    assert fetching == {"download_data", "download_model"}
    assert not MakeStep(target="build").fetches


def test_cases_of_a_list_are_removed_by_pattern_when_they_fail() -> None:
    step = steps(a100(benchmarks=UNET), "download-data")["download_data-3d-unet"]
    assert any("{}" in condition["glob"] for condition in step["postconditions"])
    assert not any("{}" in pattern for pattern in step["removeOnFailure"])
    # The tree's script takes the data for whole when this case, which no list names, is there.
    assert "/scratch/data/KiTS19/kits19/data/*/imaging.nii.gz" in step["removeOnFailure"]


def test_the_upload_is_told_without_its_credentials() -> None:
    store = {"endpoint": "https://s3.example", "bucket": "results", "prefix": "a100", "region": "eu-1"}
    wanted = a100(upload={"s3": {**store, "credentialsSecret": {"name": "keys"}}})
    assert plan(wanted)["upload"] == {**store, "path": f"bench/demo/{UID}"}
    assert "keys" not in str(plan(wanted))
    assert "upload" not in plan(a100())
