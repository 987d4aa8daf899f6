"""The script that fills the image's build context."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from unit.reference_harness.bench import SOURCE


def fill(target: Path, path: Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, str(SOURCE / "make_context.py"), str(target)]
    return subprocess.run(argv, env={"PATH": str(path)}, stderr=subprocess.PIPE, text=True, check=False)


def test_without_uv_it_says_how_to_get_it(tmp_path: Path) -> None:
    done = fill(tmp_path / "context", tmp_path)
    assert done.returncode == 2
    assert "uv is not on the PATH" in done.stderr


def test_a_folder_that_holds_something_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    (tmp_path / "uv").touch(mode=0o755)
    done = fill(tmp_path, tmp_path)
    assert done.returncode == 2
    assert "is not empty and is no build context: name another folder" in done.stderr
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
