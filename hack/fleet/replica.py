"""A replica of the operator: the process that its image runs, with the rights that the chart gives it."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from local_cluster.ports import free_port

from fleet.fleet import OPERATOR_NAMESPACE
from fleet.workload import SCRATCH

START_SECONDS = 120.0
_TICKS = os.sysconf("SC_CLK_TCK")


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process in megabytes of 10^6 bytes.

    Raises:
        OSError: there is no such process.
    """
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


class Replica:
    """One replica under way."""

    def __init__(self, kubeconfig: Path, log: Path, settings: Mapping[str, str] | None = None) -> None:
        self.port = free_port()
        self.log = log
        self.started = time.monotonic()
        own = {
            "NAMESPACE": OPERATOR_NAMESPACE,
            "IDENTITY": f"replica-{self.port}",
            "ALLOWED_HOST_PATHS": SCRATCH,
            "HEALTH_PORT": str(self.port),
            "METRICS_PORT": "0",
            **(settings or {}),
        }
        environment = {**os.environ, **{f"MLPERF_OPERATOR_{key}": value for key, value in own.items()}}
        environment["KUBECONFIG"] = str(kubeconfig)
        with log.open("ab") as output:
            argv = [sys.executable, "-m", "mlperf_operator", "controller"]
            self.process = subprocess.Popen(argv, env=environment, stdout=output, stderr=output)

    def wait_ready(self, word: str = "leader") -> float:
        """Wait until /readyz says so, and return the seconds since the process was started.

        Raises:
            RuntimeError: it ended, or is not ready in time.
        """
        while time.monotonic() < self.started + START_SECONDS:
            if self.process.poll() is not None:
                break
            if self._says() == word:
                return time.monotonic() - self.started
            time.sleep(0.05)
        raise RuntimeError(f"the operator is not ready; see {self.log}")

    def _says(self) -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=5) as answer:
                return str(answer.read().decode())
        except OSError:
            return ""

    def cpu_seconds(self) -> float:
        """Return the processor time that it has used so far."""
        text = Path(f"/proc/{self.process.pid}/stat").read_text()
        fields = text[text.rindex(")") + 2 :].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def resident_mb(self) -> float:
        """Return its resident memory in megabytes of 10^6 bytes."""
        return resident_mb(self.process.pid)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout=60)
