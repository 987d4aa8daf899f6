"""Every test has the folders of a run, and leaves signals and environment as they were."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlperf_operator.agent.wrapper import preflight
from unit.agent.bench import STARTED, Bench
from unit.agent.standin_gpus import Gpus


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def other(tmp_path: Path) -> Bench:
    """Return another run on the same scratch."""
    return Bench(tmp_path, "uid-2")


@pytest.fixture
def gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gpus:
    """Return GPUs that preflight can be shown."""
    found = Gpus(tmp_path / "standins")
    monkeypatch.setattr(preflight, "_KERNEL_DRIVER", found.kernel)
    return found


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    handler, environment = signal.getsignal(signal.SIGTERM), dict(os.environ)
    yield
    while STARTED:
        process = STARTED.pop()
        # A wrapper ends its command too.
        process.terminate()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
    signal.signal(signal.SIGTERM, handler)
    os.environ.clear()
    os.environ.update(environment)
