"""Every test has the folders of a run, and leaves signals and environment as they were."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from unit.agent.bench import STARTED, Bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def other(tmp_path: Path) -> Bench:
    """Return another run on the same scratch."""
    return Bench(tmp_path, "uid-2")


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
