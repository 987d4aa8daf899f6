"""A replica of the operator as a process that a kubelet would look after: killed, stopped, and started again."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import aiohttp
from local_cluster.ports import free_port

FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
"""Debian's libfaketime; the clock's scenario is left out where it is not installed."""

# Forked from a process that has the operator's modules already: two hundred starts would be minutes of imports.
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["__main__", "mlperf_operator.controller", "mlperf_operator.settings", "uvloop"])

SHORT_LEASE = {"DURATION": 5.0, "RENEW_DEADLINE": 3.0, "RETRY": 0.5}
LEASE = {"DURATION": 15.0, "RENEW_DEADLINE": 10.0, "RETRY": 2.0}


class _Process(Protocol):
    """What a replica is asked, however it was started."""

    pid: int

    def poll(self) -> int | None:
        """Return the exit code, or None while it lives."""


class _Fork:
    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        self._process = _FORKS.Process(target=_serve, args=(dict(environment), str(log)))
        self._process.start()
        self.pid = self._process.pid or 0

    def poll(self) -> int | None:
        return self._process.exitcode


def _serve(environment: dict[str, str], log: str) -> None:
    """Be the operator, in a process that was just forked."""
    os.environ.update(environment)
    sink = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    from kubernetes.config import kube_config  # noqa: PLC0415 - not needed by whoever starts it

    from mlperf_operator.cli import app  # noqa: PLC0415

    # kopf logs in by what KUBECONFIG was when this module was imported: past the proxy, or not at all.
    kube_config.KUBE_CONFIG_DEFAULT_LOCATION = environment["KUBECONFIG"]
    sys.argv = ["mlperf-operator", "controller"]
    app()


class Replica:
    """One replica. While it is kept, an end of its process is followed by a start, as by a kubelet."""

    def __init__(
        self,
        identity: str,
        kubeconfig: Path,
        folder: Path,
        settings: Mapping[str, str],
        *,
        lease: Mapping[str, float] = LEASE,
    ) -> None:
        self.identity = identity
        self.log = folder / f"{identity}.log"
        self.exits: list[int] = []
        self.port = free_port()
        self.clock: Path | None = None
        self.forked = True
        """Whether it is forked from a process that has the modules already; else its memory is its own alone."""
        self._settings = {
            "METRICS_PORT": "0",
            **settings,
            "IDENTITY": identity,
            "HEALTH_PORT": str(self.port),
            "LEASE_DURATION_SECONDS": str(int(lease["DURATION"])),
            "LEASE_RENEW_DEADLINE_SECONDS": str(lease["RENEW_DEADLINE"]),
            "LEASE_RETRY_SECONDS": str(lease["RETRY"]),
        }
        self._kubeconfig = kubeconfig
        self._process: _Process | None = None
        self._keeper: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start it, and again whenever it ends."""
        self.set_clock(timedelta(0))
        self._launch()
        self._keeper = asyncio.create_task(self._keep())

    def set_clock(self, offset: timedelta) -> None:
        """Set its wall clock, if it has one of its own."""
        if self.clock is not None:
            # Renamed into place: an empty file is no time.
            partial = self.clock.with_suffix(".partial")
            partial.write_text(f"{offset.total_seconds():+.0f}s\n")
            partial.rename(self.clock)

    def _launch(self) -> None:
        environment = {f"MLPERF_OPERATOR_{key}": value for key, value in self._settings.items()}
        environment["KUBECONFIG"] = str(self._kubeconfig)
        if self.forked and self.clock is None:
            self._process = _Fork(environment, self.log)
            return
        if self.clock is not None:
            environment |= {
                "LD_PRELOAD": str(FAKETIME),
                "FAKETIME_TIMESTAMP_FILE": str(self.clock),
                "FAKETIME_NO_CACHE": "1",
                "DONT_FAKE_MONOTONIC": "1",
            }
        with self.log.open("ab") as sink:
            argv = [sys.executable, "-m", "mlperf_operator", "controller"]
            self._process = subprocess.Popen(argv, env={**os.environ, **environment}, stdout=sink, stderr=sink)

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(0.02)
            code = self._poll()
            if code is not None:
                self.exits.append(code)
                self._launch()

    @property
    def pid(self) -> int:
        """Its present process; 0 where there is none."""
        return self._process.pid if self._process is not None and self._poll() is None else 0

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        if self._process is not None and self._poll() is None:
            os.kill(self._process.pid, number)

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it for good and return its exit code."""
        if self._keeper is not None:
            self._keeper.cancel()
            self._keeper = None
        self.send(number)
        self.send(signal.SIGCONT)
        deadline = time.monotonic() + 20
        while (code := self._poll()) is None:
            if time.monotonic() > deadline:
                self.send(signal.SIGKILL)
            await asyncio.sleep(0.02)
        return code

    def _poll(self) -> int | None:
        return self._process.poll() if self._process is not None else 0

    async def says(self) -> str:
        """Return what /readyz says: leader, standby, or why not."""
        limit = aiohttp.ClientTimeout(total=1)
        try:
            async with (
                aiohttp.ClientSession(timeout=limit) as session,
                session.get(f"http://127.0.0.1:{self.port}/readyz") as response,
            ):
                return await response.text()
        except (aiohttp.ClientError, TimeoutError) as error:
            return repr(error)

    async def ready(self, word: str = "leader", seconds: float = 60.0) -> float:
        """Wait until /readyz says this word, and return how many seconds that took."""
        started = time.monotonic()
        async with asyncio.timeout(seconds):
            while await self.says() != word:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.02)
        return time.monotonic() - started

    def lines(self) -> list[str]:
        """Return its log."""
        return self.log.read_text().splitlines() if self.log.exists() else []

    def odd_lines(self) -> list[str]:
        """Return the lines of its log that no operator should write: exceptions, and what is not one JSON object."""
        return [line for line in self.lines() if not _ordinary(line)]


def _ordinary(line: str) -> bool:
    try:
        entry: Any = json.loads(line)
    except ValueError:
        return False
    # kopf tells with a traceback that its watch was refused; the operator starts it again and says so (handlers.py).
    return isinstance(entry, dict) and ("exception" not in entry or str(entry.get("logger")).startswith("kopf."))
