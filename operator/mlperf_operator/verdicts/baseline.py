"""The operator's own figures for a system: baselines/*.yaml, and how a result is held against them, pure.

A VALID result may be slow: an official VALID 3d-unet run was three times slower than its peers. So results are
compared with what such systems officially reached, unless spec.baseline says Ignore.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal

import yaml
from pydantic import Field, model_validator

from mlperf_operator.api.v1alpha1 import PowerSetting, ResultStatus, Scenario, Validity
from mlperf_operator.models import Strict


class Figure(Strict):
    """What systems of one kind officially reached for one pair."""

    variant: str = Field(description="Benchmark with its accuracy target, such as bert-99.9.")
    scenario: Scenario = Field(description="LoadGen scenario.")
    power_setting: PowerSetting = Field(default=PowerSetting.MAX_P, description="NVIDIA's power setting.")
    metric: str = Field(description="Name of the primary metric, as status.results has it.")
    unit: Literal["samples/s", "tokens/s", "ns"] = Field(description="Its unit: a rate, or a latency in ns.")
    low: float = Field(gt=0, description="Smallest of the official results.")
    high: float = Field(gt=0, description="Largest of the official results.")
    origin: str = Field(min_length=10, description="Which official results: version, submitter, system, value.")

    @model_validator(mode="after")
    def _in_order(self) -> Figure:
        if self.low > self.high:
            msg = "low must not be above high"
            raise ValueError(msg)
        return self

    @property
    def is_latency(self) -> bool:
        """Whether less is better."""
        return self.unit == "ns"

    @property
    def slowest(self) -> float:
        """The slowest of the official results, in `unit`."""
        return self.high if self.is_latency else self.low

    def limit(self, tolerance_percent: int) -> float:
        """Return how slow a result may be, in `unit`."""
        share = tolerance_percent / 100
        return self.slowest * (1 + share if self.is_latency else 1 - share)


class Baseline(Strict):
    """A file of baselines/."""

    system: str = Field(description="System under test.")
    suites: tuple[str, ...] = Field(min_length=1, description="Suites whose results may be compared with the figures.")
    figures: tuple[Figure, ...] = Field(min_length=1, description="The figures.")

    @model_validator(mode="after")
    def _one_for_each_pair(self) -> Baseline:
        keys = [(f.variant, f.scenario, f.power_setting, f.metric) for f in self.figures]
        if len(set(keys)) != len(keys):
            msg = "two figures are of the same variant, scenario, power setting and metric"
            raise ValueError(msg)
        return self


@cache
def load_baselines() -> Mapping[str, Baseline]:
    """Return the operator's own figures by system."""
    folder = resources.files("mlperf_operator.verdicts").joinpath("baselines")
    texts = [file.read_text(encoding="utf-8") for file in folder.iterdir() if file.name.endswith(".yaml")]
    found = [Baseline.model_validate(yaml.safe_load(text)) for text in texts]
    return {baseline.system: baseline for baseline in found}


@dataclass(frozen=True)
class Comparison:
    """A result against its figure; without a figure, or without a value, nothing can be said."""

    label: str
    figure: Figure | None = None
    value: float | None = None
    limit: float = 0.0

    @property
    def is_met(self) -> bool | None:
        """Whether the result is fast enough; None when that cannot be said."""
        if self.figure is None or self.value is None:
            return None
        return self.value <= self.limit if self.figure.is_latency else self.value >= self.limit

    def shortfall(self) -> str:
        """Return how far a result that is too slow is from its figure, where that comes from and where to look."""
        if self.figure is None or self.value is None:
            return ""
        percent = 100 * abs(self.value / self.figure.slowest - 1)
        word = "above" if self.figure.is_latency else "below"
        return (
            f"{self.label}: {self.value:g} {self.figure.unit} is {percent:.0f} % {word} the {self.figure.slowest:g} "
            f"that such a system reached officially ({self.figure.origin})"
        )


def compare(baseline: Baseline, result: ResultStatus, power: PowerSetting, tolerance_percent: int) -> Comparison:
    """Return a performance result against its figure; of an INVALID or a missing one there is no value."""
    label = f"{result.variant} {result.scenario}"
    of_pair = [
        f
        for f in baseline.figures
        if (f.variant, f.scenario, f.power_setting) == (result.variant, result.scenario, power)
    ]
    metric = result.metric
    figure = next((f for f in of_pair if metric is None or f.metric == metric.name), None)
    value = metric.value if figure is not None and metric is not None and result.validity is Validity.VALID else None
    # A number of another name says nothing about the figure that there is.
    figure = figure or next(iter(of_pair), None)
    limit = figure.limit(tolerance_percent) if figure is not None else 0.0
    return Comparison(label=label, figure=figure, value=value, limit=limit)
