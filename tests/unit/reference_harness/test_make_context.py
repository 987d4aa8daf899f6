"""The script that fills the image's build context."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from unit.reference_harness.bench import SOURCE


def test_a_folder_that_holds_something_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    done = subprocess.run(
        [sys.executable, SOURCE / "make_context.py", tmp_path], stderr=subprocess.PIPE, text=True, check=False
    )
    assert done.returncode == 2
    assert "is not empty and is no build context: name another folder" in done.stderr
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
