"""Configs and systems: what is refused, and what ends with 0 although nothing ran."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from unit.reference_harness.bench import Bench

QPS = {"server_target_qps": 300}


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({}, "Server needs server_target_qps"),
        ({**QPS, "gpu_batch_size": 4}, "Server has no field gpu_batch_size; possible: batch_size"),
        ({**QPS, "offline_expected_qps": 4}, "Server has no field offline_expected_qps"),
        ({"server_target_qps": "300"}, "server_target_qps must be a number, not '300'"),
        ({"server_target_qps": True}, "server_target_qps must be a number, not True"),
        ({"server_target_qps": 0}, "server_target_qps must be at least 1, not 0"),
        ({**QPS, "threads": 1.5}, "threads must be an integer, not 1.5"),
        ({**QPS, "quantize_bits": 33}, "quantize_bits must be at least 1 and at most 32, not 33"),
        ("    server_target_qps = 1\n    server_target_qps = 2", "server_target_qps is set twice in CPU_REFERENCE"),
        ("    benchmark = 'digits'\n    server_target_qps = 1", "CPU_REFERENCE mixes benchmark"),
    ],
)
def test_a_bad_config_is_refused(bench: Bench, values: Mapping[str, object] | str, says: str) -> None:
    bench.override("Server", values)
    done = bench.run("Server", target="generate_engines")
    assert done.returncode != 0
    assert says in done.stdout
    assert not bench.engines()


def test_a_second_config_for_the_same_key_is_refused(bench: Bench) -> None:
    bench.override("Server", "    server_target_qps = 1\nimport configs.digits.Server")
    done = bench.run("Server", target="generate_engines")
    assert done.returncode != 0
    assert "Config for digits.Server.CPU_REFERENCE for WorkloadSetting(custom_k_99_MaxP) is already" in done.stdout


def test_a_pair_without_override_has_no_config_and_the_exit_is_0(bench: Bench) -> None:
    bench.override("Server", QPS)
    done = bench.run("Offline", "--test_run")
    assert done.returncode == 0, done.stdout
    line = "No registered config for digits.Offline.CPU_REFERENCE for WorkloadSetting(custom_k_99_MaxP)"
    assert done.stdout.count(line) == 2
    assert not bench.results("Offline").exists()
    assert not bench.engines()


@pytest.mark.parametrize("version", ["triton", "high_accuracy_triton"])
def test_triton_has_no_config_and_the_exit_is_0(bench: Bench, version: str) -> None:
    done = bench.run("Offline", f"--config_ver={version}", target="run_harness")
    assert done.returncode == 0, done.stdout
    assert "No registered config for digits.Offline.CPU_REFERENCE" in done.stdout


def test_an_override_may_only_import_the_tree_s_own_config(bench: Bench) -> None:
    bench.override("Offline", {"offline_expected_qps": 1})
    (bench.root / "overrides/custom_configs/digits/Offline/custom.py").write_text("import configs.digits.Offline\n")
    done = bench.run("Offline", target="generate_engines")
    assert done.returncode == 0, done.stdout
    assert len(bench.engines()) == 1


def test_an_unknown_system_ends_with_0_and_nothing_done(bench: Bench) -> None:
    done = bench.run("Offline", "--system_name=A100_SXM4_40GBx8")
    assert done.returncode == 0, done.stdout
    assert "Detected system did not match any known systems. Exiting." in done.stdout
    assert not bench.engines()


def test_an_override_folder_may_add_a_system(bench: Bench) -> None:
    bench.override("Offline", {"offline_expected_qps": 1})
    systems = bench.root / "overrides" / "custom_systems" / "custom_list.py"
    systems.write_text(
        "from code.common.systems.system_list import SystemConfiguration\n"
        "custom_systems = {'MY_HOST': SystemConfiguration('MY_HOST')}\n"
    )
    done = bench.run("Offline", "--system_name=MY_HOST", target="generate_engines")
    assert done.returncode == 0, done.stdout
    assert "Detected system ID: MY_HOST" in done.stdout
    assert "No registered config for digits.Offline.MY_HOST" in done.stdout


def test_an_override_folder_without_a_system_list_is_refused(bench: Bench) -> None:
    bench.override("Offline", {"offline_expected_qps": 1})
    (bench.root / "overrides" / "custom_systems" / "custom_list.py").unlink()
    done = bench.run("Offline")
    assert done.returncode != 0
    assert "custom_list.py is missing: it must define custom_systems" in done.stdout


def test_a_missing_override_folder_is_refused(bench: Bench) -> None:
    bench.environment["MLPINF_CUSTOM_DEFINITION_PATH"] = str(bench.root / "nowhere")
    done = bench.run("Offline")
    assert done.returncode != 0
    assert "nowhere is not an existing folder" in done.stdout


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--test_mode=SubmissionRun"], "possible: PerformanceOnly, AccuracyOnly"),
        (["--config_ver=fast"], "invalid choice: 'fast'"),
        (["--min_duration=0"], "0 is not a positive integer"),
    ],
)
def test_a_bad_option_is_refused(bench: Bench, options: list[str], says: str) -> None:
    done = bench.run("Offline", *options)
    assert done.returncode != 0
    assert says in done.stdout


def test_an_unknown_scenario_is_refused_with_those_possible(bench: Bench) -> None:
    done = bench.run("MultiStream")
    assert done.returncode != 0
    assert "possible: Offline, Server, SingleStream" in done.stdout


def test_a_relative_log_dir_is_refused(bench: Bench) -> None:
    bench.environment["LOG_DIR"] = "logs"
    done = bench.run("Offline", target="run_harness")
    assert done.returncode != 0
    assert "LOG_DIR=logs must be an absolute path" in done.stdout


def test_the_log_dir_defaults_to_one_folder_below_the_tree(bench: Bench) -> None:
    bench.environment["LOG_DIR"] = ""
    done = bench.run("SingleStream", "--min_duration=50", "--min_query_count=64")
    assert done.returncode == 0, done.stdout
    (folder,) = (bench.tree / "build" / "logs").iterdir()
    log = (folder / "stdout.txt").read_text()
    assert "Built engine" in log
    assert "Running LoadGen" in log
    assert list(folder.rglob("metadata.json"))


def test_makefile_docker_may_be_replaced(bench: Bench) -> None:
    (bench.tree / "Makefile.docker").write_text("prebuild:\n\t@echo nothing to do\n")
    assert "nothing to do" in bench.make("prebuild").stdout
