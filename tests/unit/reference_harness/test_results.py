"""Real LoadGen runs: verdicts, numbers, accuracy, and what an override changes."""

from __future__ import annotations

import hashlib
import json

import pytest

from unit.reference_harness.bench import Bench

METRICS = {
    "Offline": "result_samples_per_second",
    "Server": "result_completed_samples_per_sec",
    "SingleStream": "result_90.00_percentile_latency_ns",
}


@pytest.mark.parametrize("scenario", METRICS)
def test_a_test_run_is_valid_by_loadgen_and_too_short_by_the_rules(bench: Bench, scenario: str) -> None:
    done = bench.run(scenario, "--test_run")
    assert done.returncode == 0, done.stdout
    metadata, detail = bench.metadata(scenario), bench.detail(scenario)
    key = METRICS[scenario]
    assert metadata["scenario_key"] == key
    assert metadata[key] == detail[key] > 0
    assert metadata["result_validity"] == detail["result_validity"] == "VALID"
    assert metadata["early_stopping_met"] is True
    assert metadata["effective_min_duration_ms"] < 600_000
    assert metadata["summary_string"].endswith("Result is INVALID, 10-min runtime requirement met: False")
    assert metadata["benchmark_full"] == "digits-99"
    assert metadata["config_name"] == f"CPU_REFERENCE_ORT-custom_k_99_MaxP-{scenario}"
    assert "Result is : VALID" in (bench.results(scenario) / "mlperf_log_summary.txt").read_text()
    assert metadata["summary_string"] in (bench.root / "logs" / "stdout.txt").read_text()


@pytest.mark.parametrize("scenario", METRICS)
def test_accuracy_is_that_of_the_answers_that_loadgen_logged(bench: Bench, scenario: str) -> None:
    done = bench.run(scenario, "--test_mode=AccuracyOnly", "--test_run")
    assert done.returncode == 0, done.stdout
    metadata = bench.metadata(scenario)
    (item,) = metadata["accuracy"]
    assert item == {"name": "accuracy", "pass": True, "threshold": pytest.approx(98.835), "value": 100 * 599 / 600}
    assert metadata["accuracy_pass"] is True
    assert "result_validity" not in metadata
    log = (bench.results(scenario) / "mlperf_log_accuracy.json").read_bytes()
    held_out = (bench.scratch / "data/digits/heldout.csv").read_text().splitlines()
    labels = [int(line.rpartition(",")[2]) for line in held_out]
    right = sum(entry["data"] == labels[entry["qsl_idx"]].to_bytes(8, "little").hex() for entry in json.loads(log))
    text = (bench.results(scenario) / "accuracy.txt").read_text()
    assert text == f"accuracy=99.833%, good={right}, total=600\nhash={hashlib.sha256(log).hexdigest()}\n"


def test_high_accuracy_has_its_own_folder_and_threshold(bench: Bench) -> None:
    done = bench.run("Offline", "--config_ver=high_accuracy", "--test_mode=AccuracyOnly", "--test_run")
    assert done.returncode == 0, done.stdout
    (item,) = bench.metadata("Offline", "digits-99.9")["accuracy"]
    assert item["threshold"] == pytest.approx(0.999 * 100 * 599 / 600)
    assert item["pass"] is True


@pytest.mark.parametrize(("bits", "passes"), [(6, True), (4, False)])
def test_coarser_weights_cost_real_accuracy_and_the_exit_is_still_0(bench: Bench, bits: int, passes: bool) -> None:
    bench.override("Offline", {"offline_expected_qps": 10000, "quantize_bits": bits})
    done = bench.run("Offline", "--test_mode=AccuracyOnly", "--test_run")
    assert done.returncode == 0, done.stdout
    metadata = bench.metadata("Offline")
    assert metadata["accuracy_pass"] is passes
    assert metadata["summary_string"].startswith("[PASSED]" if passes else "[FAILED]")


def test_an_override_reaches_loadgen(bench: Bench) -> None:
    bench.override("Server", {"server_target_qps": 457, "server_target_latency_ns": 900_000_000})
    done = bench.run("Server", "--min_duration=300", "--min_query_count=100")
    assert done.returncode == 0, done.stdout
    detail = bench.detail("Server")
    assert detail["requested_server_target_qps"] == 457
    assert detail["effective_target_qps"] == 457
    assert detail["requested_server_target_latency_ns"] == 900_000_000
    assert detail["effective_min_duration_ms"] == 300
    assert detail["effective_min_query_count"] == 100


def test_a_rate_that_cannot_be_served_is_invalid_and_the_exit_is_still_0(bench: Bench) -> None:
    bench.override("Server", {"server_target_qps": 5000, "server_target_latency_ns": 100_000})
    done = bench.run("Server", "--min_duration=200", "--min_query_count=900")
    assert done.returncode == 0, done.stdout
    assert bench.metadata("Server")["result_validity"] == "INVALID"
    assert "Result is : INVALID" in (bench.results("Server") / "mlperf_log_summary.txt").read_text()


def test_the_test_run_is_short_although_the_config_asks_for_ten_minutes(bench: Bench) -> None:
    bench.override("Offline", {"offline_expected_qps": 600, "min_duration": 600_000, "min_query_count": 100_000})
    done = bench.run("Offline", "--test_run")
    assert done.returncode == 0, done.stdout
    metadata = bench.metadata("Offline")
    assert metadata["effective_min_duration_ms"] == 1000
    # Sized for 600 samples a second, the query is done before its second is over, and LoadGen says so.
    assert metadata["result_validity"] == "INVALID"


def test_without_a_test_run_the_rules_of_mlperf_hold(bench: Bench) -> None:
    # The settings alone: running them takes ten minutes.
    program = (
        "from harness.constants import *; from harness.configs_loader import load_configs\n"
        "from harness.registry import ConfigRegistry; from harness.settings import CommandLine, run_settings\n"
        "from harness.systems import KnownSystem\n"
        "for scenario in Scenario:\n"
        "    load_configs(Benchmark.Digits, scenario)\n"
        "    found = ConfigRegistry.get(Benchmark.Digits, scenario, KnownSystem.CPU_REFERENCE, "
        'CONFIG_VERSIONS["default"])\n'
        "    settings = run_settings(found, CommandLine())\n"
        "    print(scenario.value, settings.min_duration_ms)\n"
    )
    (bench.tree / "print_settings.py").write_text(program)
    (bench.tree / "Makefile.docker").write_text("print_settings:\n\t@$(PYTHON) print_settings.py\n")
    done = bench.make("print_settings")
    assert "Offline 600000\nServer 600000\nSingleStream 600000\n" in done.stdout
