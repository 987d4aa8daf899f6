"""Shared parts of the local cluster's unit tests."""

from pathlib import Path

import pytest
from local_cluster.layout import Layout


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A cluster's folders below the test's own."""
    return Layout("test", tmp_path / "state", tmp_path / "run")
