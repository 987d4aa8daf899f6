"""The Makefile's own list of what it can do."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_help_lists_every_target_with_programs_that_each_debian_has(tmp_path: Path) -> None:
    # `column`, for one, is no part of a minimal Debian.
    for name in ("bash", "grep", "awk"):
        (tmp_path / name).symlink_to(f"/usr/bin/{name}")
    environment = {"PATH": str(tmp_path), "HOME": str(tmp_path)}
    argv = ["/usr/bin/make", "-C", str(ROOT), "--no-print-directory", "help", "SHELL=/bin/bash"]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    listed = {line.split()[0] for line in done.stdout.splitlines()}
    assert listed >= {"demo", "test", "unit", "integration", "e2e", "bench-latency", "clean-cluster"}
    assert all(len(line.split(maxsplit=1)) == 2 for line in done.stdout.splitlines())
