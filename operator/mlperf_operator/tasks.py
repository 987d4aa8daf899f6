"""Running coroutines together."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


async def first_ended(*work: Coroutine[Any, Any, None]) -> None:
    """Run all of these until one ends, by itself or by an error, which is raised; the others are cancelled."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
