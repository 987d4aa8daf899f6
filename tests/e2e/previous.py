"""The release before this one, from this repository's history: its chart, and its image on the node."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from installation import REPOSITORY, launcher

COMMIT = "43ea1eb5cbfd33ab02eeba7e86bb71d3c5807dbd"
"""Version 0.1.0. To be moved on with each release: docs/release.md."""

IMAGE = "localhost/mlperf-operator:previous"


def checkout(folder: Path) -> Path:
    """Lay the release's files out; a clone without history skips the test."""
    known = subprocess.run(["git", "cat-file", "-e", COMMIT], cwd=REPOSITORY, capture_output=True, check=False)
    if known.returncode:
        pytest.skip(f"this clone has no history: commit {COMMIT} is not in it")
    archive = folder / "release.tar"
    subprocess.run(["git", "archive", f"--output={archive}", COMMIT], cwd=REPOSITORY, check=True)
    tree = folder / "tree"
    tree.mkdir()
    subprocess.run(["tar", "-xf", str(archive), "-C", str(tree)], check=True)
    return tree


def build_image(tree: Path, folder: Path) -> str:
    """Build the release's image by its own script, onto the node."""
    context = folder / "context"
    script = tree / "hack" / "operator_context.py"
    subprocess.run([sys.executable, str(script), str(context)], check=True, stdout=subprocess.DEVNULL)
    launcher(
        "build-image",
        *("--file", str(context / "Dockerfile"), "--context", str(context)),
        *("--tag", IMAGE, "--build-arg", f"BASE_IMAGE={launcher('base-image')}"),
    )
    return IMAGE
