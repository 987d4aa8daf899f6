"""What one harness step measured, as the run's status shows it: a result, or why there is none."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from mlperf_operator.agent.advice import advise
from mlperf_operator.agent.causes import Explained, because
from mlperf_operator.agent.doubts import doubt, held
from mlperf_operator.api.v1alpha1 import MAX_MESSAGE, AccuracyItem, Cause, Metric, ResultStatus, TestMode, Validity
from mlperf_operator.results import Result, find_results
from mlperf_operator.results.files import Confined
from mlperf_operator.results.whole import begin_of, cut_short, older_than_its_log

_MAX_REASON = 560
"""Of LoadGen's reason, so that the advice behind it is not cut off."""

_CLOCK = timedelta(minutes=2)
"""By how much LoadGen's clock may be behind that of the stage wrapper."""


def missing(entry: Mapping[str, Any], why: Explained) -> ResultStatus:
    """Return the entry of a result that is not there."""
    return ResultStatus(
        benchmark=entry["benchmark"],
        variant=entry["variant"],
        scenario=entry["scenario"],
        mode=TestMode(entry["mode"]),
        cause=why.cause,
        missing=why.sentence,
    )


def read(entry: Mapping[str, Any], record: Mapping[str, Any], results: Path) -> ResultStatus:
    """Return what the logs of a step say; whatever is in them costs this entry at most."""
    try:
        return _parse(entry, record, results)
    except Exception as error:  # noqa: BLE001 - files of any content must cost one entry, never the report
        return missing(entry, because(Cause.NO_RESULT, f"the result cannot be read: {type(error).__name__}: {error}"))


def _parse(entry: Mapping[str, Any], record: Mapping[str, Any], results: Path) -> ResultStatus:
    log_dir, files = Path(entry["logDir"]), Confined(results)
    found = list(find_results(log_dir, files))
    readable = [result for result in found if not result.error]
    good = [result for result in readable if result.mode == entry["mode"]]
    if len(good) != 1 or len(readable) != 1:
        errors = [f"; {result.path}: {result.error}" for result in found if result.error]
        others = f", {len(readable) - len(good)} of another mode" if len(readable) != len(good) else ""
        text = f"{len(good)} results in {log_dir}{others}, expected one{''.join(errors)}"
        return missing(entry, because(Cause.PARTIAL_LOGS if errors and not good else Cause.NO_RESULT, text))
    why = _distrust(entry, record, log_dir / good[0].path, files) or doubt(entry, good[0], log_dir, files)
    if why is not None:
        return missing(entry, why)
    return to_status(entry, good[0], str(log_dir.relative_to(results)), engine_digest(record))


def _distrust(entry: Mapping[str, Any], record: Mapping[str, Any], folder: Path, files: Confined) -> Explained | None:
    """Return why the logs in a folder cannot be this step's whole result."""
    cut = cut_short(folder, "AccuracyOnly" if entry["mode"] == TestMode.ACCURACY else "PerformanceOnly", files)
    if cut is not None:
        return because(Cause.PARTIAL_LOGS, cut)
    begin, started = begin_of(folder, files), _moment(record.get("startedAt"))
    for what, said in (("scenario", begin.scenario), ("mode", begin.mode)):
        if said not in (None, entry[what]):
            return because(Cause.NO_RESULT, f"LoadGen's log is of {what} {said}, asked for was {entry[what]}")
    if begin.at is not None and started is not None and begin.at < started - _CLOCK:
        text = f"LoadGen's log is of {begin.at:%Y-%m-%d %H:%M:%S} UTC, the step began {started:%Y-%m-%d %H:%M:%S}"
        return because(Cause.STALE_LOGS, text)
    old = older_than_its_log(folder, files)
    return because(Cause.STALE_LOGS, f"{old} is older than LoadGen's log beside it") if old is not None else None


def _moment(text: object) -> datetime | None:
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def engine_digest(record: Mapping[str, Any]) -> str | None:
    """Return the sha256 over the names and digests of the engines that a step used; None when it used none."""
    engines = record.get("engines")
    if not isinstance(engines, dict) or not engines:
        return None
    return hashlib.sha256(json.dumps(engines, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def to_status(entry: Mapping[str, Any], result: Result, logs: str, engines: str | None = None) -> ResultStatus:
    """Return a result as the run's status shows it; one that is not what was asked for is missing."""
    asked, found = (entry["variant"], entry["scenario"]), (result.variant, result.scenario)
    if asked != found:
        text = f"the logs are of {found[0]} {found[1]}, asked for was {asked[0]} {asked[1]}"
        return missing(entry, because(Cause.NO_RESULT, text))
    if entry["mode"] == TestMode.PERFORMANCE and result.validity is None:
        return missing(entry, because(Cause.PARTIAL_LOGS, "; ".join(("there is no verdict", *result.warnings))))
    if entry["mode"] == TestMode.ACCURACY and not result.accuracy:
        return missing(entry, because(Cause.ACCURACY_SCRIPT_FAILED, "; ".join(result.warnings)))
    metric = result.metric
    return ResultStatus(
        benchmark=entry["benchmark"],
        variant=entry["variant"],
        scenario=entry["scenario"],
        mode=TestMode(entry["mode"]),
        validity=Validity(result.validity) if result.validity else None,
        metric=Metric(name=metric.name, value=metric.value, unit=metric.unit)
        if metric is not None and metric.value is not None
        else None,
        accuracy=[
            AccuracyItem(name=item.name, value=item.value, threshold=item.threshold, passed=item.passed)
            for item in (held(found, entry["variant"]) for found in result.accuracy)
        ],
        config_name=result.config_name,
        early_stopping_met=result.early_stopping_met,
        min_duration_met=result.min_duration_met if result.mode == "PerformanceOnly" else None,
        harness_version=result.harness_version,
        logs=logs,
        engine_digest=engines,
        message=_message(entry, result),
    )


def _message(entry: Mapping[str, Any], result: Result) -> str:
    """Return LoadGen's reason for INVALID, what to set instead, and what else a reader should know."""
    advice = advise(result)
    parts = [
        *([result.reason[:_MAX_REASON]] if result.reason else []),
        *([advice.sentence(entry["benchmark"], entry["scenario"])] if advice is not None else []),
        *result.warnings,
    ]
    return "; ".join(parts)[:MAX_MESSAGE]


def verdict(result: ResultStatus) -> str:
    """Return a result's verdict in one word, for the counts of the termination message."""
    if result.missing is not None:
        return "MISSING"
    if result.mode is TestMode.PERFORMANCE:
        return result.validity.value if result.validity else "MISSING"
    if not result.accuracy or any(item.passed is None for item in result.accuracy):
        return "UNJUDGED"
    return "PASSED" if all(item.passed for item in result.accuracy) else "FAILED"
