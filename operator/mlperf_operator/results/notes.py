"""What a reader of a result should know: errors in the logs, and where the files of a folder differ."""

from __future__ import annotations

import math

from mlperf_operator.results.detail import DetailLog
from mlperf_operator.results.layout import Place, is_same_scenario, short_name
from mlperf_operator.results.metadata import Metadata
from mlperf_operator.results.metrics import why_no_metric
from mlperf_operator.results.model import Metric, same
from mlperf_operator.results.summary import Summary


def log_notes(summary: Summary | None, detail: DetailLog | None, place: Place, logged: str | None) -> list[str]:
    """Return what LoadGen's logs leave open, one sentence each."""
    found = []
    if place.ranging:
        found.append("this is the ranging run of a power measurement, no result")
    if place.scenario and logged and not is_same_scenario(place.scenario, logged):
        found.append(f"the folder is called {place.scenario}, the log says {logged}")
    if detail is None:
        return found
    if detail.error_count:
        found.append(f"LoadGen logged errors ({detail.error_count}), the first: {detail.errors[0][:200]}")
    if detail.unreadable:
        found.append(f"{detail.unreadable} lines of the detail log cannot be read")
    if detail.is_old_format and not detail.values:
        found.append("the detail log has LoadGen's format from before 2021; only the summary is read")
    if summary is None:
        found.append("there is no mlperf_log_summary.txt")
    return [*found, *_unfinished(summary, detail)]


def _unfinished(summary: Summary | None, detail: DetailLog) -> list[str]:
    word = (detail.text("result_validity") or "").upper() or None
    if summary is not None and summary.validity and word and summary.validity != word:
        return [f"the summary says {summary.validity}, the detail log {word}; taken as INVALID"]
    mode = detail.text("effective_test_mode", "requested_test_mode")
    if mode not in (None, "PerformanceOnly", "AccuracyOnly"):
        return [f"the log is of test mode {mode}"]
    if mode == "PerformanceOnly" and word is None and (summary is None or summary.validity is None):
        return ["there is no verdict: the run did not finish"]
    return []


def metric_note(
    metric: Metric | None, scenario: str | None, summary: Summary | None, detail: DetailLog | None
) -> list[str]:
    """Return why a performance run has no primary metric, or its metric no value; nothing where it has one."""
    if metric is not None and metric.value is not None:
        return []
    if metric is not None:
        return [
            f"there is no primary metric: LoadGen gives no estimate ({metric.name}), too few queries were processed"
        ]
    if summary is None and detail is None:
        return ["there is no primary metric: metadata.json has no number under the key that scenario_key names"]
    why = why_no_metric(scenario, detail or DetailLog({}), summary or Summary())
    return [f"there is no primary metric: {why}"]


def summary_note(metric: Metric | None, headline: Metric | None) -> list[str]:
    """Return where the two logs name different numbers, as those of two runs in one folder do."""
    if metric is None or headline is None or metric.value is None or headline.value is None:
        return []
    # A summary prints two places, or six digits.
    close = math.isclose(metric.value, headline.value, rel_tol=0.001, abs_tol=0.01)
    if close or metric.unit != headline.unit:
        return []
    said = f"the summary says {headline.name} {headline.value:.10g}"
    return [f"{said}, the detail log {metric.value:.10g}, which is taken"]


def metadata_notes(
    metadata: Metadata, validity: str | None, metric: Metric | None, detail: DetailLog, variant: str | None
) -> list[str]:
    """Return where metadata.json contradicts itself, the log or the folder, one sentence each."""
    found = list(metadata.notes)
    if validity and metadata.validity and metadata.validity != validity:
        found.append(f"metadata.json says {metadata.validity}, the log says {validity}; the log is taken")
    said = metadata.metric
    logged = None
    if said is not None:
        logged = detail.number(said.name)
        if logged is None and metric is not None and metric.name == said.name:
            logged = metric.value
    if said is not None and said.value is not None and logged and not same(said.value, logged):
        found.append(f"metadata.json says {said.name} {said.value:g}, the log says {logged:g}; the log is taken")
    if variant and metadata.variant and variant not in (metadata.variant, short_name(metadata.variant)):
        found.append(f"the folder is called {variant}, metadata.json says {metadata.variant}")
    return found
