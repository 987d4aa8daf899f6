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

from mlperf_operator.agent import audits, measured
from mlperf_operator.agent.causes import because, explain
from mlperf_operator.agent.publish import Publisher
from mlperf_operator.agent.wrapper.files import read_object, write_atomically
from mlperf_operator.api.v1alpha1 import AuditStatus, Cause, ResultStatus, TestMode, to_wire

POLL_SECONDS = 1.0

_OF_A_PAIR = ("benchmark", "variant", "scenario")


class Collector:
    """Reads the records of one run's harness steps and prints one line a result, again when it was measured again."""

    def __init__(self, plan: Mapping[str, Any]) -> None:
        self.uid: str = plan["run"]["uid"]
        self.expected: list[dict[str, Any]] = plan["expected"]
        self.audits: list[dict[str, Any]] = plan.get("expectedAudits", [])
        self.results = Path(plan["paths"]["results"])
        self._lines: dict[str, str] = {}
        """The last line of each step, in the order in which they were printed; report.py reads the log the same way."""
        self._verdicts: dict[str, str] = {}
        self._records: dict[str, dict[str, Any]] = {}
        self._publisher = Publisher(plan)

    def poll(self) -> None:
        """Report every result that has become known since the last time."""
        for entry in self.expected:
            record = self._record(entry)
            if record.get("reason") == "Completed" and record != self._records.get(entry["step"]):
                self._report(entry, record, measured.read(entry, record, self.results))

    def finish(self) -> None:
        """Account for what is still missing, close the report, and leave it on the volume too."""
        self.poll()
        for entry in self.expected:
            record = self._record(entry)
            if record != self._records.get(entry["step"]):
                self._report(entry, record, measured.missing(entry, explain(record)))
            elif self._is_of_another_engine(entry, record):
                self._report(entry, record, measured.missing(entry, because(Cause.OTHER_ENGINE)))
        for entry in self.audits:
            self._report_audit(entry, self._record(entry))
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
        # The report is out: manifest and copy, which may take minutes, are told in a second closing line.
        emit(json.dumps({**closing, "artifacts": self._publisher.close()}) + "\n")

    def _record(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        """Return the record of a step of this very run; empty when there is none."""
        record = read_object(self.results / "steps" / f"{entry['step']}.json")
        return record if record.get("uid") == self.uid else {}

    def _is_of_another_engine(self, entry: Mapping[str, Any], record: Mapping[str, Any]) -> bool:
        return entry.get("mode") != TestMode.PERFORMANCE and any(
            beside.get("reason") == "Completed" and beside.get("engines") != record.get("engines")
            for beside in self._performance_of(entry)
        )

    def _performance_of(self, entry: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the records of the performance of an entry's pair."""
        pair = [e for e in self.expected if all(e[key] == entry[key] for key in _OF_A_PAIR)]
        return [self._records.get(e["step"], {}) for e in pair if e["mode"] == TestMode.PERFORMANCE]

    def _report(self, entry: Mapping[str, Any], record: dict[str, Any], result: ResultStatus) -> None:
        try:
            line = self._line(entry, "result", result)
        except ValueError:
            result = measured.missing(entry, because(Cause.NO_RESULT, "the result holds a value that is no number"))
            line = self._line(entry, "result", result)
        self._print(entry, record, line, measured.verdict(result))
        if record.get("reason") == "Completed":
            self._publisher.measured(entry["logDir"])

    def _report_audit(self, entry: Mapping[str, Any], record: dict[str, Any]) -> None:
        audit = audits.judge(entry, record, self.results)
        if record.get("reason") == "Completed" and self._is_of_another_engine(entry, record):
            changes = {"passed": None, "message": because(Cause.OTHER_ENGINE).sentence}
            audit = audit.model_copy(update=changes)
        self._print(entry, record, self._line(entry, "audit", audit), audits.verdict(audit))

    def _print(self, entry: Mapping[str, Any], record: dict[str, Any], line: str, word: str) -> None:
        step = entry["step"]
        self._lines.pop(step, None)
        self._lines[step], self._records[step], self._verdicts[step] = line, record, word
        emit(line)

    def _line(self, entry: Mapping[str, Any], kind: str, content: ResultStatus | AuditStatus) -> str:
        body = {"kind": kind, "uid": self.uid, "step": entry["step"], kind: to_wire(content)}
        return json.dumps(body, allow_nan=False) + "\n"


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
