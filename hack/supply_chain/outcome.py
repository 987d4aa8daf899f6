"""What a check found, and how a program of others is run for it."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


class Status(StrEnum):
    """How a check ended. What could not be looked at is skipped, and never counts as fine."""

    OK = "ok"
    SKIPPED = "skipped"
    FAILED = "FAILED"


@dataclass(frozen=True)
class Outcome:
    """One check: its name, how it ended, a short sentence, and the lines to act on where it failed."""

    name: str
    status: Status
    detail: str
    lines: tuple[str, ...] = ()

    def text(self) -> str:
        """Return it as it is printed."""
        head = f"{self.status:<8} {self.name:<22} {self.detail}"
        return "\n".join([head, *(f"         {line}" for line in self.lines)])


def judged(name: str, looked_at: str, problems: Sequence[str]) -> Outcome:
    """Return the outcome of a check that was made: fine where it found no problem."""
    if problems:
        return Outcome(name, Status.FAILED, looked_at, tuple(problems))
    return Outcome(name, Status.OK, looked_at)


def skipped(name: str, reason: str) -> Outcome:
    """Return the outcome of a check that could not be made."""
    return Outcome(name, Status.SKIPPED, reason)


def run(
    *argv: str | Path, stdin: str | None = None, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program in the repository, whatever it returns."""
    return subprocess.run(
        [str(part) for part in argv],
        cwd=REPOSITORY,
        input=stdin,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def said(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Return the lines that a program printed."""
    return [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
