"""mlperf_log_detail.txt, with what real logs do to a parser."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import pytest

from mlperf_operator.results.detail import parse_detail
from unit.results.logs import detail, line

GIT_LOG = (
    ':::MLLOG {"key": "loadgen_git_log_message", "value": "0123 Merge "a branch"\n'
    '4567 Fix the "key": parser\n", "time_ms": 0.1, "metadata": {"is_error": false}}\n'
)


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def test_of_a_repeated_key_the_first_value_counts() -> None:
    log = parse_detail([line("result_samples_per_second", 10.5), line("result_samples_per_second", 99)])
    assert log.number("result_samples_per_second") == 10.5


@pytest.mark.parametrize(
    "value", ["NaN", "Infinity", "-Infinity", "nan", "inf", "-nan", "true", "null", "1" + "0" * 400]
)
def test_what_is_no_finite_number_is_no_number_and_no_error(value: str) -> None:
    log = parse_detail(
        [
            f':::MLLOG {{"key": "result_mean_latency_ns", "value": {value}, "time_ms": 1, "metadata": {{}}}}\n',
            line("result_samples_per_second", 10.5),
        ]
    )
    assert log.number("result_mean_latency_ns") is None
    assert log.number("result_samples_per_second") == 10.5
    assert log.unreadable == 0


def test_line_breaks_and_quotes_inside_a_value_do_not_hide_what_follows() -> None:
    log = parse_detail(_lines(GIT_LOG + detail(result_samples_per_second=10.5)))
    assert log.number("result_samples_per_second") == 10.5
    assert log.unreadable == 0


def test_a_wanted_value_with_unescaped_quotes_and_line_breaks_is_kept() -> None:
    log = parse_detail(
        _lines(
            ':::MLLOG {"key": "result_invalid_reason", "value": "raise "qps"\nplease", "time_ms": 1, "metadata": {}}\n'
        )
    )
    assert log.text("result_invalid_reason") == 'raise "qps"\nplease'


def test_windows_line_ends_are_no_matter() -> None:
    text = detail(result_samples_per_second=10.5).replace("\n", "\r\n")
    assert parse_detail(_lines(text)).number("result_samples_per_second") == 10.5


def test_text_before_the_marker_is_skipped() -> None:
    assert parse_detail(["\ufeff[rank 0] " + line("result_validity", "VALID")]).values == {"result_validity": "VALID"}


def test_a_truncated_last_line_is_counted_and_the_rest_is_read() -> None:
    text = detail(result_samples_per_second=10.5) + line("result_completed_samples_per_sec", 123456)[:-90]
    log = parse_detail(_lines(text))
    assert log.number("result_samples_per_second") == 10.5
    assert "result_completed_samples_per_sec" not in log.values
    assert log.unreadable == 1


def test_errors_are_counted_and_only_the_first_are_kept() -> None:
    log = parse_detail(line("error_runtime", f"query {number} failed", is_error=True) for number in range(5000))
    assert log.error_count == 5000
    assert log.errors[0] == "query 0 failed"
    assert len(log.errors) == 100


def test_the_text_format_from_before_2021_is_known_and_gives_no_values() -> None:
    log = parse_detail(['"pid": 95, "tid": 95, "ts": 1018ns : version : .5a1 @ 0123456789\n', "a git log\n"])
    assert log.is_old_format
    assert log.values == {}
    assert log.unreadable == 0


@pytest.mark.parametrize(
    "lines", [[], [""], ["\x00\x01\ufffd" * 50], ["[" * 100_000], [":::MLLOG"], [":::MLLOG " + "[" * 50_000]]
)
def test_junk_holds_nothing(lines: list[str]) -> None:
    log = parse_detail(lines)
    assert log.values == {}
    assert not log.is_old_format


def test_a_value_nested_too_deeply_is_taken_as_text_or_not_at_all() -> None:
    deep = f':::MLLOG {{"key": "result_validity", "value": {"[" * 100_000}, "time_ms": 1, "metadata": {{}}}}\n'
    assert parse_detail([deep, line("result_samples_per_second", 5)]).number("result_samples_per_second") == 5


def test_a_long_log_is_read_in_flat_memory() -> None:
    def lines() -> Iterator[str]:
        for number in range(50_000):
            yield line(f"first_token_latency_{number}", number)
        yield line("result_samples_per_second", 7)

    tracemalloc.start()
    try:
        assert parse_detail(lines()).number("result_samples_per_second") == 7
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_no_log_fills_the_memory() -> None:
    log = parse_detail(line(f"result_{number}", "x" * 20_000) for number in range(1500))
    assert len(log.values) == 1000
    assert log.text("result_0") == "x" * 10_000


def test_a_list_or_an_object_is_no_value_that_is_kept() -> None:
    log = parse_detail([line("result_validity", ["VALID"]), line("error_runtime", {"a": 1}, is_error=True)])
    assert log.text("result_validity") is None
    assert log.errors == ("(no text)",)


def test_an_entry_of_endless_lines_is_cut_and_what_follows_is_read() -> None:
    pieces = [':::MLLOG {"key": "result_validity", "value": "', *["x" * 65_536] * 100, line("result_query_count", 7)]
    log = parse_detail(pieces)
    assert (log.number("result_query_count"), log.unreadable) == (7, 1)
