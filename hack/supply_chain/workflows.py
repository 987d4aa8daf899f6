"""The workflows of GitHub Actions: actionlint, and every action pinned by the whole SHA of a commit."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from go_programs import ClusterError, RefusalError, program
from supply_chain.manifests import LINT_TOOLS, PROGRAMS
from supply_chain.outcome import REPOSITORY, Outcome, judged, run, said, skipped

WORKFLOWS = REPOSITORY / ".github/workflows"
_USES = re.compile(r"^\s*(?:-\s*)?uses:\s*(?P<what>\S+)(?P<comment>.*)$")
_PINNED = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}|docker://\S+@sha256:[0-9a-f]{64}|\./\S+")
_VERSION = re.compile(r"\s+# v\d+\.\d+\.\d+\S*\s*")


def files() -> list[Path]:
    """Return the workflows."""
    return sorted([*WORKFLOWS.glob("*.yml"), *WORKFLOWS.glob("*.yaml")])


def unpinned(text: str) -> list[str]:
    """Return each action that is not pinned by a commit with its version as a comment: a tag can be moved."""
    lines = []
    for number, line in enumerate(text.splitlines(), start=1):
        found = _USES.match(line)
        if found is None:
            continue
        what, comment = found["what"], found["comment"]
        if not _PINNED.fullmatch(what):
            lines.append(f"{number}: {what}: OWNER/NAME@<SHA of the commit> # vX.Y.Z is possible")
        elif "@" in what and not what.startswith("docker://") and not _VERSION.fullmatch(comment):
            lines.append(f"{number}: {what}: its version is missing: # vX.Y.Z")
    return lines


def check() -> Outcome:
    """Check every workflow, the shell in it too."""
    name, workflows = "actionlint", files()
    try:
        actionlint = program(LINT_TOOLS, name, PROGRAMS[name])
    except (ClusterError, RefusalError) as error:
        return skipped(name, str(error))
    shellcheck = shutil.which("shellcheck")
    if shellcheck is None:
        return skipped(name, "there is no shellcheck for the shell in workflows")
    problems = said(run(actionlint, "-no-color", "-oneline", f"-shellcheck={shellcheck}", *workflows))
    problems += [f"{path.relative_to(REPOSITORY)}:{line}" for path in workflows for line in unpinned(path.read_text())]
    return judged(name, f"{len(workflows)} workflows, each action pinned", problems)
