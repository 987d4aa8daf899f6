"""Faults by chance: the same again for the same seed, and only where they can be."""

from __future__ import annotations

from random import Random

import pytest

from chaos.weather import BUSY, CONFLICT, GONE, Call, Chance, Cut, Fault, Lose, Reset, fits

WATCH = Call("GET", "/apis/batch/v1/jobs", {"watch": "true"})
LIST = Call("GET", "/apis/batch/v1/jobs", {"limit": "500"})
NEXT_PAGE = Call("GET", "/apis/batch/v1/jobs", {"limit": "500", "continue": "token"})
CREATE = Call("POST", "/apis/batch/v1/namespaces/n/jobs", {})
APPLY = Call("PATCH", "/apis/mlperf.dev/v1alpha1/namespaces/n/mlperfruns/demo/status", {})
LEASE = Call("PUT", "/apis/coordination.k8s.io/v1/namespaces/n/leases/mlperf-operator", {})
CALLS = (WATCH, LIST, NEXT_PAGE, CREATE, APPLY, LEASE)


@pytest.mark.parametrize(
    ("fault", "met"),
    [
        (Cut(1.0), (WATCH,)),
        (GONE, (WATCH, NEXT_PAGE)),
        (CONFLICT, (APPLY, LEASE)),
        (Lose(), (CREATE, APPLY, LEASE)),
        (BUSY, CALLS),
        (Reset(), CALLS),
    ],
)
def test_a_fault_meets_only_the_requests_that_it_fits(fault: Fault, met: tuple[Call, ...]) -> None:
    assert tuple(call for call in CALLS if fits(fault, call)) == met


def test_the_same_seed_has_the_same_weather() -> None:
    first, second = (Chance(Random(7), {Reset(): 0.3, BUSY: 0.3}) for _ in range(2))  # noqa: S311 - a fault is no secret
    weather = [first(LIST) for _ in range(50)]
    assert weather == [second(LIST) for _ in range(50)]
    assert {Reset(), BUSY, None} == set(weather)


def test_leadership_is_spared_unless_it_is_asked_for() -> None:
    assert Chance(Random(7), {Reset(): 1.0})(LEASE) is None  # noqa: S311 - a fault is no secret
    assert Chance(Random(7), {Reset(): 1.0}, leases=True)(LEASE) == Reset()  # noqa: S311 - a fault is no secret
