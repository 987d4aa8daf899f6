"""A node's report: written, read, and what counts as the same state."""

from __future__ import annotations

from datetime import timedelta

import pytest

from mlperf_operator.driver_report import NodeReport
from mlperf_operator.naming import DRIVER_REPORT_ANNOTATION
from mlperf_operator.nodes import state
from mlperf_operator.nodes.state import NodeState, Phase
from mlperf_operator.observed import format_time
from unit.core.builders import NOW

PAUSE = timedelta(seconds=30)
FAILED = NodeState(phase=Phase.FAILED, reason="DiskFull", version="550.54.14")


def test_a_report_is_read_as_it_was_written() -> None:
    found = FAILED.model_copy(update={"retry_at": format_time(NOW), "gpus": 8})
    text = state.write(found)
    assert text is not None
    assert "retryAt" in text
    assert state.read({DRIVER_REPORT_ANNOTATION: text}) == found
    assert found.due == NOW


UNREADABLE = [
    *("", "{", "[]", '{"phase": "Ready"}', '{"phase": "FromTheFuture", "reason": "x"}'),
    '{"phase": "Ready", "reason": "x", "since": "yesterday"}',
    '{"phase": "Failed", "reason": "x", "retryAt": "2026-01-02T03:04:05"}',
]


@pytest.mark.parametrize("text", UNREADABLE)
def test_a_report_that_cannot_be_read_is_none(text: str) -> None:
    assert state.read({DRIVER_REPORT_ANNOTATION: text}) is None


def test_a_report_that_does_not_say_since_when_is_so_since_it_is_followed() -> None:
    assert state.follow(FAILED, FAILED, NOW).since == format_time(NOW)


def test_no_report_is_no_annotation_and_one_that_failed_for_good_has_no_due() -> None:
    assert state.write(None) is None
    assert state.read({}) is None
    assert FAILED.due is None


def test_a_newer_operators_fields_do_not_disturb() -> None:
    found = state.read({DRIVER_REPORT_ANNOTATION: '{"phase": "Ready", "reason": "Matched", "new": 1}'})
    assert found == NodeState(phase=Phase.READY, reason="Matched")


def test_since_moves_when_the_reason_or_the_version_does_and_not_with_the_words() -> None:
    first = state.follow(None, FAILED, NOW)
    assert first.since == format_time(NOW)
    later = NOW + timedelta(minutes=1)
    reworded = FAILED.model_copy(update={"message": "still full"})
    assert state.follow(first, reworded, later).since == format_time(NOW)
    for changes in ({"reason": "GPUInUse"}, {"version": "535.183.01"}):
        assert state.follow(first, FAILED.model_copy(update=changes), later).since == format_time(later)


def test_the_pause_doubles_with_each_failure_up_to_ten_minutes() -> None:
    before, waits = None, []
    for _ in range(8):
        before = state.failed(before, FAILED, NOW, PAUSE)
        assert before.due is not None
        waits.append(int((before.due - NOW).total_seconds()))
    assert waits == [30, 60, 120, 240, 480, 600, 600, 600]
    assert before is not None
    assert before.attempts == 8


def test_a_pause_that_is_already_long_is_not_cut_short_by_a_large_number_of_failures() -> None:
    often = FAILED.model_copy(update={"attempts": 5000})
    assert state.failed(often, FAILED, NOW, timedelta(hours=1)).due == NOW + timedelta(minutes=10)


def test_to_try_again_after_the_plain_pause_counts_nothing_and_is_capped_as_well() -> None:
    for pause, wait in ((PAUSE, PAUSE), (timedelta(hours=1), timedelta(minutes=10))):
        found = state.again(FAILED, 3, NOW, pause)
        assert (found.attempts, found.due) == (3, NOW + wait)


def test_another_version_starts_from_one() -> None:
    before = state.failed(None, FAILED.model_copy(update={"version": "535.183.01", "attempts": 4}), NOW, PAUSE)
    assert state.failed(before, FAILED, NOW, PAUSE).attempts == 1


def test_a_report_of_a_driver_pod_brings_its_facts() -> None:
    told = NodeReport(
        ready=True,
        reason="Matched",
        driver="550.54.14",
        fabric_manager="550.54.14",
        gpus=8,
        product="A100",
        managed_by="host",
        message="m",
    )
    found = state.of_report(Phase.READY, "550.54.14", told)
    assert (found.driver, found.fabric_manager, found.gpus, found.product, found.managed_by) == (
        *("550.54.14", "550.54.14", 8),
        *("A100", "host"),
    )
    assert (found.reason, found.message, found.version, found.attempts) == ("Matched", "m", "550.54.14", 0)
