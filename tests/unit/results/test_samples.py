"""Official results of v1.0 to v6.1, where a folder shared/samples lies beside the checkout."""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path

import pytest

from mlperf_operator.results import Accuracy, Result, find_results
from unit.results.logs import read

SAMPLES = Path(__file__).resolve().parents[4] / "shared" / "samples"

pytestmark = pytest.mark.skipif(not SAMPLES.is_dir(), reason=f"there are no official results in {SAMPLES}")


def _rows(name: str) -> list[dict[str, str]]:
    path = SAMPLES / name
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@cache
def _found() -> dict[str, Result]:
    return {result.path: result for result in find_results(SAMPLES / "results")}


def _number(text: str) -> float | None:
    return float(text) if text else None


@pytest.mark.parametrize("row", _rows("results/expected.csv"), ids=lambda row: row["path"])
def test_an_official_result_is_read_as_it_was_published(row: dict[str, str]) -> None:
    found = _found()[str(Path(row["path"]).parent)]
    assert (found.error, found.variant, found.scenario) == (None, row["benchmark"], row["scenario"])
    assert (found.mode, found.validity) == (row["mode"], row["valid"] or None)
    metric = found.metric
    assert (metric.name if metric else "", metric.unit if metric else "") == (row["metric_name"], row["unit"])
    assert (metric.value if metric else None) == _number(row["value"])
    names, values = row["accuracy_metric"].split(";"), row["accuracy_value"].split(";")
    assert [(a.name, a.value) for a in found.accuracy] == [
        (name, float(value)) for name, value in zip(names, values, strict=True) if name
    ]
    assert all(item.passed is not False for item in found.accuracy)
    said = {"Yes": True, "NO": False, "": None}
    if row["mode"] == "PerformanceOnly":
        assert found.early_stopping_met == said[row["early_stopping"]]
        asked = _number(row["effective_min_duration_ms"])
        if asked is not None or row["min_duration"] == "NO":
            assert found.min_duration_met is (row["min_duration"] == "Yes" and (asked or 0) >= 600000)
    if row["detail_copied"] == "yes" and row["loadgen_version"]:
        assert found.harness_version == row["loadgen_version"]
    if row["logged_scenario"] not in ("", row["scenario"]) and row["scenario"] != "Interactive":
        assert any(row["logged_scenario"] in text for text in found.warnings)


@pytest.mark.parametrize("row", _rows("metadata/expected_metadata.csv"), ids=lambda row: row["file"])
def test_a_metadata_json_is_read_as_it_is_meant(row: dict[str, str], tmp_path: Path) -> None:
    found = read(tmp_path, {"metadata.json": (SAMPLES / "metadata" / row["file"]).read_bytes()})
    metric = found.metric
    assert (found.variant, found.scenario, found.mode) == (row["benchmark"], row["scenario"], row["test_mode"])
    assert (found.validity or "", metric.name if metric else "") == (row["valid"], row["metric_name"])
    assert (metric.value if metric else None, metric.unit if metric else "") == (_number(row["value"]), row["unit"])
    said = {"True": True, "False": False, "": None}
    assert (found.early_stopping_met, found.min_duration_met) == (said[row["early_stopping_met"]], said[row["ten_min"]])
    passed = [item.passed for item in found.accuracy]
    assert passed == ([said[row["accuracy_pass"]]] if row["accuracy"] else [])


def test_a_metadata_json_that_contradicts_itself_is_not_passed(tmp_path: Path) -> None:
    text = (SAMPLES / "metadata" / "Example_accuracy_summary2.json").read_bytes()
    found = read(tmp_path, {"metadata.json": text})
    assert found.accuracy == (Accuracy("F1", 1.5, 1.0, passed=False),)
    assert "accuracy_pass is true although an item did not pass; taken as not passed" in found.warnings
