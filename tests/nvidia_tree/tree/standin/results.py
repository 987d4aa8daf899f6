"""metadata.json and accuracy.txt, by the habits of the real harness."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from standin.faults import faults
from standin.names import Benchmark, Scenario
from standin.request import BUILD, RULE_MS, Measurement

Metadata = dict[str, Any]
KEYS = {
    Scenario.Offline: "result_samples_per_second",
    Scenario.Server: "result_completed_samples_per_sec",
    Scenario.SingleStream: "result_90.00_percentile_latency_ns",
}
QUERY_RULES = {
    Scenario.Offline: ("effective_samples_per_query", 24_576),
    Scenario.Server: ("effective_min_query_count", 270_336),
    Scenario.SingleStream: ("effective_min_query_count", 1_024),
}
REFERENCE = {Benchmark.BERT: ("F1", 90.874), Benchmark.UNET3D: ("DICE", 0.86170)}
SCRIPTS = {
    Benchmark.BERT: BUILD / "inference/language/bert/accuracy-squad.py",
    Benchmark.UNET3D: Path("code/3d-unet/tensorrt/accuracy_kits.py"),
}
PATTERNS = {Benchmark.BERT: r'"f1": ([\d.]+)', Benchmark.UNET3D: r"Accuracy: mean = ([\d.]+)"}


def read_detail(path: Path) -> dict[str, Any]:
    """Return the values of a detail log by key, the first of each."""
    values: dict[str, Any] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        _, found, content = line.partition(":::MLLOG ")
        if found:
            entry = json.loads(content)
            values.setdefault(entry["key"], entry["value"])
    return values


def metadata_of(measurement: Measurement, detail: dict[str, Any]) -> Metadata:
    """Return what metadata.json says about a test, whatever its verdict."""
    key = KEYS[measurement.scenario]
    count_key, needed = QUERY_RULES[measurement.scenario]
    found: Metadata = {
        "benchmark_full": measurement.variant,
        "benchmark_short": measurement.benchmark.value,
        "config_name": measurement.config_name,
        "detected_system": f'SystemConfiguration(system_id="{measurement.system_id}")',
        "effective_min_duration_ms": detail["effective_min_duration_ms"],
        count_key: detail[count_key],
        "satisfies_query_constraint": detail[count_key] >= needed,
        "scenario": measurement.scenario.value,
        "scenario_key": key,
        "system_name": measurement.system_name,
        "tensorrt_version": "10.2.0",
        "test_mode": measurement.mode,
    }
    if measurement.mode == "AccuracyOnly":
        return found
    is_long = detail["effective_min_duration_ms"] >= RULE_MS
    word = detail["result_validity"] if is_long else "INVALID"
    text = f"{key}: {detail[key]}, Result is {word}, 10-min runtime requirement met: {is_long}"
    facts = {name: detail[name] for name in (key, "result_validity", "early_stopping_met")}
    return {**found, **facts, "summary_string": text}


def accuracy_of(measurement: Measurement, log: Path) -> Metadata:
    """Run the benchmark's accuracy script and return its verdict; accuracy.txt keeps what it printed.

    Raises:
        CalledProcessError: the script crashed, and nothing is left of it.
        TypeError: it printed no score; accuracy.txt is left.
    """
    argv = [sys.executable, str(SCRIPTS[measurement.benchmark]), f"--log_file={log}"]
    what = faults(measurement.place)
    argv += [f"--{fault}" for fault in ("accuracy-crash", "accuracy-silent") if fault in what]
    output = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout
    log.with_name("accuracy.txt").write_text(output)
    name, reference = REFERENCE[measurement.benchmark]
    threshold = reference * measurement.setting.accuracy_target.value
    match = re.search(PATTERNS[measurement.benchmark], output)
    value: Any = float(match[1]) if match else None
    passed = value is not None and value >= threshold
    word = "PASSED" if passed else "FAILED"
    return {
        "accuracy": [{"name": name, "pass": passed, "threshold": threshold, "value": value}],
        "accuracy_pass": passed,
        "summary_string": f"[{word}] {name}: {value:.3f} (Threshold={threshold:.3f})",
    }


def write_metadata(folder: Path, content: Metadata) -> None:
    """Write metadata.json."""
    (folder / "metadata.json").write_text(json.dumps(content, indent=4, sort_keys=True))
