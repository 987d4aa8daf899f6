"""Files as LoadGen and NVIDIA's harness write them, made by hand for one rule at a time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mlperf_operator.results import Result, read_result

DETAIL, SUMMARY = "mlperf_log_detail.txt", "mlperf_log_summary.txt"

FOOTER = "No warnings encountered during test.\n\nNo errors encountered during test.\n"


def line(key: str, value: Any, *, is_error: bool = False) -> str:
    """Return one line of a detail log."""
    body = {"key": key, "value": value, "time_ms": 1.5, "metadata": {"is_error": is_error, "line_no": 7, "pid": 1}}
    return f":::MLLOG {json.dumps(body)}\n"


def detail(scenario: str = "Offline", version: str = "4.1 @ 0123456789", /, **values: Any) -> str:
    """Return a detail log; `mode`, the duration and the verdict have defaults, None leaves a key out.

    A key that is no name of Python's, such as result_90.00_percentile_latency_ns, goes in a dictionary: **{...}.
    """
    keys = {
        "loadgen_version": version,
        "effective_scenario": scenario,
        "effective_test_mode": "PerformanceOnly",
        "effective_min_duration_ms": 600000,
        "result_validity": "VALID",
        "result_min_duration_met": True,
        "early_stopping_met": True,
        **values,
    }
    return "".join(line(key, value) for key, value in keys.items() if value is not None)


def summary(headline: str = "Samples per second: 100.5", scenario: str = "Offline", **said: str) -> str:
    """Return a summary; `verdict`, `mode`, `stopping`, `duration` and `block` change a part of it."""
    stopping = said.get("stopping", "Yes")
    return "\n".join(
        [
            "=" * 48,
            "MLPerf Results Summary",
            "=" * 48,
            "SUT name : LWIS_Server",
            f"Scenario : {scenario}",
            f"Mode     : {said.get('mode', 'PerformanceOnly')}",
            *([headline] if headline else []),
            f"Result is : {said.get('verdict', 'VALID')}",
            "  Performance constraints satisfied : Yes",
            f"  Min duration satisfied : {said.get('duration', 'Yes')}",
            "  Min queries satisfied : Yes",
            *([f"  Early stopping satisfied: {stopping}"] if stopping else []),
            *([said["block"]] if "block" in said else []),
            "",
            "=" * 48,
            "Additional Stats",
            "=" * 48,
            "Scheduled samples per second : 77.7",
            "90.00 percentile latency (ns)   : 5",
            "",
            "=" * 48,
            "Test Parameters Used",
            "=" * 48,
            f"min_duration (ms): {said.get('min_duration', '600000')}",
            "max_duration (ms): 0",
            "",
            FOOTER,
        ]
    )


def metadata(**values: Any) -> str:
    """Return the metadata.json of a valid performance run of bert-99 Offline; None leaves a key out."""
    keys = {
        "benchmark_short": "bert",
        "benchmark_full": "bert-99",
        "scenario": "Offline",
        "test_mode": "PerformanceOnly",
        "config_name": f"A100_SXM4_40GBx8_TRT-custom_k_99_MaxP-{values.get('scenario', 'Offline')}",
        "result_validity": "VALID",
        "scenario_key": "result_samples_per_second",
        "result_samples_per_second": 100.5,
        "early_stopping_met": True,
        "satisfies_query_constraint": False,
        "effective_min_duration_ms": 600000,
        "summary_string": "result_samples_per_second: 1, Result is INVALID",
        **values,
    }
    return json.dumps({key: value for key, value in keys.items() if value is not None})


def accuracy_metadata(*items: dict[str, Any], **values: Any) -> str:
    """Return the metadata.json of an accuracy run."""
    nothing = dict.fromkeys(("result_validity", "result_samples_per_second", "early_stopping_met"))
    return metadata(test_mode="AccuracyOnly", accuracy=list(items), **{**nothing, **values})


def write(folder: Path, files: dict[str, str | bytes]) -> Path:
    """Write files by their names into a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def read(folder: Path, files: dict[str, str | bytes]) -> Result:
    """Write files into a folder and return its result."""
    return read_result(write(folder, files))
