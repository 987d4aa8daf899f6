"""The operator's own figures: what the files hold, and how a result is held against them."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from mlperf_operator.api.v1alpha1 import PowerSetting, ResultStatus
from mlperf_operator.suites import BUILT_IN
from mlperf_operator.verdicts.baseline import Baseline, compare, load_baselines
from unit.core.builders import result

RATE: dict[str, Any] = {
    "variant": "bert-99",
    "scenario": "Offline",
    "metric": "result_samples_per_second",
    "unit": "samples/s",
    "low": 100,
    "high": 120,
    "origin": "v9.9 Somebody 100",
}
LATENCY: dict[str, Any] = {**RATE, "scenario": "SingleStream", "metric": "early_stopping_latency_ss", "unit": "ns"}


def _baseline(*figures: dict[str, Any]) -> Baseline:
    return Baseline.model_validate({"system": "S", "suites": ["s"], "figures": figures})


def _result(value: float, figure: dict[str, Any], **fields: Any) -> ResultStatus:
    metric = {"name": figure["metric"], "value": value, "unit": figure["unit"]}
    return ResultStatus.model_validate(result(figure["scenario"], variant="bert-99", **{"metric": metric, **fields}))


@pytest.mark.parametrize(
    ("figure", "value", "met"),
    [(RATE, 90.0, True), (RATE, 89.9, False), (RATE, 999.0, True), (LATENCY, 132.0, True), (LATENCY, 132.1, False)],
)
def test_a_result_may_be_slower_than_the_slowest_by_the_tolerance(
    figure: dict[str, Any], value: float, met: bool
) -> None:
    found = compare(_baseline(RATE, LATENCY), _result(value, figure), PowerSetting.MAX_P, 10)
    assert found.is_met is met


def test_a_shortfall_names_value_figure_percent_and_origin() -> None:
    slow = compare(_baseline(RATE, LATENCY), _result(33.3, RATE), PowerSetting.MAX_P, 10)
    told = "bert-99 Offline: 33.3 samples/s is 67 % below the 100 that such a system reached officially"
    assert slow.shortfall() == f"{told} (v9.9 Somebody 100)"
    late = compare(_baseline(RATE, LATENCY), _result(360.0, LATENCY), PowerSetting.MAX_P, 10)
    assert "360 ns is 200 % above the 120 that" in late.shortfall()


def test_without_a_figure_or_a_valid_value_nothing_is_said() -> None:
    for found in (
        compare(_baseline(LATENCY), _result(33.3, RATE), PowerSetting.MAX_P, 10),
        compare(_baseline(RATE), _result(33.3, RATE), PowerSetting.MAX_Q, 10),
        compare(_baseline(RATE), _result(33.3, RATE, validity="INVALID"), PowerSetting.MAX_P, 10),
        compare(_baseline(RATE), _result(33.3, RATE, metric=None), PowerSetting.MAX_P, 10),
    ):
        assert (found.is_met, found.shortfall()) == (None, "")


def test_a_number_of_another_name_leaves_the_figure_uncompared() -> None:
    other = {"name": "Samples per second", "value": 1.0, "unit": "samples/s"}
    found = compare(_baseline(RATE), _result(33.3, RATE, metric=other), PowerSetting.MAX_P, 10)
    assert found.figure is not None
    assert (found.value, found.is_met, found.shortfall()) == (None, None, "")


@pytest.mark.parametrize(
    ("figures", "why"),
    [
        ([{**RATE, "low": 121}], "low must not be above high"),
        ([RATE, RATE], "two figures are of the same"),
        ([{**RATE, "unit": "F1"}], "unit"),
        ([{**RATE, "low": 0}], "low"),
        ([{**RATE, "origin": ""}], "origin"),
        ([], "figures"),
    ],
)
def test_figures_that_cannot_be_are_refused(figures: list[dict[str, Any]], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        _baseline(*figures)


def test_the_figures_of_the_package_are_of_pairs_that_their_suites_have() -> None:
    for system, baseline in load_baselines().items():
        assert baseline.system == system
        for suite in (BUILT_IN[name] for name in baseline.suites):
            assert system in suite.systems
            for figure in baseline.figures:
                owner = next(b for b in suite.benchmarks.values() if figure.variant in b.variants.values())
                assert figure.scenario in owner.scenarios
                if figure.power_setting is PowerSetting.MAX_Q:
                    assert figure.scenario in owner.max_q_scenarios


def test_the_official_results_of_eight_a100_are_there() -> None:
    figures = load_baselines()["A100_SXM4_40GBx8"].figures
    found = {(f.variant, f.scenario.value): (f.low, f.high) for f in figures if f.power_setting is PowerSetting.MAX_P}
    official = {
        ("bert-99", "Offline"): (27385, 28524),
        ("bert-99", "Server"): (21991, 25492),
        ("bert-99.9", "Offline"): (13632, 13785),
        ("bert-99.9", "Server"): (11500, 11500),
        ("3d-unet-99", "Offline"): (23.9, 24.0),
    }
    assert {pair: found[pair] for pair in official} == official
