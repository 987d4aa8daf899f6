"""One result from the files of a folder: the logs decide, metadata.json adds, and what differs is said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mlperf_operator.results.accuracy import merged_accuracy, parse_accuracy
from mlperf_operator.results.detail import DetailLog
from mlperf_operator.results.facts import EARLY_STOPPING_TEXTS, facts_of
from mlperf_operator.results.layout import Place, is_same_scenario, place_of, scenario_of, short_name
from mlperf_operator.results.metadata import Metadata
from mlperf_operator.results.metrics import metric_from_detail, metric_from_summary
from mlperf_operator.results.model import MIN_DURATION_MS, Accuracy, Metric, Mode, Result, ResultError, Validity
from mlperf_operator.results.notes import log_notes, metadata_notes, metric_note, summary_note
from mlperf_operator.results.summary import Summary


@dataclass(frozen=True)
class Files:
    """The parsed files of one folder; None where a file is missing.

    Attributes:
        path: The folder as it is shown.
        parts: Names of the folder and those above it, from the top.
        metadata_error: Why a metadata.json that is there cannot be read.
        pair_accuracy: accuracy.txt of the accuracy run that a submission pairs with this performance run.
    """

    path: str
    parts: Sequence[str]
    summary: Summary | None
    detail: DetailLog | None
    metadata: Metadata | None
    accuracy: str | None
    metadata_error: str | None = None
    pair_accuracy: str | None = None


@dataclass(frozen=True)
class Logged:
    """What LoadGen's own logs say."""

    summary: Summary
    detail: DetailLog
    scenario: str | None
    mode: Mode | None
    validity: Validity | None

    @property
    def is_submission_run(self) -> bool:
        """Whether LoadGen measured accuracy and performance in one go."""
        return self.detail.text("effective_test_mode", "requested_test_mode") == "SubmissionRun"


def merge(files: Files) -> Result:
    """Return the result of a folder.

    Raises:
        ResultError: its files hold none.
    """
    logged, metadata = _logged(files), files.metadata
    if metadata is None and files.accuracy is None and logged is None:
        raise ResultError(files.metadata_error or _nothing_in(files))
    logged = logged or Logged(Summary(), DetailLog({}), None, None, None)
    said = scenario_of(metadata.scenario) if metadata else None
    place = place_of(files.parts, logged.scenario or said)
    mode = logged.mode or mode_of(metadata.mode if metadata else None) or _mode_by_place(files, place)
    stale = metadata is not None and _is_of_another_run(metadata, files, logged)
    # What metadata.json alone knows is only taken when it is of the run that the log is of.
    extra = metadata if metadata is not None and not stale else None
    variant = (extra.variant if extra else None) or place.variant or (metadata.variant if metadata else None)
    is_performance = mode != "AccuracyOnly"
    validity = logged.validity or (extra.validity if extra else None)
    metric = _metric(logged, place.scenario) or (extra.metric if extra else None)
    accuracy, accuracy_notes = _accuracy(
        files, logged, variant, is_performance=is_performance, compliance=place.compliance
    )
    notes = [
        *_notes(files, logged, place, metric, has_verdict=is_performance and validity is not None),
        *([_OTHER_RUN] if stale else []),
        *accuracy_notes,
    ]
    return Result(
        path=files.path,
        benchmark=short_name(variant) or (metadata.benchmark if metadata else None),
        variant=variant,
        scenario=place.scenario or logged.scenario or said,
        mode=mode,
        validity=validity if is_performance else None,
        metric=metric if is_performance else None,
        accuracy=accuracy,
        config_name=extra.config_name if extra else None,
        early_stopping_met=_early_stopping(logged, extra) if is_performance else None,
        min_duration_met=_min_duration(logged, extra) if is_performance else None,
        harness_version=logged.detail.text("loadgen_version"),
        reason=_reason(logged, extra) if is_performance and validity == "INVALID" else None,
        loadgen=facts_of(logged.summary, logged.detail) if is_performance and logged.mode is not None else None,
        warnings=tuple(notes),
    )


def _notes(files: Files, logged: Logged, place: Place, metric: Metric | None, *, has_verdict: bool) -> list[str]:
    metadata, scenario = files.metadata, logged.scenario or place.scenario
    return [
        *([files.metadata_error] if files.metadata_error else []),
        *log_notes(files.summary, files.detail, place, logged.scenario),
        *(metadata_notes(metadata, logged.validity, metric, logged.detail, place.variant) if metadata else []),
        *summary_note(metric, metric_from_summary(scenario, logged.summary)),
        *(metric_note(metric, scenario, files.summary, files.detail) if has_verdict else []),
    ]


_OTHER_RUN = "metadata.json is of another run than the log, which is taken"
_OTHER_ACCURACY = "the accuracy is of another run than the log, which is of a performance run"


def _accuracy(
    files: Files, logged: Logged, variant: str | None, *, is_performance: bool, compliance: bool
) -> tuple[tuple[Accuracy, ...], list[str]]:
    said = files.metadata.accuracy if files.metadata else ()
    found, notes = merged_accuracy(files.accuracy, said, variant, compliance=compliance)
    # TEST01 measures performance and logs some of the answers in one run.
    if found and logged.mode == "PerformanceOnly" and not logged.is_submission_run and not compliance:
        notes = [_OTHER_ACCURACY, *notes]
    if not found and is_performance and files.pair_accuracy is not None:
        found = parse_accuracy(files.pair_accuracy, variant, compliance=compliance)
    return found, notes


def mode_of(text: str | None) -> Mode | None:
    """Return a test mode's official spelling; logs before 2021 say `Performance`."""
    if not text:
        return None
    return "AccuracyOnly" if text.lower().startswith("accuracy") else "PerformanceOnly"


def _logged(files: Files) -> Logged | None:
    summary, detail = files.summary or Summary(), files.detail or DetailLog({})
    if not detail.values and summary.validity is None and not summary.is_finished:
        return None
    words = {(detail.text("result_validity") or "").upper(), summary.validity}
    validity: Literal["VALID", "INVALID"] | None = (
        "INVALID" if "INVALID" in words else "VALID" if "VALID" in words else None
    )
    return Logged(
        summary,
        detail,
        scenario=scenario_of(detail.text("effective_scenario", "requested_scenario") or summary.scenario),
        mode=mode_of(detail.text("effective_test_mode", "requested_test_mode") or summary.mode)
        # The summary of an accuracy run holds only the closing count of warnings and errors.
        or ("PerformanceOnly" if validity else "AccuracyOnly" if summary.is_finished else None),
        validity=validity,
    )


def _mode_by_place(files: Files, place: Place) -> Mode | None:
    return "AccuracyOnly" if files.accuracy is not None or place.accuracy_run else None


def _is_of_another_run(metadata: Metadata, files: Files, logged: Logged) -> bool:
    has_log = files.summary is not None or files.detail is not None
    if has_log and logged.validity is None and metadata.validity is not None:
        # A run that has no verdict yet, or never got one, beside the verdict of an earlier one.
        return True
    mode, scenario = mode_of(metadata.mode), scenario_of(metadata.scenario)
    if mode and logged.mode and mode != logged.mode:
        return True
    return bool(scenario and logged.scenario and not is_same_scenario(scenario, logged.scenario))


def _metric(logged: Logged, by_folder: str | None) -> Metric | None:
    scenario = logged.scenario or by_folder
    return metric_from_detail(scenario, logged.detail, logged.summary) or metric_from_summary(scenario, logged.summary)


def _early_stopping(logged: Logged, metadata: Metadata | None) -> bool | None:
    for found in (logged.detail.flag("early_stopping_met"), logged.summary.early_stopping_met):
        if found is not None:
            return found
    return metadata.early_stopping_met if metadata else None


def _min_duration(logged: Logged, metadata: Metadata | None) -> bool | None:
    """Whether at least ten minutes were asked for and the run lasted as long as asked."""
    if logged.detail.flag("result_min_duration_met") is False or logged.summary.min_duration_met is False:
        return False
    for found in (
        logged.detail.number("effective_min_duration_ms"),
        logged.summary.min_duration_ms,
        metadata.min_duration_ms if metadata else None,
    ):
        if found is not None:
            return found >= MIN_DURATION_MS
    return None


def _reason(logged: Logged, metadata: Metadata | None) -> str | None:
    detail = logged.detail
    lines = logged.summary.reasons or tuple(
        " ".join(text.split()) for key in _REASON_KEYS if (text := detail.text(key)) is not None
    )
    if not lines and metadata is not None:
        lines = metadata.shortfalls
    return "; ".join(lines) or None


_REASON_KEYS = ("result_invalid_reason", *EARLY_STOPPING_TEXTS)


def _nothing_in(files: Files) -> str:
    if files.detail is not None:
        return "the logs hold nothing of LoadGen's"
    if files.summary is not None:
        return "the summary holds no verdict, and there is no detail log, metadata.json or accuracy.txt beside it"
    return "none of its files can be read as a file"
