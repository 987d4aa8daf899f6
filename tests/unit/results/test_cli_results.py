"""`mlperf-operator results DIR`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from mlperf_operator.cli import app
from unit.results.logs import DETAIL, SUMMARY, detail, metadata, summary, write

LOGS: dict[str, str | bytes] = {
    DETAIL: detail(result_samples_per_second=1.5),
    SUMMARY: summary("Samples per second: 1.5"),
}


def _results(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["results", *map(str, arguments)])


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    write(tmp_path / "bert-99" / "Offline", {**LOGS, "metadata.json": metadata(result_samples_per_second=1.5)})
    write(tmp_path / "bert-99" / "SingleStream", {DETAIL: detail("SingleStream", early_stopping_latency_ss=1_500_000)})
    write(tmp_path / "bert-99.9" / "Offline", {"accuracy.txt": '{"exact_match": 1, "f1": 80.5}'})
    write(tmp_path / "broken", {"metadata.json": "{"})
    return tmp_path


def test_json_is_a_list_with_one_item_a_result(tree: Path) -> None:
    found = _results(tree, "-o", "json")
    assert found.exit_code == 0
    first, second, third, fourth = json.loads(found.stdout)
    loadgen = first.pop("loadgen")
    assert (loadgen["minDurationMs"], loadgen["latencies"]) == (600000, [{"percent": 90, "latencyNs": 5}])
    assert first == {
        "path": "bert-99/Offline",
        "benchmark": "bert",
        "variant": "bert-99",
        "scenario": "Offline",
        "mode": "PerformanceOnly",
        "validity": "VALID",
        "metric": {"name": "result_samples_per_second", "value": 1.5, "unit": "samples/s"},
        "accuracy": [],
        "configName": "A100_SXM4_40GBx8_TRT-custom_k_99_MaxP-Offline",
        "earlyStoppingMet": True,
        "minDurationMet": True,
        "harnessVersion": "4.1 @ 0123456789",
        "reason": None,
        "warnings": [],
    }
    assert second["warnings"] == ["there is no mlperf_log_summary.txt"]
    assert third["accuracy"] == [{"name": "F1", "value": 80.5, "threshold": 90.783126, "passed": False}]
    assert (third["validity"], third["metric"]) == (None, None)
    assert "metadata.json is no JSON" in fourth["error"]


def test_yaml_says_the_same_as_json(tree: Path) -> None:
    assert yaml.safe_load(_results(tree, "-o", "yaml").stdout) == json.loads(_results(tree, "-o", "json").stdout)


def test_the_table_has_one_line_a_result_and_then_what_is_to_be_said(tree: Path) -> None:
    found = _results(tree)
    assert found.exit_code == 0
    lines = [" ".join(text.split()) for text in found.stdout.splitlines()]
    assert lines[:5] == [
        "BENCHMARK SCENARIO MODE VALID RESULT ACCURACY PATH",
        "bert-99 Offline PerformanceOnly VALID 1.5 samples/s - bert-99/Offline",
        "bert-99 SingleStream PerformanceOnly VALID 1.5 ms - bert-99/SingleStream",
        "bert-99.9 Offline AccuracyOnly - - F1 80.5 FAILED bert-99.9/Offline",
        "- - - ERROR - - broken",
    ]
    assert lines[5] == "bert-99/SingleStream: there is no mlperf_log_summary.txt"
    assert lines[6].startswith("broken: metadata.json is no JSON")


def test_the_table_says_why_a_result_is_invalid(tmp_path: Path) -> None:
    zero = detail("SingleStream", result_validity="INVALID", early_stopping_latency_ss=0)
    write(tmp_path, {DETAIL: zero, SUMMARY: summary("", "SingleStream", verdict="INVALID", stopping="NO")})
    out = _results(tmp_path).stdout
    assert "no estimate" in out
    assert ".: Early stopping satisfied: NO" in out


@pytest.mark.parametrize("output", ["table", "json", "yaml"])
def test_what_stands_in_a_log_does_no_harm_to_a_terminal(tmp_path: Path, output: str) -> None:
    evil = metadata(benchmark_full="\x1b[31m[bold]\ud800", benchmark_short=None)
    write(Path(os.fsdecode(os.fsencode(tmp_path) + b"/[/x]\xff\x1b")), {"metadata.json": evil})
    found = _results(tmp_path, "-o", output)
    assert found.exit_code == 0
    assert "\x1b" not in found.stdout
    assert "\ud800" not in found.stdout


def test_a_number_that_json_cannot_hold_never_leaves(tmp_path: Path) -> None:
    text = metadata(
        effective_min_duration_ms=float("inf"), accuracy=[{"name": "F1", "value": 1, "threshold": float("nan")}]
    )
    write(tmp_path, {"metadata.json": text})
    [item] = json.loads(_results(tmp_path, "-o", "json").stdout, parse_constant=pytest.fail)
    assert item["accuracy"] == [{"name": "F1", "value": 1.0, "threshold": 89.96526, "passed": False}]


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    found = _results(tmp_path)
    assert (found.exit_code, found.stdout) == (2, "")
    assert f"there is no result under {tmp_path}" in found.stderr
    assert "metadata.json" in found.stderr


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    found = _results(tmp_path / "gone", "-o", "json")
    assert (found.exit_code, found.stdout) == (2, "")
    assert found.stderr == f"Error: there is no {tmp_path}/gone\n"


def test_a_name_that_no_disk_holds_is_refused(tmp_path: Path) -> None:
    found = _results(tmp_path / ("a" * 5000))
    assert (found.exit_code, found.stdout) == (2, "")
    assert "cannot be read: File name too long" in found.stderr


def test_a_file_is_refused_with_what_to_name(tmp_path: Path) -> None:
    found = _results(write(tmp_path, LOGS) / SUMMARY)
    assert found.exit_code == 2
    assert "name the folder that it lies in" in found.stderr


def test_results_that_cannot_be_read_at_all_are_shown_and_refused(tmp_path: Path) -> None:
    write(tmp_path, {"metadata.json": "{"})
    found = _results(tmp_path, "-o", "json")
    assert found.exit_code == 2
    assert "metadata.json is no JSON" in json.loads(found.stdout)[0]["error"]
    assert "none of the 1 results" in found.stderr
