"""Coroutines that end together."""

from __future__ import annotations

import asyncio

import pytest

from mlperf_operator.tasks import first_ended


async def _for_ever(ended: list[str]) -> None:
    try:
        await asyncio.sleep(3600)
    finally:
        await asyncio.sleep(0)
        ended.append("cleaned")


async def _fail() -> None:
    await asyncio.sleep(0)
    raise ValueError("broken")


async def _return() -> None:
    await asyncio.sleep(0)


async def test_an_error_of_one_ends_the_others_and_is_raised() -> None:
    ended: list[str] = []
    with pytest.raises(ValueError, match="broken"):
        await first_ended(_for_ever(ended), _fail())
    assert ended == ["cleaned"]


async def test_the_end_of_one_ends_the_others() -> None:
    ended: list[str] = []
    await first_ended(_return(), _for_ever(ended))
    assert ended == ["cleaned"]


async def test_cancelling_waits_until_all_have_cleaned_up() -> None:
    ended: list[str] = []
    task = asyncio.create_task(first_ended(_for_ever(ended), _for_ever(ended)))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == ["cleaned", "cleaned"]
