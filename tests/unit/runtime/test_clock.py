"""The API server's clock, by what its answers say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import web

from mlperf_operator.clock import ServerClock
from mlperf_operator.cluster import JOBS, ApiError
from unit.runtime.stream_server import connected

DATE = "Fri, 02 Jan 2026 03:04:05 GMT"
MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Monotonic:
    def __init__(self) -> None:
        self.value = 100.0

    def __call__(self) -> float:
        return self.value


@pytest.fixture
def monotonic() -> Monotonic:
    return Monotonic()


def header(moment: datetime) -> str:
    return moment.strftime("%a, %d %b %Y %H:%M:%S GMT")


def test_before_the_first_answer_it_is_this_machines_clock() -> None:
    assert abs(ServerClock().now() - datetime.now(UTC)) < timedelta(minutes=1)


def test_the_servers_time_goes_on_between_answers(monotonic: Monotonic) -> None:
    clock = ServerClock(monotonic)
    clock.note(DATE, 0.1)
    monotonic.value += 7.5
    assert clock.now() == MOMENT + timedelta(seconds=7.5)


def test_it_never_goes_back_by_the_rounding_of_a_header(monotonic: Monotonic) -> None:
    clock = ServerClock(monotonic)
    clock.note(DATE, 0.1)
    monotonic.value += 1.9
    clock.note(header(MOMENT + timedelta(seconds=1)), 0.1)
    assert clock.now() == MOMENT + timedelta(seconds=1.9)


@pytest.mark.parametrize("step", [timedelta(hours=-2), timedelta(hours=2)])
def test_a_clock_that_is_set_on_the_server_is_followed(monotonic: Monotonic, step: timedelta) -> None:
    clock = ServerClock(monotonic)
    clock.note(DATE, 0.1)
    clock.note(header(MOMENT + step), 0.1)
    assert clock.now() == MOMENT + step


def test_a_slow_answer_counts_only_where_there_is_no_other(monotonic: Monotonic) -> None:
    clock = ServerClock(monotonic)
    clock.note(DATE, 30.0)
    clock.note(header(MOMENT + timedelta(hours=1)), 30.0)
    assert clock.now() == MOMENT


@pytest.mark.parametrize("nonsense", [None, "", "yesterday"])
def test_an_answer_without_a_date_is_passed_over(monotonic: Monotonic, nonsense: str | None) -> None:
    clock = ServerClock(monotonic)
    clock.note(DATE, 0.1)
    clock.note(nonsense, 0.1)
    assert clock.now() == MOMENT


async def test_an_error_which_may_come_from_a_proxy_does_not_set_the_clients_clock() -> None:
    async def handle(request: web.Request) -> web.Response:
        return web.Response(status=503, headers={"Date": DATE})

    async with connected(handle) as cluster:
        with pytest.raises(ApiError):
            await cluster.get(JOBS, "n", "demo")
        assert abs(cluster.clock.now() - datetime.now(UTC)) < timedelta(minutes=1)


async def test_every_good_answer_of_the_server_sets_the_clients_clock() -> None:
    async def handle(request: web.Request) -> web.Response:
        return web.json_response({"kind": "Job"}, headers={"Date": DATE})

    async with connected(handle) as cluster:
        await cluster.get(JOBS, "n", "demo")
        assert abs(cluster.clock.now() - MOMENT) < timedelta(minutes=1)
