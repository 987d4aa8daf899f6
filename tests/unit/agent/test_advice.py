"""What is proposed for INVALID results: by hand for each rule, and for real logs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlperf_operator.agent.advice import advise
from mlperf_operator.results import LoadgenFacts, Metric, Percentile, Result, read_result

SAMPLES = Path(__file__).resolve().parents[4] / "shared/samples/results"
RATE = Metric("result_samples_per_second", 1000.0, "samples/s")


def _result(scenario: str = "Server", metric: Metric | None = RATE, **facts: Any) -> Result:
    return Result(path="", scenario=scenario, validity="INVALID", metric=metric, loadgen=LoadgenFacts(**facts))


def _p99(milliseconds: float) -> tuple[Percentile, ...]:
    return (Percentile(50.0, 1e6), Percentile(99.0, milliseconds * 1e6))


LIMIT: dict[str, Any] = {"target_qps": 24750.0, "target_latency_ns": 130e6, "target_latency_percentile": 0.99}
KEPT_UP: dict[str, Any] = {**LIMIT, "completed_samples_per_second": 24745.0}
SHORT: dict[str, Any] = {"min_duration_met": False}
RAN_OUT: dict[str, Any] = {"error_count": 1, "errors": ("Ending early: Ran out of generated queries to issue before",)}
EARLY: dict[str, Any] = {"recommendations": ("The test exited early, before enough queries were issued.",)}

TABLE: list[tuple[str, Result, str, int | str, str]] = [
    (
        "a server that falls behind",
        _result(**LIMIT, completed_samples_per_second=22000.0, latencies=_p99(900)),
        *("server_target_qps", 21300, "24750 queries/s arrived, 22000 were completed; proposed is 3 % below"),
    ),
    (
        "a tail that is a little late",
        _result(**KEPT_UP, latencies=_p99(140)),
        *("server_target_qps", 24200, "the 99th percentile took 140 ms of 130 ms allowed; proposed is 2 % below"),
    ),
    (
        "a tail that is late",
        _result(**KEPT_UP, latencies=_p99(200)),
        *("server_target_qps", 23500, "proposed is 5 % below the target rate"),
    ),
    (
        "a tail that is far too late",
        _result(**KEPT_UP, latencies=_p99(400)),
        *("server_target_qps", 22200, "proposed is 10 % below the target rate"),
    ),
    (
        "no percentile is named: Server's is the 99th",
        _result(**{**KEPT_UP, "target_latency_percentile": None}, latencies=_p99(400)),
        *("server_target_qps", 22200, "the 99th percentile took 400 ms"),
    ),
    (
        "only early stopping",
        _result(**KEPT_UP, latencies=_p99(129), early_stopping_met=False),
        *("server_target_qps", 24500, "too few queries in hand for early stopping"),
    ),
    (
        "a constraint that no number shows",
        _result(target_qps=100.0, performance_constraints_met=False),
        *("server_target_qps", 99, "proposed is 1 % below"),
    ),
    (
        "a slow server",
        _result(target_qps=2.5, completed_samples_per_second=1.2345),
        *("server_target_qps", "1.19", "the rate was too high"),
    ),
    (
        "a server's queries were over too soon",
        _result(**LIMIT, **SHORT),
        *("server_target_qps", 27300, "over before the minimum duration"),
    ),
    (
        "offline was faster than expected",
        _result("Offline", **SHORT, target_qps=900.0),
        *("offline_expected_qps", 1000, "expected rate of 900 samples/s was too low"),
    ),
    (
        "a stream was faster than expected",
        _result("SingleStream", **SHORT, **RAN_OUT, **EARLY, target_qps=500.0, latencies=(Percentile(50.0, 1.5e6),)),
        *("single_stream_expected_latency_ns", 1350000, "expected latency was too high (2e+06 ns)"),
    ),
    (
        "a server of a number that is none",
        _result(target_qps=1e-320, completed_samples_per_second=1e-321),
        *("", "", "the rate was too high"),
    ),
    ("nothing was completed", _result(target_qps=100.0, completed_samples_per_second=0.0), "", "", "0 were completed"),
    (
        "a server that was late and ended too soon",
        _result(**KEPT_UP, **SHORT, latencies=_p99(200)),
        *("server_target_qps", 23500, "proposed is 5 % below the target rate"),
    ),
    (
        "a server that missed a constraint and ended too soon",
        _result(target_qps=100.0, performance_constraints_met=False, **SHORT),
        *("server_target_qps", 99, "proposed is 1 % below"),
    ),
    ("errors", _result(error_count=3, errors=("boom", "bang")), "", "", "LoadGen logged 3 errors: boom"),
    ("errors that are only counted", _result(error_count=3), "", "", "LoadGen logged 3 errors"),
    ("an early exit", _result(**EARLY, **LIMIT), "", "", "stopped before enough queries were issued"),
    ("too few queries of a stream", _result("SingleStream", early_stopping_met=False), "", "", "raise min_query_count"),
]


@pytest.mark.parametrize(("case", "result", "field", "value", "word"), TABLE, ids=[row[0] for row in TABLE])
def test_advice_follows_from_loadgens_numbers(
    case: str, result: Result, field: str, value: int | str, word: str
) -> None:
    advice = advise(result)
    assert advice is not None, case
    assert (advice.field, advice.value) == (field, value)
    assert word in advice.why


@pytest.mark.parametrize(
    "result",
    [
        Result(path="", validity="VALID", loadgen=LoadgenFacts(error_count=1)),
        Result(path="", validity="INVALID"),
        _result(),
        _result(**KEPT_UP, latencies=_p99(100), early_stopping_met=True, performance_constraints_met=True),
        _result("Offline"),
        _result("Offline", None, **SHORT, target_qps=900.0),
        _result("Offline", **SHORT, target_qps=1000.0),
        _result("MultiStream", **SHORT, target_qps=12.5),
        _result("SingleStream", **SHORT, target_qps=12.5),
        _result("SingleStream", **SHORT),
        _result("SingleStream", **SHORT, target_qps=1000.0, latencies=(Percentile(50.0, 9e6),)),
        _result("SingleStream", **SHORT, target_qps=-1.0, latencies=(Percentile(50.0, 9e6),)),
        _result(target_qps=0.0, early_stopping_met=False),
    ],
    ids=str,
)
def test_where_the_numbers_show_nothing_nothing_is_proposed(result: Result) -> None:
    assert advise(result) is None


def test_the_override_stands_in_the_sentence_as_it_is_written_in_a_run() -> None:
    advice = advise(_result(target_qps=2.5, completed_samples_per_second=1.2345))
    assert advice is not None
    entry = '{benchmark: bert, scenario: Server, field: server_target_qps, value: "1.19"}'
    assert advice.sentence("bert", "Server").endswith(f"; try spec.gpuConfig.overrides {entry}")
    errors = advise(_result(error_count=1, errors=("boom",)))
    assert errors is not None
    assert errors.sentence("bert", "Server") == "LoadGen logged 1 errors: boom"


REAL: list[tuple[str, str, int | str]] = [
    (
        "v2.0/closed/Fujitsu/results/GX2570M6_A100-SXM4-40GBx8_TRT_MaxQ/rnnt/Server/performance/ranging",
        *("server_target_qps", 77900),
    ),
    (
        "v5.1/open/amitashnanda/documentation/macbook_m1pro/resnet50/offline/performance/run_1",
        *("offline_expected_qps", "58.9"),
    ),
    (
        "v3.0/closed/NVIDIA/compliance/A100-PCIe-80GBx1_TRT/3d-unet-99.9/SingleStream/TEST04-A/performance/run_1",
        *("single_stream_expected_latency_ns", 238000000),
    ),
]


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the samples of official results are not there")
@pytest.mark.parametrize(("path", "field", "value"), REAL, ids=[row[1] for row in REAL])
def test_real_invalid_logs_get_a_value_to_try(path: str, field: str, value: int | str) -> None:
    advice = advise(read_result(SAMPLES / path))
    assert advice is not None
    assert (advice.field, advice.value) == (field, value)
