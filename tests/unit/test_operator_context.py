"""The script that fills the build folder of the operator's image."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "hack" / "operator_context.py"


def fill(target: Path, path: Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, str(SCRIPT), str(target)]
    return subprocess.run(argv, env={"PATH": str(path)}, capture_output=True, text=True, check=False)


def test_without_uv_it_says_how_to_get_it(tmp_path: Path) -> None:
    done = fill(tmp_path / "context", tmp_path)
    assert done.returncode == 2
    assert "uv is not on the PATH" in done.stderr
    assert not (tmp_path / "context").exists()


def test_a_folder_that_holds_something_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "uv").touch(mode=0o755)
    (tmp_path / "thesis.txt").write_text("years of work")
    done = fill(tmp_path, tmp_path)
    assert done.returncode == 2
    assert "is not empty and is no build context" in done.stderr
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
