"""Hold what this project says about NVIDIA's v4.1 tree against a checkout of it.

    make test-nvidia-tree TREE=<checkout of mlcommons/inference_results_v4.1>/closed/NVIDIA

The checkout is copied and never written to. Exit code 1 when a check does not hold, 2 when none can be made.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from mlperf_operator.suites import NVIDIA_V4_1
from real_tree import facts, makefiles, registry
from real_tree.report import Report
from real_tree.workplace import TreeError, copy_of, python_for


def main(arguments: list[str]) -> int:
    """Check the tree that the first argument names, and return the exit code."""
    if len(arguments) != 1 or not arguments[0]:
        sys.stderr.write(f"Error: {(__doc__ or '').strip().splitlines()[2].strip()}\n")
        return 2
    report = Report()
    try:
        with tempfile.TemporaryDirectory(prefix="nvidia-tree-") as name:
            check(Path(arguments[0]).resolve(), Path(name), report)
    except TreeError as error:
        sys.stderr.write(f"Error: {error}\n")
        return 2
    sys.stdout.write(report.summary() + "\n")
    return 1 if report.failed else 0


def check(path: Path, scratch: Path, report: Report) -> None:
    """Make all checks of a tree, working below `scratch`."""
    version = NVIDIA_V4_1.name.removeprefix("nvidia-")
    copy = copy_of(path, version, scratch)
    makefiles.check(copy, scratch, report)
    tree = registry.Tree(copy, python_for(scratch), scratch)
    registry.check(tree, report)
    facts.check(tree, NVIDIA_V4_1, report)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
