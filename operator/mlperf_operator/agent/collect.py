"""`collect`: the sidecar that parses results as they appear and reports them in its log and termination message.

It runs in the operator's image, sees this run's results and its plan and nothing else, and has no API rights.
Usage: python -m mlperf_operator.agent.collect [--once]
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlperf_operator.agent.stage import read_object, write_atomically
from mlperf_operator.api.v1alpha1 import AccuracyItem, Metric, ResultStatus, TestMode, Validity, to_wire
from mlperf_operator.results import Result, find_results

POLL_SECONDS = 1.0
MAX_CAUSE = 1024
"""Longest cause of a missing result, in characters."""


class Collector:
    """Reads the records of one run's harness steps and prints one line a result, again when it was measured again."""

    def __init__(self, plan: Mapping[str, Any]) -> None:
        self.uid: str = plan["run"]["uid"]
        self.expected: list[dict[str, Any]] = plan["expected"]
        self.results = Path(plan["paths"]["results"])
        self._lines: dict[str, str] = {}
        """The last line of each step, in the order in which they were printed; report.py reads the log the same way."""
        self._verdicts: dict[str, str] = {}
        self._records: dict[str, dict[str, Any]] = {}

    def poll(self) -> None:
        """Report every result that has become known since the last time."""
        for entry in self.expected:
            record = self._record(entry)
            if record.get("reason") == "Completed" and record != self._records.get(entry["step"]):
                self._report(entry, record, self._read(entry))

    def finish(self) -> None:
        """Account for what is still missing, close the report, and leave it on the volume too."""
        self.poll()
        for entry in self.expected:
            record = self._record(entry)
            if record != self._records.get(entry["step"]):
                self._report(entry, record, missing(entry, _cause(record)))
            elif self._is_of_another_engine(entry, record):
                text = "was measured with another engine than the performance; create the run anew"
                self._report(entry, record, missing(entry, text))
        sha256 = hashlib.sha256("".join(self._lines.values()).encode()).hexdigest()
        closing = {"kind": "report", "uid": self.uid, "count": len(self._lines), "sha256": sha256}
        emit(json.dumps(closing) + "\n")
        tell({**closing, "verdicts": dict(Counter(self._verdicts.values()))})
        try:
            text = json.dumps({**closing, "lines": list(self._lines.values())})
            write_atomically(self.results / "report.json", text)
        except OSError as error:
            # The log and the termination message have it.
            print(f"report.json cannot be written: {error}", file=sys.stderr)

    def _record(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        """Return the record of a step of this very run; empty when there is none."""
        record = read_object(self.results / "steps" / f"{entry['step']}.json")
        return record if record.get("uid") == self.uid else {}

    def _is_of_another_engine(self, entry: Mapping[str, Any], record: Mapping[str, Any]) -> bool:
        if entry["mode"] != TestMode.ACCURACY:
            return False
        pair = [e for e in self.expected if all(e[key] == entry[key] for key in ("benchmark", "variant", "scenario"))]
        beside = [self._records.get(e["step"], {}) for e in pair if e["mode"] == TestMode.PERFORMANCE]
        return any(r.get("reason") == "Completed" and r.get("engines") != record.get("engines") for r in beside)

    def _read(self, entry: Mapping[str, Any]) -> ResultStatus:
        try:
            return self._parse(entry)
        except Exception as error:  # noqa: BLE001 - files of any content must cost one entry, never the report
            return missing(entry, f"the result cannot be read: {type(error).__name__}: {error}")

    def _parse(self, entry: Mapping[str, Any]) -> ResultStatus:
        log_dir = Path(entry["logDir"])
        found = list(find_results(log_dir))
        good = [result for result in found if result.mode == entry["mode"] and not result.error]
        if len(good) == 1:
            return to_status(entry, good[0], str(log_dir.relative_to(self.results)))
        errors = [f"; {result.path}: {result.error}" for result in found if result.error]
        return missing(entry, f"{len(good)} results in {log_dir}, expected one{''.join(errors)}")

    def _report(self, entry: Mapping[str, Any], record: dict[str, Any], result: ResultStatus) -> None:
        step = entry["step"]
        try:
            line = self._line(step, result)
        except ValueError:
            result = missing(entry, "the result holds a value that is no number")
            line = self._line(step, result)
        self._lines.pop(step, None)
        self._lines[step], self._records[step], self._verdicts[step] = line, record, verdict(result)
        emit(line)

    def _line(self, step: str, result: ResultStatus) -> str:
        content = {"kind": "result", "uid": self.uid, "step": step, "result": to_wire(result)}
        return json.dumps(content, allow_nan=False) + "\n"


def _cause(record: Mapping[str, Any]) -> str:
    return str(record.get("message") or record.get("reason") or "the run ended before this was measured")


def missing(entry: Mapping[str, Any], cause: str) -> ResultStatus:
    """Return the entry of a result that is not there."""
    return ResultStatus(
        benchmark=entry["benchmark"],
        variant=entry["variant"],
        scenario=entry["scenario"],
        mode=TestMode(entry["mode"]),
        missing=" ".join(cause.split())[:MAX_CAUSE],
    )


def to_status(entry: Mapping[str, Any], result: Result, logs: str) -> ResultStatus:
    """Return a result as the run's status shows it; one that is not what was asked for is missing."""
    asked, found = (entry["variant"], entry["scenario"]), (result.variant, result.scenario)
    if asked != found:
        return missing(entry, f"the logs are of {found[0]} {found[1]}, asked for was {asked[0]} {asked[1]}")
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
            for item in result.accuracy
        ],
        config_name=result.config_name,
        early_stopping_met=result.early_stopping_met,
        min_duration_met=result.min_duration_met if result.mode == "PerformanceOnly" else None,
        harness_version=result.harness_version,
        logs=logs,
        message="; ".join([*([result.reason] if result.reason else []), *result.warnings])[:1024],
    )


def verdict(result: ResultStatus) -> str:
    """Return a result's verdict in one word, for the counts of the termination message."""
    if result.missing is not None:
        return "MISSING"
    if result.mode is TestMode.PERFORMANCE:
        return result.validity.value if result.validity else "MISSING"
    if not result.accuracy or any(item.passed is None for item in result.accuracy):
        return "UNJUDGED"
    return "PASSED" if all(item.passed for item in result.accuracy) else "FAILED"


def emit(line: str) -> None:
    """Write one line of the log, which is the report."""
    sys.stdout.write(line)
    sys.stdout.flush()


def tell(message: Mapping[str, Any]) -> None:
    """Write the termination message."""
    path = Path(os.environ.get("MLPERF_TERMINATION_LOG", "/dev/termination-log"))
    path.write_text(json.dumps(message))


def main(argv: list[str]) -> int:
    """Collect until SIGTERM, or once."""
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    collector = Collector(json.loads(Path(os.environ.get("MLPERF_PLAN", "/agent/plan.json")).read_text()))
    while "--once" not in argv and not stopped.wait(POLL_SECONDS):
        collector.poll()
    collector.finish()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
