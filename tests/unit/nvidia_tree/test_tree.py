"""The stand-in does what the facts about NVIDIA's tree say: what works, and what goes wrong with exit code 0."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mlperf_operator.results import find_results
from nvidia_tree import parts
from unit.nvidia_tree.bench import Bench

NO_GPU = ("SM=80", "NVSI_ARCH=Ampere")


def test_a_measurement_leaves_what_our_parsers_read(ready: Bench) -> None:
    for mode in ("PerformanceOnly", "AccuracyOnly"):
        done = ready.measure("bert/Offline", mode)
        assert done.returncode == 0, done.stdout
        (result,) = find_results(ready.logs)
        assert (result.variant, result.scenario, result.mode) == ("bert-99", "Offline", mode)
        assert result.metric is None or result.metric.value == pytest.approx(30000, rel=0.2)
        assert [item.passed for item in result.accuracy] == ([True] if mode == "AccuracyOnly" else [])
        assert result.config_name == "DGX-A100_A100-SXM4-40GBx8_TRT-custom_k_99_MaxP-Offline"


def test_the_99_9_variant_needs_the_precision_of_its_config(ready: Bench) -> None:
    ready.render(configVersion="HighAccuracy")
    done = ready.measure("bert/Offline", "AccuracyOnly", config_ver="high_accuracy")
    assert done.returncode == 0, done.stdout
    found = ready.metadata("bert/Offline", "99.9")
    assert (found["benchmark_full"], found["accuracy_pass"]) == ("bert-99.9", True)
    custom = ready.overrides / "custom_configs/bert/Offline/custom.py"
    custom.write_text(custom.read_text().replace("fp16", "int8"))
    ready.measure("bert/Offline", "AccuracyOnly", config_ver="high_accuracy")
    assert ready.metadata("bert/Offline", "99.9")["accuracy_pass"] is False


def test_engines_are_another_file_each_time_they_are_built(ready: Bench) -> None:
    found = []
    for _ in range(2):
        ready.pair("generate_engines", "bert/Offline")
        (engine,) = ready.work.rglob("*.plan")
        found.append(engine.read_bytes())
    assert found[0] != found[1]


def test_a_tree_that_was_built_elsewhere_does_not_run(ready: Bench, tmp_path: Path) -> None:
    moved = ready.work.rename(ready.work.with_name("moved"))
    try:
        ready.work = moved
        ready.pair("generate_engines", "bert/Offline")
        done = ready.pair("run_harness", "bert/Offline")
    finally:
        ready.work = moved.rename(moved.with_name("work"))
    assert done.returncode != 0
    assert "is of another folder" in done.stdout


def test_an_unknown_option_is_dropped_without_a_word(ready: Bench) -> None:
    done = ready.measure("bert/Offline", fast="true", audit_test="TEST01")
    assert done.returncode == 0, done.stdout
    assert ready.metadata("bert/Offline")["test_mode"] == "PerformanceOnly"


@pytest.mark.parametrize(("word", "value"), [("STANDIN_GPUS", "4"), ("STANDIN_PRODUCT", "NVIDIA H100")])
def test_another_system_is_told_and_no_failure(ready: Bench, word: str, value: str) -> None:
    done = ready.make("run_harness", "RUN_ARGS=--benchmarks=bert --scenarios=Offline", **{word: value})
    assert done.returncode == 0
    assert "Detected system did not match any known systems. Exiting." in done.stdout
    assert not list(ready.logs.rglob("*.json"))


def test_without_a_gpu_make_needs_to_be_told_what_nvidia_smi_would_say(bench: Bench) -> None:
    asked = bench.make("link_dirs", NVIDIA_VISIBLE_DEVICES="void")
    assert asked.returncode != 0
    told = bench.make("link_dirs", *NO_GPU, NVIDIA_VISIBLE_DEVICES="void", SKIP_DRIVER_CHECK="1")
    assert told.returncode == 0
    assert "nvidia-smi is not there" not in told.stdout


def test_its_own_prebuild_asks_for_docker(bench: Bench) -> None:
    assert "docker pull" in bench.make("-n", "prebuild").stdout


def test_failed_model_downloads_end_with_0_and_leave_empty_files(bench: Bench) -> None:
    bench.faults = "download/models/bert/*.onnx=unreachable"
    done = bench.make("download_model", "BENCHMARKS=bert")
    assert done.returncode == 0
    assert [path.stat().st_size for path in sorted((bench.scratch / "models/bert").glob("*.onnx"))] == [0, 0]


def test_a_failed_data_download_is_taken_for_done_by_the_next_try(bench: Bench) -> None:
    bench.faults = "download/data/squad/*=unreachable"
    assert bench.make("download_data", "BENCHMARKS=bert").returncode != 0
    again = bench.make("download_data", "BENCHMARKS=bert")
    assert again.returncode == 0
    assert "already exists" in again.stdout
    assert (bench.scratch / "data/squad/dev-v1.1.json").stat().st_size == 0


def test_failed_downloads_of_kits19_end_with_0(bench: Bench) -> None:
    bench.faults = "download/data/KiTS19/kits19/data/case_0021*=unreachable"
    assert bench.make("download_data", "BENCHMARKS=3d-unet").returncode == 0
    cases = [path.stat().st_size for path in bench.scratch.rglob("imaging.nii.gz")]
    assert len(cases) == 63
    assert cases.count(0) == 9


def test_a_fault_that_happens_once_is_gone_for_the_next_try(bench: Bench) -> None:
    bench.faults = "download/models/bert/*.onnx=unreachable-once"
    bench.make("download_model", "BENCHMARKS=bert")
    bench.make("download_model", "BENCHMARKS=bert")
    for path in (bench.scratch / "models/bert").iterdir():
        assert path.read_bytes() == parts.downloads()[f"models/bert/{path.name}"]


def test_preprocessed_data_have_the_shapes_of_the_real_ones(bench: Bench) -> None:
    bench.make("download_data")
    done = bench.make("preprocess_data")
    assert done.returncode == 0, done.stdout
    folder = bench.scratch / "preprocessed_data/KiTS19"
    assert len(list((folder / "inference/int8").iterdir())) == 43
    assert len(list((folder / "calibration/fp32").iterdir())) == 20


def test_an_environment_without_what_prebuild_installs_stops_the_stages(bench: Bench) -> None:
    bench.make("download_data", "BENCHMARKS=bert")
    done = bench.make("preprocess_data", "BENCHMARKS=bert", STANDIN_FAULTS="", PYTHONPATH="")
    assert done.returncode != 0
    for text in ("standin_lib is missing", "gcc is not the alternative", "libglog.so.0"):
        assert text in done.stdout


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("bert/Offline/engine=fails", "Building engines failed!"),
        ("bert/Offline/engine=out-of-memory", "Cuda Runtime (out of memory)"),
    ],
)
def test_engines_that_cannot_be_built_end_with_another_code(ready: Bench, fault: str, text: str) -> None:
    ready.faults = fault
    done = ready.pair("generate_engines", "bert/Offline")
    assert done.returncode != 0
    assert text in done.stdout


@pytest.mark.parametrize(
    ("pair", "fault", "word"),
    [
        ("bert/Offline", "too-fast", "INVALID"),
        ("bert/Server", "overloaded", "INVALID"),
        ("bert/Offline", "slow", "VALID"),
    ],
)
def test_a_verdict_changes_no_exit_code(ready: Bench, pair: str, fault: str, word: str) -> None:
    ready.faults = f"{pair}/*={fault}"
    assert ready.measure(pair).returncode == 0
    assert ready.metadata(pair)["result_validity"] == word


def test_a_missed_accuracy_ends_with_0(ready: Bench) -> None:
    ready.faults = "3d-unet/Offline/AccuracyOnly=low-accuracy"
    assert ready.measure("3d-unet/Offline", "AccuracyOnly").returncode == 0
    assert ready.metadata("3d-unet/Offline")["accuracy_pass"] is False


@pytest.mark.parametrize(
    ("fault", "left"),
    [
        ("accuracy-crash", {"mlperf_log_accuracy.json"}),
        ("accuracy-silent", {"accuracy.txt", "mlperf_log_accuracy.json"}),
    ],
)
def test_an_accuracy_script_without_a_score_leaves_no_metadata(ready: Bench, fault: str, left: set[str]) -> None:
    ready.faults = f"bert/Offline/AccuracyOnly={fault}"
    assert ready.measure("bert/Offline", "AccuracyOnly").returncode != 0
    always = {"mlperf_log_detail.txt", "mlperf_log_summary.txt", "mlperf_log_trace.json"}
    assert {path.name for path in ready.folder("bert/Offline").iterdir()} - always == left


@pytest.mark.parametrize("fault", ["partial-logs", "partial-summary", "old-logs", "no-metadata"])
def test_spoilt_logs_end_with_0(ready: Bench, fault: str) -> None:
    ready.faults = f"bert/Offline/PerformanceOnly={fault}"
    assert ready.measure("bert/Offline").returncode == 0
    folder = ready.folder("bert/Offline")
    names = {path.name for path in folder.iterdir()}
    assert ("metadata.json" in names) == (fault == "old-logs")
    if fault == "old-logs":
        assert "2024-08-01T12:00:00Z" in (folder / "mlperf_log_detail.txt").read_text()
        assert {int(path.stat().st_mtime) for path in folder.iterdir()} == {1_722_513_600}


def test_a_killed_harness_ends_with_another_code(ready: Bench) -> None:
    ready.faults = "bert/Offline/PerformanceOnly=killed"
    done = ready.measure("bert/Offline")
    assert done.returncode != 0
    assert "Killed" in done.stdout


def test_audits_compare_with_what_was_staged(ready: Bench) -> None:
    for mode in ("PerformanceOnly", "AccuracyOnly"):
        assert ready.measure("3d-unet/Offline", mode).returncode == 0
        ready.make("stage_results", f"RUN_ARGS=--log_dir={ready.logs}")
    for test in ("test01", "test05"):
        done = ready.pair(f"run_audit_{test}", "3d-unet/Offline")
        assert done.returncode == 0, done.stdout
        (found,) = (ready.work / f"build/compliance_logs/{test.upper()}").rglob("metadata.json")
        assert json.loads(found.read_text())["audit_success"] is True
        assert "TEST PASS" in (found.parent / test.upper() / "verify_performance.txt").read_text()
    assert not (ready.work / "audit.config").exists()


@pytest.mark.parametrize(("fault", "code"), [("fails", 2), ("fails-quietly", 0)])
def test_an_audit_that_fails(ready: Bench, fault: str, code: int) -> None:
    for mode in ("PerformanceOnly", "AccuracyOnly"):
        ready.measure("3d-unet/Offline", mode)
        ready.make("stage_results", f"RUN_ARGS=--log_dir={ready.logs}")
    ready.faults = f"audit/TEST01={fault}"
    done = ready.pair("run_audit_test01", "3d-unet/Offline")
    assert done.returncode == code
    (found,) = (ready.work / "build/compliance_logs/TEST01").rglob("metadata.json")
    assert json.loads(found.read_text())["audit_success"] is False


def test_an_audit_that_the_benchmark_lacks_does_nothing_and_ends_with_0(ready: Bench) -> None:
    done = ready.pair("run_audit_test04", "bert/Offline")
    assert done.returncode == 0
    assert "is exempted" in done.stdout


def test_the_excluded_function_of_the_dependency_scripts_fails(bench: Bench) -> None:
    text = (bench.work / "docker/common/install_misc_deps.sh").read_text()
    assert "\n    install_mxeval_deps\n" in text
    assert "exit 3" in text
