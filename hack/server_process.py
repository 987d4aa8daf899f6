"""A server that tests start on this machine: started, waited for until it answers, and ended."""

from __future__ import annotations

import os
import subprocess
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

STOP_SECONDS = 30.0


class ServerProcess:
    """A program that answers with 200 at a URL once it is ready. Its output goes to a file, whose folder is its own."""

    def __init__(
        self,
        argv: Sequence[str | Path],
        log: Path,
        ready: str,
        seconds: float,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._argv, self._log, self._ready, self._seconds = argv, log, ready, seconds
        self._environment = environment or {}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it is ready.

        Raises:
            RuntimeError: it ended, or is not ready in time.
        """
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._argv,
                cwd=self._log.parent,
                env={**os.environ, **self._environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        end = time.monotonic() + self._seconds
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > end:
                text = self._log.read_text(errors="replace")[-1000:]
                raise RuntimeError(f"{Path(self._argv[0]).name} is not ready: {text}")
            time.sleep(0.05)

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(self._ready, timeout=2) as answer:  # noqa: S310 - our own
                return bool(answer.status == 200)
        except OSError:
            return False

    def stop(self) -> None:
        """End it; its files stay."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(STOP_SECONDS)
            self._process = None
