"""A scratch that is prepared once, and a fresh tree on it for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from unit.reference_harness.bench import Bench


@pytest.fixture(scope="session")
def prepared_scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("prepared")
    (root / "scratch").mkdir()
    bench = Bench(root, root / "scratch")
    bench.copy_tree()
    bench.prepare()
    return bench.scratch


@pytest.fixture
def bench(tmp_path: Path, prepared_scratch: Path) -> Bench:
    """A tree of the test's own on the scratch that all tests read."""
    fresh = Bench(tmp_path, prepared_scratch)
    fresh.copy_tree()
    return fresh


@pytest.fixture
def empty_bench(tmp_path: Path) -> Bench:
    """A tree on an empty scratch of its own."""
    (tmp_path / "scratch").mkdir()
    fresh = Bench(tmp_path, tmp_path / "scratch")
    fresh.copy_tree()
    return fresh
