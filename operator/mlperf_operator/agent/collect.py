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
MAX_MESSAGE = 1000


class Collector:
    """Reads the records of one run's harness steps and prints one line a result."""

    def __init__(self, plan: Mapping[str, Any]) -> None:
        self.uid: str = plan["run"]["uid"]
        self.expected: list[dict[str, Any]] = plan["expected"]
        self.results = Path(plan["paths"]["results"])
        self.lines: list[str] = []
        self.verdicts: Counter[str] = Counter()
        self._seen: set[str] = set()

    def poll(self) -> None:
        """Report every result that has become known since the last time."""
        for entry in self.expected:
            step = entry["step"]
            record = read_object(self.results / "steps" / f"{step}.json")
            if step not in self._seen and record.get("uid") == self.uid and record.get("reason") == "Completed":
                self._report(step, self._read(entry))

    def finish(self) -> None:
        """Account for what is still missing, close the report, and leave it on the volume too."""
        self.poll()
        for entry in self.expected:
            if entry["step"] not in self._seen:
                self._report(entry["step"], missing(entry, self._cause(entry)))
        sha256 = hashlib.sha256("".join(self.lines).encode()).hexdigest()
        closing = {"kind": "report", "uid": self.uid, "count": len(self.lines), "sha256": sha256}
        write_atomically(self.results / "report.json", json.dumps({**closing, "lines": self.lines}))
        emit(json.dumps(closing) + "\n")
        tell({**closing, "verdicts": dict(self.verdicts)})

    def _cause(self, entry: Mapping[str, Any]) -> str:
        record = read_object(self.results / "steps" / f"{entry['step']}.json")
        if record.get("uid") != self.uid:
            return "the run ended before this was measured"
        return str(record.get("message") or record.get("reason"))

    def _read(self, entry: Mapping[str, Any]) -> ResultStatus:
        log_dir = Path(entry["logDir"])
        found = [r for r in find_results(log_dir) if r.mode == entry["mode"] or r.error]
        if len(found) != 1:
            return missing(entry, f"{len(found)} results in {log_dir}, expected one")
        if found[0].error:
            return missing(entry, f"the result cannot be read: {found[0].error}")
        return to_status(entry, found[0], str(log_dir.relative_to(self.results)))

    def _report(self, step: str, result: ResultStatus) -> None:
        self._seen.add(step)
        self.verdicts[verdict(result)] += 1
        line = json.dumps({"kind": "result", "uid": self.uid, "step": step, "result": to_wire(result)}) + "\n"
        self.lines.append(line)
        emit(line)


def missing(entry: Mapping[str, Any], cause: str) -> ResultStatus:
    """Return the entry of a result that is not there."""
    return ResultStatus(
        benchmark=entry["benchmark"],
        variant=entry["variant"],
        scenario=entry["scenario"],
        mode=TestMode(entry["mode"]),
        missing=cause,
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
    path.write_text(json.dumps(message)[:MAX_MESSAGE])


def main(argv: list[str]) -> int:
    """Collect until SIGTERM, or once."""
    collector = Collector(json.loads(Path(os.environ.get("MLPERF_PLAN", "/agent/plan.json")).read_text()))
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    while "--once" not in argv and not stopped.wait(POLL_SECONDS):
        collector.poll()
    collector.finish()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
