"""Faults and fates by a seed: the same again, and a leader that lives long enough for a slope."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from chaos.network import ODDS
from soak import plan
from soak.plan import ENDS_THE_LEADER, FATES, ROUGH_SHARE, fate, steps

HOURS = 2 * 3600.0
SEEDS = range(20)


def test_the_same_seed_has_the_same_faults_and_another_one_others() -> None:
    assert list(steps(7, HOURS)) == list(steps(7, HOURS))
    assert list(steps(7, HOURS)) != list(steps(8, HOURS))
    assert [fate(7, number) for number in range(50)] == [fate(7, number) for number in range(50)]


def test_the_fate_of_a_run_does_not_depend_on_the_runs_before_it() -> None:
    later = fate(7, 40)
    fate(7, 41)
    assert fate(7, 40) == later


def test_leaders_are_ended_in_the_first_sixth_and_never_after_it() -> None:
    for seed in SEEDS:
        ends = [step.at for step in steps(seed, HOURS) if step.kind in ENDS_THE_LEADER]
        assert len(ends) > 10
        assert max(ends) < HOURS * ROUGH_SHARE


def test_faults_go_on_to_the_end_one_after_the_other_and_not_beyond_it() -> None:
    for seed in SEEDS:
        found = list(steps(seed, HOURS))
        assert found[-1].at > HOURS - 120
        assert all(before.at + before.seconds < after.at for before, after in pairwise(found))
        assert all(step.at + step.seconds <= HOURS for step in found)


def test_two_hours_have_every_kind_of_fault() -> None:
    kinds = Counter(step.kind for seed in SEEDS for step in steps(seed, HOURS))
    named = {plan.KILL_STANDBY, plan.CUT_WATCHES, plan.KILL_API_SERVER, plan.KILL_ETCD}
    assert kinds.keys() == {*ODDS, *ENDS_THE_LEADER, *named}
    assert all(count >= len(SEEDS) for count in kinds.values())


def test_what_lasts_is_weather() -> None:
    assert all((step.seconds > 0) == (step.kind in ODDS) for step in steps(1, HOURS))


def test_most_runs_are_left_alone_and_each_fate_meets_some() -> None:
    kinds = Counter(fate(1, number).kind for number in range(2000))
    assert kinds.keys() == FATES.keys()
    assert kinds[""] > 1500
