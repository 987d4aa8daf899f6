"""The informer against a server that misbehaves as real ones do."""

from __future__ import annotations

import asyncio
import time

import pytest
from aiohttp import web

from mlperf_operator import health as health_module
from mlperf_operator import informer as informer_module
from unit.runtime.stream_server import Line, Server, event, following, item, refusal, until

GONE: Line = {"type": "ERROR", "object": {"code": 410, "reason": "Expired", "message": "too old"}}


async def test_a_relist_after_gone_tells_what_was_deleted_meanwhile() -> None:
    server = Server(lists=[[item("a", "1", 1), item("b", "1", 2)], [item("a", "1", 1)]], watches=[[GONE]])
    async with following(server) as (informer, changes):
        await until(lambda: informer.relists == 2 and len(changes) == 3)
        assert changes[-1] == ("1", None)
        assert set(informer.store) == {"n/a"}


async def test_gone_as_a_status_relists_too() -> None:
    server = Server(lists=[[item("a", "1", 1)]], watches=[refusal(410)])
    async with following(server) as (informer, changes):
        await until(lambda: informer.relists == 2)
        assert changes == [(None, "1")]


async def test_gone_between_two_pages_starts_the_list_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(informer_module, "PAGE_SIZE", 2)
    server = Server(
        lists=[[item(str(i), "v", i) for i in range(3)]],
        refusals=[lambda query: refusal(410) if "continue" in query else None],
    )
    async with following(server) as (informer, _):
        await informer.synced.wait()
        assert len(informer.store) == 3
        assert [query.get("continue") for query in server.queries[:4]] == [None, "2", None, "2"]


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(b'{"type": "MODIFIED", "object": {"meta', id="within-an-event"),
        pytest.param(b"<html>bad gateway</html>\n", id="not-json"),
        pytest.param({"type": "ERROR", "object": {"code": 500, "message": "etcd"}}, id="error-event"),
    ],
)
async def test_a_watch_that_breaks_goes_on_after_its_last_whole_event(end: Line) -> None:
    broken = [event("MODIFIED", "a", "2", 101), event("DELETED", "a", "2", 102), end]
    server = Server(lists=[[item("a", "1", 1)]], watches=[broken])
    async with following(server) as (informer, changes):
        await until(lambda: len(server.watched) == 2)
        assert server.watched[-1]["resourceVersion"] == "102"
        assert changes == [(None, "1"), ("1", "2"), ("2", None)]
        assert informer.relists == 1


async def test_refusals_are_tried_again_until_they_end() -> None:
    server = Server(lists=[[item("a", "1", 1)]], refusals=[lambda _: refusal(500), lambda _: refusal(403)])
    async with following(server) as (informer, _):
        async with asyncio.timeout(10):
            await informer.synced.wait()


async def test_a_server_that_asks_for_patience_gets_it() -> None:
    server = Server(lists=[[]], refusals=[lambda _: refusal(429, {"Retry-After": "2"})])
    async with following(server) as (informer, _):
        async with asyncio.timeout(10):
            await informer.synced.wait()
        assert server.times[1] - server.times[0] >= 2


async def test_a_silent_watch_is_given_up_and_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(informer_module, "SILENCE_SECONDS", 0.2)
    server = Server(lists=[[item("a", "1", 1)]])
    async with following(server) as (informer, _):
        await until(lambda: len(server.watched) >= 2, seconds=10)
        assert informer.relists == 1


async def test_watches_that_end_at_once_are_opened_ever_more_slowly() -> None:
    server = Server(lists=[[]], watches=[[] for _ in range(1000)])
    async with following(server) as (informer, _):
        await informer.synced.wait()
        await asyncio.sleep(2)
        assert 2 <= len(server.watched) <= 4


async def test_events_between_failures_keep_the_pauses_short() -> None:
    # Each watch brings something before it breaks, as behind a proxy that cuts connections.
    watches: list[list[Line] | web.Response] = [[event("ADDED", str(i), "v", 101 + i), b"{"] for i in range(4)]
    server = Server(lists=[[]], watches=watches)
    async with following(server) as (informer, _):
        started = time.monotonic()
        await until(lambda: len(informer.store) == 4, seconds=10)
        assert time.monotonic() - started < 4


def test_a_dead_watch_is_replaced_before_the_process_is_restarted_for_it() -> None:
    bookmark_interval, first_pause = 60, 1
    silence = informer_module.SILENCE_SECONDS
    assert bookmark_interval < silence
    assert silence + first_pause + bookmark_interval < health_module.MAX_SILENCE_SECONDS
