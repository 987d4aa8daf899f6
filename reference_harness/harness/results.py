"""metadata.json and accuracy.txt, in the shape of NVIDIA's v4.1 harness.

The shape includes its habits: the process exits 0 whatever the verdict is, `summary_string` says INVALID for a run that
is shorter than ten minutes even where LoadGen says VALID, and SingleStream's scenario_key is the plain percentile.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from harness import dataset
from harness.constants import AccuracyTarget, HarnessError, Scenario, TestMode, full_name
from harness.scratch import write_whole
from harness.settings import RULE_MIN_DURATION_MS, RunSettings
from harness.systems import DetectedSystem

REFERENCE_GOOD = 599
"""Held-out images, of 600, that the model in full precision gets right; README.md says how it was measured."""

SCENARIO_KEYS = {
    Scenario.Offline: "result_samples_per_second",
    Scenario.Server: "result_completed_samples_per_sec",
    Scenario.SingleStream: "result_90.00_percentile_latency_ns",
}
QUERY_RULES = {Scenario.Offline: dataset.HELD_OUT, Scenario.Server: 270_336, Scenario.SingleStream: 1_024}
"""Query counts that need no early stopping (MLPerf inference rules); Offline's is the data set."""

Metadata = dict[str, Any]


def threshold(target: AccuracyTarget) -> float:
    """Return the top-1 accuracy, in percent, that a result must reach."""
    return target.value * 100 * REFERENCE_GOOD / dataset.HELD_OUT


def read_detail(path: Path) -> dict[str, Any]:
    """Return the values of mlperf_log_detail.txt by key, the first where a key is repeated."""
    values: dict[str, Any] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        prefix, _, content = line.partition(" ")
        if prefix == ":::MLLOG":
            entry = json.loads(content)
            values.setdefault(entry["key"], entry["value"])
    return values


def write_results(settings: RunSettings, mode: TestMode, detected: DetectedSystem, folder: Path) -> Metadata:
    """Write metadata.json, and accuracy.txt after an accuracy run; return the metadata."""
    metadata = _common(settings, mode, detected, read_detail(folder / "mlperf_log_detail.txt"))
    if mode is TestMode.AccuracyOnly:
        metadata |= _accuracy(settings, folder)
    else:
        metadata |= _performance(settings, read_detail(folder / "mlperf_log_detail.txt"))
    content = json.dumps(metadata, indent=4, sort_keys=True) + "\n"
    write_whole(folder / "metadata.json", content.encode())
    return metadata


def _common(settings: RunSettings, mode: TestMode, detected: DetectedSystem, detail: dict[str, Any]) -> Metadata:
    scenario = settings.scenario
    count_key = "effective_samples_per_query" if scenario is Scenario.Offline else "effective_min_query_count"
    return {
        "benchmark_short": settings.benchmark.value,
        "benchmark_full": full_name(settings.benchmark, settings.setting.accuracy_target),
        "config_name": settings.config_name,
        "detected_system": str(detected),
        "effective_min_duration_ms": detail["effective_min_duration_ms"],
        count_key: detail[count_key],
        "satisfies_query_constraint": detail[count_key] >= QUERY_RULES[scenario],
        "scenario": scenario.value,
        "scenario_key": SCENARIO_KEYS[scenario],
        "system_name": settings.system_name,
        "onnxruntime_version": onnxruntime.__version__,
        "test_mode": mode.value,
    }


def _performance(settings: RunSettings, detail: dict[str, Any]) -> Metadata:
    key = SCENARIO_KEYS[settings.scenario]
    long_enough = detail["effective_min_duration_ms"] >= RULE_MIN_DURATION_MS
    word = detail["result_validity"] if long_enough else "INVALID"
    return {
        key: detail[key],
        "result_validity": detail["result_validity"],
        "early_stopping_met": detail["early_stopping_met"],
        "summary_string": f"{key}: {detail[key]}, Result is {word}, 10-min runtime requirement met: {long_enough}",
    }


def _accuracy(settings: RunSettings, folder: Path) -> Metadata:
    log = (folder / "mlperf_log_accuracy.json").read_bytes()
    _, labels = dataset.load_preprocessed()
    good, total = score(json.loads(log), labels.tolist())
    value, needed = 100 * good / total, threshold(settings.setting.accuracy_target)
    text = f"accuracy={value:.3f}%, good={good}, total={total}\nhash={hashlib.sha256(log).hexdigest()}\n"
    write_whole(folder / "accuracy.txt", text.encode())
    passed = value >= needed
    word = "PASSED" if passed else "FAILED"
    return {
        "accuracy": [{"name": "accuracy", "pass": passed, "threshold": needed, "value": value}],
        "accuracy_pass": passed,
        "summary_string": f"[{word}] accuracy: {value:.3f} (Threshold={needed:.3f})",
    }


def score(entries: list[dict[str, Any]], labels: list[int]) -> tuple[int, int]:
    """Count right answers in LoadGen's accuracy log.

    Returns:
        Right answers and samples.

    Raises:
        HarnessError: the log does not answer every sample.
    """
    answers = {entry["qsl_idx"]: np.frombuffer(bytes.fromhex(entry["data"]), np.int64)[0] for entry in entries}
    if sorted(answers) != list(range(len(labels))):
        raise HarnessError(f"the accuracy log answers {len(answers)} of {len(labels)} samples")
    return sum(int(answers[index] == label) for index, label in enumerate(labels)), len(labels)
