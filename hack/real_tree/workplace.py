"""A copy of the tree to work in, so that nothing is ever written to the user's checkout, and Python for it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

NEEDED = (
    *("VERSION", "Makefile", "Makefile.const", "Makefile.docker", "Makefile.build", "Makefile.data"),
    *("configs/configuration.py", "code/main.py", "code/common/fields.py", "code/common/systems/system_list.py"),
)
"""What tells that a folder is closed/NVIDIA, and whole enough."""

PACKAGES = ("numpy>=1.26,<3", "pyyaml>=6,<7", "typeguard>=4.1,<5")
"""What the tree's configuration code imports; TensorRT is not needed with OUTSIDE_MLPINF_ENV=1."""


class TreeError(Exception):
    """The folder cannot be checked; the message says why."""


def copy_of(tree: Path, version: str, folder: Path) -> Path:
    """Copy the tree below a folder, without what was built in it.

    Raises:
        TreeError: it is no checkout of that version.
    """
    absent = [name for name in NEEDED if not (tree / name).is_file()]
    if absent:
        raise TreeError(
            f"{tree} is not closed/NVIDIA of mlcommons/inference_results_{version}, or its checkout is sparse; "
            f"it lacks {', '.join(absent)}"
        )
    found = (tree / "VERSION").read_text().strip()
    if found != version:
        raise TreeError(f"{tree} is version {found}; this checks {version}")
    copy = folder / "tree"
    shutil.copytree(tree, copy, symlinks=True, ignore=lambda path, _: {"build"} if Path(path) == tree else set())
    return copy


def python_for(folder: Path) -> Path:
    """Make a throw-away environment with what the tree imports, and return its interpreter.

    Raises:
        TreeError: uv cannot make it.
    """
    place = folder / "venv"
    for command in (["venv", str(place)], ["pip", "install", "--python", str(place), *PACKAGES]):
        done = subprocess.run(["uv", *command, "--quiet"], capture_output=True, text=True, check=False)
        if done.returncode:
            raise TreeError(f"uv {command[0]} failed: {done.stderr.strip()[-500:]}")
    return place / "bin" / "python"
