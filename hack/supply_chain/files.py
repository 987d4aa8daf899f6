"""Shell scripts and Dockerfiles, all that git knows: nobody has to add a new one to a list."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from supply_chain.outcome import REPOSITORY, Outcome, judged, run, said, skipped

_SHEBANG = re.compile(rb"#!\s*(/usr/bin/env\s+|/(usr/)?bin/)(ba|da)?sh\b")
_FIRST_LINE = 80
_BYTES_OF_A_PROGRAM = 2


def known_files() -> list[Path]:
    """Return the files that git has or would take."""
    done = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    done.check_returncode()
    found = (REPOSITORY / name for name in done.stdout.split("\0") if name)
    return sorted(path for path in found if path.is_file())


def is_shell(path: Path, head: bytes) -> bool:
    """Say whether a file is a shell script: by its name, else by its first line."""
    return path.suffix in {".sh", ".bash"} or _SHEBANG.match(head) is not None


def is_dockerfile(path: Path) -> bool:
    """Say whether a file is a Dockerfile."""
    return path.name == "Dockerfile"


def shell_scripts(files: Iterable[Path]) -> list[Path]:
    """Return the shell scripts among these files."""
    return [path for path in files if is_shell(path, _head(path))]


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        if path.suffix or file.read(_BYTES_OF_A_PROGRAM) != b"#!":
            return b""
        file.seek(0)
        return file.read(_FIRST_LINE)


def scripts() -> Outcome:
    """Check every shell script with shellcheck; .shellcheckrc says what it may assume."""
    found = shell_scripts(known_files())
    with_first_line = [path for path in found if path.read_bytes().startswith(b"#!")]
    sourced = [path for path in found if path not in with_first_line]
    problems = said(run("shellcheck", "--format=gcc", *with_first_line))
    # A file without a first line is sourced, by bash.
    problems += said(run("shellcheck", "--format=gcc", "--shell=bash", *sourced)) if sourced else []
    return judged("shellcheck", f"{len(found)} shell scripts", [_short(line) for line in problems])


def dockerfiles() -> Outcome:
    """Check every Dockerfile with hadolint; what it may not mind is said in the file itself."""
    found = [path for path in known_files() if is_dockerfile(path)]
    if shutil.which("hadolint") is None:
        return skipped("hadolint", "there is no hadolint: PyPI has it for Linux on x86_64")
    problems = said(run("hadolint", "--no-color", "--format=gnu", *found))
    # The one that users are given for an image of their own; like a run's prebuild it has its steps apart.
    given = run("mlperf-operator", "suite", "dockerfile")
    problems += said(run("hadolint", "--no-color", "--format=gnu", "--ignore=DL3059", "-", stdin=given.stdout))
    return judged("hadolint", f"{len(found) + 1} Dockerfiles", [_short(line) for line in problems])


def _short(line: str) -> str:
    return line.replace(f"{REPOSITORY}/", "")
