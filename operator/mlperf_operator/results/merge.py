"""One result from the files of a folder: the logs decide, metadata.json adds, and what differs is said."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mlperf_operator.results.accuracy import judged, parse_accuracy, threshold_of
from mlperf_operator.results.detail import DetailLog
from mlperf_operator.results.metadata import Metadata
from mlperf_operator.results.metrics import metric_from_detail, metric_from_summary
from mlperf_operator.results.model import MIN_DURATION_MS, Accuracy, Metric, Mode, Result, ResultError
from mlperf_operator.results.summary import Summary

SCENARIOS = {
    "offline": "Offline",
    "server": "Server",
    "singlestream": "SingleStream",
    "multistream": "MultiStream",
    "interactive": "Interactive",
}
_SHARE = re.compile(r"-99(\.9)?$")
EMPTY_DETAIL = DetailLog({}, (), 0)


@dataclass(frozen=True)
class Files:
    """The parsed files of one folder; None where a file is missing.

    Attributes:
        path: The folder as it is shown.
        parts: Names of the folder and those above it, from the top.
    """

    path: str
    parts: Sequence[str]
    summary: Summary | None
    detail: DetailLog | None
    metadata: Metadata | None
    accuracy: str | None


def merge(files: Files) -> Result:
    """Return the result of a folder.

    Raises:
        ResultError: its files hold none.
    """
    summary, detail, metadata = files.summary or Summary(), files.detail or EMPTY_DETAIL, files.metadata
    if files.metadata is None and files.accuracy is None and not detail.values and summary.validity is None:
        raise ResultError(_nothing_in(files))
    logged = scenario_of(_first(detail, "effective_scenario", "requested_scenario") or summary.scenario)
    folder, named = _folder_names(files.parts)
    scenario = folder or logged or scenario_of(metadata.scenario if metadata else None)
    variant = (metadata.variant if metadata else None) or named
    mode = _mode(files, summary, detail)
    validity = _validity(summary, detail)
    metric = _metric(logged or scenario, summary, detail) if mode != "AccuracyOnly" else None
    warnings = [*_log_warnings(files, detail, folder, logged)]
    if metadata is not None:
        warnings += [*metadata.contradictions, *_stale(metadata, validity, metric)]
        # Without a log beside it metadata.json is all that is known.
        validity = validity or (metadata.validity if mode != "AccuracyOnly" else None)
        metric = metric or (metadata.metric if mode != "AccuracyOnly" else None)
    return Result(
        path=files.path,
        benchmark=_short(variant, metadata),
        variant=variant,
        scenario=scenario,
        mode=mode,
        validity=validity if mode != "AccuracyOnly" else None,
        metric=metric,
        accuracy=_accuracy(files, variant),
        config_name=metadata.config_name if metadata else None,
        early_stopping_met=_early_stopping(summary, detail, metadata),
        min_duration_met=_min_duration(summary, detail, metadata),
        harness_version=str(detail.values["loadgen_version"]) if detail.values.get("loadgen_version") else None,
        reason="; ".join(summary.reasons) if validity == "INVALID" and summary.reasons else None,
        warnings=tuple(warnings),
    )


def scenario_of(text: str | None) -> str | None:
    """Return the scenario's official spelling; v1.0 logs say `Single Stream`, folders say `offline`."""
    return SCENARIOS.get(re.sub(r"[\s_-]", "", text or "").lower())


def _first(detail: DetailLog, *keys: str) -> str | None:
    return next((str(detail.values[key]) for key in keys if detail.values.get(key)), None)


def _folder_names(parts: Sequence[str]) -> tuple[str | None, str | None]:
    """Return scenario and variant by the folders' names: .../<variant>/<Scenario>/..."""
    for index in range(len(parts) - 1, 0, -1):
        scenario = scenario_of(parts[index])
        if scenario is not None:
            return scenario, parts[index - 1]
    return None, None


def _short(variant: str | None, metadata: Metadata | None) -> str | None:
    if metadata is not None and metadata.benchmark:
        return metadata.benchmark
    return _SHARE.sub("", variant) if variant else None


def _mode(files: Files, summary: Summary, detail: DetailLog) -> Mode | None:
    said = _first(detail, "effective_test_mode", "requested_test_mode") or summary.mode
    said = said or (files.metadata.mode if files.metadata else None)
    if said:
        return "AccuracyOnly" if said.replace(" ", "").lower().startswith("accuracy") else "PerformanceOnly"
    if summary.validity is not None:
        return "PerformanceOnly"
    return "AccuracyOnly" if files.accuracy is not None or "accuracy" in files.parts else None


def _validity(summary: Summary, detail: DetailLog) -> Literal["VALID", "INVALID"] | None:
    said = str(detail.values.get("result_validity") or summary.validity or "").upper()
    return "VALID" if said == "VALID" else "INVALID" if said == "INVALID" else None


def _metric(scenario: str | None, summary: Summary, detail: DetailLog) -> Metric | None:
    return metric_from_detail(scenario, detail, summary) or metric_from_summary(scenario, summary)


def _accuracy(files: Files, variant: str | None) -> tuple[Accuracy, ...]:
    if files.metadata is not None and files.metadata.accuracy:
        return tuple(
            item if item.threshold is not None else judged(item.name, item.value, threshold_of(variant, item.name))
            for item in files.metadata.accuracy
        )
    return parse_accuracy(files.accuracy, variant) if files.accuracy is not None else ()


def _early_stopping(summary: Summary, detail: DetailLog, metadata: Metadata | None) -> bool | None:
    logged = detail.values.get("early_stopping_met")
    if isinstance(logged, bool):
        return logged
    if summary.early_stopping_met is not None:
        return summary.early_stopping_met
    return metadata.early_stopping_met if metadata else None


def _min_duration(summary: Summary, detail: DetailLog, metadata: Metadata | None) -> bool | None:
    for found in (
        detail.number("effective_min_duration_ms"),
        summary.min_duration_ms,
        metadata.min_duration_ms if metadata else None,
    ):
        if found is not None:
            return found >= MIN_DURATION_MS
    return None


def _log_warnings(files: Files, detail: DetailLog, folder: str | None, logged: str | None) -> list[str]:
    found = []
    if detail.errors:
        found.append(f"LoadGen logged {len(detail.errors)} errors, the first: {detail.errors[0][:200]}")
    if detail.unreadable:
        found.append(f"{detail.unreadable} lines of the detail log cannot be read")
    if folder and logged and folder not in (logged, "Interactive"):
        found.append(f"the folder is called {folder}, the log says {logged}")
    if files.summary is None and files.detail is not None:
        found.append("there is no mlperf_log_summary.txt")
    return found


def _stale(metadata: Metadata, validity: str | None, metric: Metric | None) -> list[str]:
    found = []
    if validity and metadata.validity and metadata.validity != validity:
        found.append(f"metadata.json says {metadata.validity}, the log says {validity}; the log is taken")
    same = metric and metadata.metric and metadata.metric.name == metric.name
    if same and metric and metadata.metric and metadata.metric.value != metric.value:
        found.append(f"metadata.json says {metadata.metric.value}, the log says {metric.value}; the log is taken")
    return found


def _nothing_in(files: Files) -> str:
    if files.detail is not None:
        return "the detail log holds nothing of LoadGen's"
    return "the summary holds no verdict, and there is no detail log, metadata.json or accuracy.txt beside it"
