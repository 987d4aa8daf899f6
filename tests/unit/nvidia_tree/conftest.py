"""What all tests of the stand-in tree read, made once."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from nvidia_tree import parts
from unit.nvidia_tree.bench import Bench


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Downloads, git repositories, and what `prebuild` would install."""
    root = tmp_path_factory.mktemp("standin")
    parts.add_downloads(root / "downloads")
    parts.add_git(root / "git")
    for wheel in sorted(parts.add_wheels(root / "wheels").glob("standin_[lm]*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(root / "modules")
    (root / "bin").mkdir()
    # A virtual environment has no place for a user's packages, nor always pip: that is for the end-to-end tests.
    for name, text in (("standin-cc", parts.COMPILER), ("pip", "#!/bin/sh\n")):
        (root / "bin" / name).write_text(text)
        (root / "bin" / name).chmod(0o755)
    return root


@pytest.fixture
def bench(tmp_path: Path, shared: Path) -> Bench:
    """A tree on an empty scratch."""
    return Bench(tmp_path, shared)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Bench:
    """A built tree with its models; what was built holds its path, so that no test can have a copy."""
    found = Bench(tmp_path_factory.mktemp("built"), shared)
    found.prepare()
    return found


@pytest.fixture
def ready(built: Bench) -> Iterator[Bench]:
    """The built tree, with no logs, no engines and no faults."""
    yield built
    built.faults = ""
    for folder in (built.logs, built.work / "build/engines", built.work / "build/compliance_logs"):
        shutil.rmtree(folder, ignore_errors=True)
    built.render()
