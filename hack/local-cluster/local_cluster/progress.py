"""Progress lines. They go to standard error: standard output is for results that scripts read."""

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from local_cluster.errors import ClusterError

REPORT_SECONDS = 20.0
LINE_LIMIT = 400


def say(message: str) -> None:
    """Print one progress line."""
    print(f"local-cluster: {message}", file=sys.stderr, flush=True)


def run_long(
    label: str, argv: Sequence[str], log: Path, *, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> None:
    """Run a long command, say every 20 seconds that it still runs, and keep its output in `log`.

    Raises:
        ClusterError: it failed; the message carries the end of its output.
    """
    say(f"{label}: started")
    log.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with log.open("wb") as sink:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, env=env, cwd=cwd)
        try:
            while True:
                try:
                    process.wait(REPORT_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    say(f"{label}: still running after {time.monotonic() - started:.0f} s ({last_line(log)})")
        except BaseException:
            process.terminate()
            process.wait()
            raise
    if process.returncode != 0:
        raise ClusterError(f"{label} failed with exit code {process.returncode} (log {log}):\n{tail(log)}")
    say(f"{label}: done in {time.monotonic() - started:.0f} s")


def tail(path: Path, lines: int = 8) -> str:
    """Return the last lines of a text file, or a sentence when there are none."""
    try:
        text = path.read_text(errors="replace").rstrip()
    except FileNotFoundError:
        text = ""
    return "\n".join(line[:LINE_LIMIT] for line in text.splitlines()[-lines:]) or "(nothing was logged)"


def last_line(path: Path) -> str:
    """Return the last line of a log, shortened to fit a progress line."""
    return tail(path, 1).strip()[:90]
