"""The run's own copy of the code tree, from a folder or from a commit."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from mlperf_operator.agent.wrapper.errors import config_error
from mlperf_operator.agent.wrapper.files import write_atomically
from mlperf_operator.agent.wrapper.output import say
from mlperf_operator.agent.wrapper.state import Stage, Step
from mlperf_operator.agent.wrapper.trees import clear_work, copy_tree, remove_built, tree_digest
from mlperf_operator.agent.wrapper.tries import TRANSIENT_RETRIES, run_command

COMMIT_ID = re.compile(r"[0-9a-f]{40}")


def copy_code(stage: Stage, step: Step) -> None:
    """Make the run's own copy of the code tree in /work and remember its content's digest."""
    source = step["source"]
    # What other steps did in the tree goes with it.
    shutil.rmtree(stage.state / "markers", ignore_errors=True)
    clear_work(stage)
    if source["type"] == "Path":
        copy_tree(stage, code_origin(source), stage.work)
    else:
        copy_from_git(stage, step)
    remove_built(stage.work)
    for origin_name, target in step.get("files", {}).items():
        shutil.copyfile(origin_name, stage.work / target)
    digest = tree_digest(stage.work, stage.check_time)
    write_atomically(stage.state / "tree.sha256", digest)
    say(f"code tree {digest}")


def code_origin(source: dict[str, Any]) -> Path:
    """Return the folder of the code tree: the named one, or the folder of a checkout that the suite says."""
    named, folder = Path(source["path"]), source.get("subPath", "")
    tried = [named / folder, named] if folder else [named]
    for origin in tried:
        if (origin / "Makefile").is_file():
            return origin
    where = " nor ".join(map(str, tried))
    raise config_error(f"there is no code tree: no Makefile in {where}; name its folder, or a checkout's, in code.path")


def copy_from_git(stage: Stage, step: Step) -> None:
    """Copy a folder of exactly one commit of a repository, fetching no file beyond that folder where the server can."""
    source = step["source"]
    url, commit, folder = source["url"], source["commit"], source.get("subPath", "")
    if not COMMIT_ID.fullmatch(commit):
        raise config_error(f"{commit!r} is no full commit id")
    checkout = stage.state / "checkout"
    shutil.rmtree(checkout, ignore_errors=True)
    checkout.mkdir(parents=True)
    for retries, arguments in (
        (0, ["init", "-q"]),
        (0, ["remote", "add", "--", "origin", url]),
        (0, ["sparse-checkout", "set", folder] if folder else ["sparse-checkout", "disable"]),
        (TRANSIENT_RETRIES, ["fetch", "-q", "--depth", "1", "--filter=blob:none", "origin", commit]),
        (TRANSIENT_RETRIES, ["checkout", "-q", commit]),
    ):
        argv = ["git", "-C", str(checkout), *arguments]
        run_command(stage, {**step, "argv": argv, "env": {"GIT_TERMINAL_PROMPT": "0"}, "retries": retries})
    if not (checkout / folder).is_dir():
        raise config_error(f"commit {commit} has no folder {folder}")
    copy_tree(stage, checkout / folder, stage.work)
    shutil.rmtree(checkout)
