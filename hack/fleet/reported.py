"""What `collect` of every run of the fleet reports: one VALID performance and one passed accuracy of bert, Offline."""

from __future__ import annotations

import json
import re

from mlperf_operator.api.v1alpha1 import (
    AccuracyItem,
    Metric,
    ResultStatus,
    Scenario,
    TestMode,
    Validity,
    to_wire,
)

UID = "UID-OF-THE-RUN"
"""Stands for the run's uid in LINES."""

_FIGURE = 27500.5
FIGURE = str(_FIGURE)
"""Stands for the run's figure in LINES."""

FIGURE_DIGITS = 8

BENCHMARK, SCENARIO = "bert", Scenario.OFFLINE
_ENGINES = "5d" * 32
_MANIFEST = "a7" * 32


def _results() -> list[ResultStatus]:
    base = ResultStatus(
        benchmark=BENCHMARK,
        variant="bert-99",
        scenario=SCENARIO.value,
        mode=TestMode.PERFORMANCE,
        validity=Validity.VALID,
        metric=Metric(name="result_samples_per_second", value=_FIGURE, unit="samples/s"),
        config_name="A100-SXM4-40GBx8_bert_Offline",
        early_stopping_met=True,
        min_duration_met=True,
        harness_version="4.1",
        logs="logs/performance",
        engine_digest=_ENGINES,
    )
    accuracy = {
        "mode": TestMode.ACCURACY,
        "validity": None,
        "metric": None,
        "accuracy": [AccuracyItem(name="F1", value=90.39, threshold=89.96, passed=True)],
        "early_stopping_met": None,
        "min_duration_met": None,
        "logs": "logs/accuracy",
    }
    return [base, base.model_copy(update=accuracy)]


def _line(result: ResultStatus) -> str:
    step = f"run_harness-{result.benchmark}-{result.scenario}-{result.mode}"
    return json.dumps({"kind": "result", "uid": UID, "step": step, "result": to_wire(result)}) + "\n"


LINES = "".join(_line(result) for result in _results())
"""The lines that the report's digest covers, as collect prints them."""

COUNT = LINES.count("\n")
VERDICTS = {"VALID": 1, "PASSED": 1}
ARTIFACTS = {"manifestSha256": _MANIFEST}


def figure(uid: str) -> float:
    """Return the performance that the run of a uid measures, made of the uid's digits: no two runs have the same."""
    return float(_figure(uid))


def _figure(uid: str) -> str:
    return "1" + re.sub(r"[^0-9]", "", uid)[:FIGURE_DIGITS] + ".5"


def lines(uid: str) -> str:
    """Return the lines of a run that the report's digest covers; stages.py makes the same in KWOK's template."""
    return LINES.replace(UID, uid).replace(FIGURE, _figure(uid))


def log(uid: str, sha256: str) -> str:
    """Return collect's whole log of a run."""
    closing = {"kind": "report", "uid": uid, "count": COUNT, "sha256": sha256}
    last = [json.dumps(closing), json.dumps({**closing, "artifacts": ARTIFACTS})]
    return lines(uid) + "\n".join(last) + "\n"
