"""What to change where LoadGen says INVALID: a proposed value and how it is derived, pure.

LoadGen's own recommendations name a direction and no number (loadgen/results.cc: MinDurationMet, PerfConstraintsMet).
Offline prepares 1.1 x expected rate x minimum duration samples in advance (loadgen/test_settings_internal.cc), so a
system that is more than a tenth faster than said runs out of them; SingleStream does likewise by its expected latency.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from mlperf_operator.results import LoadgenFacts, Result

_DIGITS, _SMALLEST = 3, 1e-3
_SATURATED = 0.99
"""A server that completes less than this share of what arrives has fallen behind: its rate is its limit."""

_EARLY, _RAN_OUT = "exited early", "Ran out of generated queries"
"""Of LoadGen's recommendations and errors."""


@dataclass(frozen=True)
class Advice:
    """A value to set instead.

    Attributes:
        field: Field of the harness's configuration; empty where no value can mend it.
        value: As spec.gpuConfig.overrides takes it.
        why: What is wrong and how the value is derived.
    """

    why: str
    field: str = ""
    value: int | str = ""

    def sentence(self, benchmark: str, scenario: str) -> str:
        """Return it as a sentence, with the override to set."""
        if not self.field:
            return self.why
        entry = f"{{benchmark: {benchmark}, scenario: {scenario}, field: {self.field}, value: {_yaml(self.value)}}}"
        return f"{self.why}; try spec.gpuConfig.overrides {entry}"


def advise(result: Result) -> Advice | None:
    """Return what to change about an INVALID result, None where its logs do not show it."""
    facts = result.loadgen
    if result.validity != "INVALID" or facts is None:
        return None
    # A stream that runs out of queries logs that as an error, and that it exited early.
    ran_out = any(_RAN_OUT in error for error in facts.errors)
    if facts.error_count and not ran_out:
        return Advice(f"LoadGen logged {facts.error_count} errors: {' '.join(facts.errors[:1])[:200]}".rstrip(": "))
    if any(_EARLY in line for line in facts.recommendations) and not ran_out:
        return Advice("the harness stopped before enough queries were issued: look in its log for why")
    found = _server(facts) if result.scenario == "Server" else _prepared(result, facts)
    if found is not None and found.value == 0:
        # Numbers that are next to nothing: what is wrong they still show.
        return Advice(found.why.partition("; proposed")[0])
    return found


def _prepared(result: Result, facts: LoadgenFacts) -> Advice | None:
    """Return what to change in a scenario whose queries are prepared by an expectation."""
    if facts.min_duration_met is False:
        return _offline(result, facts) if result.scenario == "Offline" else _stream(result, facts)
    if facts.early_stopping_met is False:
        return Advice("too few queries for LoadGen's early stopping: raise min_query_count or min_duration")
    return None


def _server(facts: LoadgenFacts) -> Advice | None:
    target = facts.target_qps
    if target is None or target <= 0:
        return None
    late, limit = _tail(facts), facts.target_latency_ns
    is_late = late is not None and limit is not None and late.latency_ns > limit
    if facts.min_duration_met is False and not is_late and facts.performance_constraints_met is not False:
        return Advice("the queries of the target rate were over before the minimum duration", *_higher(target))
    completed = facts.completed_samples_per_second
    if completed is not None and completed < target * _SATURATED:
        text = f"the rate was too high: {target:g} queries/s arrived, {completed:g} were completed"
        return Advice(f"{text}; proposed is 3 % below the completed rate", *_lower(completed * 0.97))
    if late is not None and limit and late.latency_ns > limit:
        share = _share(late.latency_ns / limit)
        shown = f"the {late.percent:g}th percentile took {late.latency_ns / 1e6:.4g} ms of {limit / 1e6:.4g} ms allowed"
        text = f"the rate was too high: at {target:g} queries/s {shown}"
        return Advice(f"{text}; proposed is {share} % below the target rate", *_lower(target * (100 - share) / 100))
    if facts.early_stopping_met is False or facts.performance_constraints_met is False:
        text = f"the rate was a little too high: at {target:g} queries/s the percentile kept to the limit, but with "
        text += "too few queries in hand for early stopping"
        return Advice(f"{text}; proposed is 1 % below the target rate", *_lower(target * 0.99))
    return None


def _share(overshoot: float) -> int:
    """Return by how many percent to lower a rate; near saturation the tail falls much faster than the rate."""
    return 2 if overshoot <= 1.1 else 5 if overshoot <= 2 else 10


@dataclass(frozen=True)
class _Tail:
    percent: float
    latency_ns: float


def _tail(facts: LoadgenFacts) -> _Tail | None:
    percent = round(100 * (facts.target_latency_percentile or 0.99), 6)
    latency = facts.latency_ns(percent)
    return _Tail(percent, latency) if latency is not None else None


def _higher(target: float) -> tuple[str, int | str]:
    return "server_target_qps", _number(_rounded(target * 1.1, up=True))


def _lower(rate: float) -> tuple[str, int | str]:
    return "server_target_qps", _number(_rounded(rate, up=False))


def _offline(result: Result, facts: LoadgenFacts) -> Advice | None:
    rate = result.metric.value if result.metric is not None else None
    if not rate or not facts.target_qps or rate <= facts.target_qps:
        return None
    text = f"the expected rate of {facts.target_qps:g} samples/s was too low: the samples prepared for it were over "
    text += f"before the minimum duration; proposed is the measured rate of {rate:g}, to which LoadGen adds a tenth"
    return Advice(text, "offline_expected_qps", _number(_rounded(rate, up=True)))


def _stream(result: Result, facts: LoadgenFacts) -> Advice | None:
    middle, rate = facts.latency_ns(50), facts.target_qps or 0
    if result.scenario != "SingleStream" or rate <= 0 or not middle:
        return None
    expected = 1e9 / rate
    if middle * 0.9 >= expected:
        return None
    text = f"the expected latency was too high ({expected:.4g} ns): the queries prepared for it were over before the "
    text += f"minimum duration; proposed is a tenth below the median of {middle:g} ns"
    return Advice(text, "single_stream_expected_latency_ns", int(_rounded(middle * 0.9, up=False)))


def _rounded(number: float, *, up: bool) -> float:
    """Return a number with three digits, the way that is safe."""
    if number < _SMALLEST:
        return 0.0
    step = 10.0 ** (math.floor(math.log10(number)) - _DIGITS + 1)
    return round((math.ceil if up else math.floor)(number / step) * step, 6)


def _number(value: float) -> int | str:
    return int(value) if value == int(value) else f"{value:.6f}".rstrip("0")


def _yaml(value: int | str) -> str:
    return str(value) if isinstance(value, int) else f'"{value}"'
