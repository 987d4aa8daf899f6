"""The informer's records, index and changes while its server behaves."""

from __future__ import annotations

import pytest

from mlperf_operator import informer as informer_module
from unit.runtime.stream_server import Server, event, following, item, until


async def test_a_list_of_many_pages_is_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(informer_module, "PAGE_SIZE", 2)
    server = Server(lists=[[item(str(i), "v", i) for i in range(5)]])
    async with following(server) as (informer, _):
        await informer.synced.wait()
        assert len(informer.store) == 5
        assert [q["limit"] for q in server.queries if "watch" not in q] == ["2", "2", "2"]


async def test_changes_arrive_and_the_index_follows() -> None:
    script = [
        event("ADDED", "b", "1", 101),
        event("MODIFIED", "a", "2", 102),
        event("DELETED", "b", "1", 103),
        {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "150"}}},
    ]
    server = Server(lists=[[item("a", "1", 1)]], watches=[[*script]])
    async with following(server) as (informer, changes):
        await until(lambda: len(changes) == 4)
        assert changes == [(None, "1"), (None, "1"), ("1", "2"), ("1", None)]
        assert informer.by_index("1") == ()
        assert [found.name for found in informer.by_index("2")] == ["a"]
        await until(lambda: len(server.watched) == 2)
        assert server.watched[-1]["resourceVersion"] == "150"


async def test_an_unchanged_object_is_not_told_again() -> None:
    server = Server(lists=[[item("a", "1", 1)]], watches=[[event("MODIFIED", "a", "1", 101)]])
    async with following(server) as (_, changes):
        await until(lambda: len(server.watched) == 2)
        assert changes == [(None, "1")]


async def test_an_object_longer_than_a_read_arrives_whole() -> None:
    long = "x" * 5_000_000
    server = Server(lists=[[]], watches=[[event("ADDED", "a", long, 101)]])
    async with following(server) as (_, changes):
        await until(lambda: changes == [(None, long)])


async def test_an_object_made_anew_under_its_name_is_told_with_the_old_one() -> None:
    script = [event("DELETED", "a", "1", 101), event("ADDED", "a", "2", 102)]
    server = Server(lists=[[item("a", "1", 1)]], watches=[[*script]])
    async with following(server) as (informer, changes):
        await until(lambda: len(changes) == 3)
        assert changes[1:] == [("1", None), (None, "2")]
        assert informer.by_index("1") == ()


async def test_the_store_cannot_be_written_from_outside() -> None:
    async with following(Server(lists=[[item("a", "1", 1)]])) as (informer, _):
        await informer.synced.wait()
        with pytest.raises(TypeError):
            informer.store["n/b"] = informer.store["n/a"]  # type: ignore[index]
