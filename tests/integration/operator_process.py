"""The operator as a process of its own, as its image runs it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
from local_cluster.ports import free_port

T = TypeVar("T")


class OperatorProcess:
    """One replica, with its Lease in a namespace where no run may be."""

    def __init__(self, namespace: str, identity: str, log: Path, **more: str) -> None:
        self.port = free_port()
        self.metrics_port = free_port()
        self.log = log
        settings = {
            "NAMESPACE": namespace,
            "IDENTITY": identity,
            "ALLOWED_HOST_PATHS": "/mnt/scratch",
            "HEALTH_PORT": str(self.port),
            "METRICS_PORT": str(self.metrics_port),
            "LEASE_DURATION_SECONDS": "5",
            "LEASE_RENEW_DEADLINE_SECONDS": "3",
            "LEASE_RETRY_SECONDS": "0.5",
            **more,
        }
        environment = {**os.environ, **{f"MLPERF_OPERATOR_{key}": value for key, value in settings.items()}}
        with log.open("ab") as output:
            argv = [sys.executable, "-m", "mlperf_operator", "controller"]
            self.process = subprocess.Popen(argv, env=environment, stdout=output, stderr=output)

    async def ready(self, word: str) -> None:
        """Wait until /readyz says this word: leader or standby."""

        async def says() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            try:
                async with (
                    aiohttp.ClientSession() as session,
                    session.get(f"http://127.0.0.1:{self.port}/readyz") as response,
                ):
                    return (response.status, await response.text()) == (200, word)
            except aiohttp.ClientError:
                return False

        await until(says)

    def end(self, number: signal.Signals) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout=30)

    def lines(self) -> list[dict[str, Any]]:
        """Return the log, of which every line is JSON."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@contextmanager
def replica(namespace: str, identity: str, log: Path, **settings: str) -> Iterator[OperatorProcess]:
    """Run a replica, with further settings if given, and end it if the test did not."""
    started = OperatorProcess(namespace, identity, log, **settings)
    try:
        yield started
    finally:
        if started.process.poll() is None:
            started.end(signal.SIGKILL)


async def until(condition: Callable[[], Awaitable[T]], seconds: float = 60.0) -> T:
    """Wait until something true comes back, and return it."""
    async with asyncio.timeout(seconds):
        while True:
            found = await condition()
            if found:
                return found
            await asyncio.sleep(0.2)
