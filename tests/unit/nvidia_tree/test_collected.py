"""What the stand-in tree measures with MLCommons' LoadGen is taken, and only for what it is."""

from __future__ import annotations

from typing import Any

import pytest

from mlperf_operator.agent import measured
from mlperf_operator.api.v1alpha1 import Cause, ResultStatus
from unit.nvidia_tree.bench import Bench, overrides

BERT = ("bert/Offline", "bert-99")
UNET = ("3d-unet/Offline", "3d-unet-99")
MAX_Q: dict[str, Any] = {
    "powerSetting": "MaxQ",
    "benchmarks": [{"name": "3d-unet", "scenarios": ["Offline"]}],
    "gpuConfig": {"overrides": [o for o in overrides() if (o["benchmark"], o["scenario"]) == ("3d-unet", "Offline")]},
}


def _collected(ready: Bench, pair: str, variant: str, mode: str, **asked: str) -> ResultStatus:
    benchmark, scenario = pair.split("/")
    entry = {"benchmark": benchmark, "variant": variant, "scenario": scenario, "mode": mode, "logDir": str(ready.logs)}
    return measured.read({**entry, **asked}, {}, ready.logs.parent)


@pytest.mark.parametrize("mode", ["PerformanceOnly", "AccuracyOnly"])
@pytest.mark.parametrize(("pair", "variant"), [BERT, UNET])
def test_a_result_is_taken_for_what_was_asked_for(ready: Bench, pair: str, variant: str, mode: str) -> None:
    ready.measure(pair, mode)
    found = _collected(ready, pair, variant, mode)
    assert (found.missing, found.variant) == (None, variant)
    other = _collected(ready, pair, f"{variant}.9", mode)
    assert (other.validity, other.accuracy, other.cause) == (None, [], Cause.NO_RESULT)


def test_a_power_setting_is_taken_for_that_alone(ready: Bench) -> None:
    ready.render(**MAX_Q)
    ended = ready.measure(UNET[0], config_ver="maxq", power_setting="MaxQ")
    assert ended.returncode == 0, ended.stdout
    assert _collected(ready, *UNET, "PerformanceOnly", powerSetting="MaxQ").validity == "VALID"
    assert "_MaxQ-Offline, asked for was 99 MaxP" in str(_collected(ready, *UNET, "PerformanceOnly").missing)
