"""What `prebuild` must have installed, and removed, before the stages after it can work."""

from __future__ import annotations

import ctypes
import importlib
import shutil
from pathlib import Path

from standin.faults import faults

GONE = ("/usr/share/standin-old/data", "/usr/lib/python3/dist-packages/standin_old.py")


class EnvironmentLacksError(RuntimeError):
    """The environment is not the one that `prebuild` makes."""


def check() -> None:
    """Look for the pip packages, the apt package's program, the shared library, and for what must be gone.

    Raises:
        EnvironmentLacksError: what is not as it should be.
    """
    if "unchecked" in faults("environment"):
        return
    problems = []
    for module, version in (("standin_lib", "2.0"), ("standin_more", "1.0")):
        try:
            found = importlib.import_module(module).VERSION
        except ModuleNotFoundError:
            found = "missing"
        problems += [f"Python package {module} is {found}, not {version}"] if found != version else []
    problems += [] if shutil.which("standin-cc") else ["no program standin-cc"]
    problems += [] if Path("/usr/bin/gcc").resolve().name == "gcc-11" else ["gcc is not the alternative gcc-11"]
    problems += [f"{path} is still there" for path in GONE if Path(path).exists()]
    try:
        ctypes.CDLL("libglog.so.0")
    except OSError as error:
        problems.append(f"{error} (is it in the loader's cache?)")
    if problems:
        raise EnvironmentLacksError("; ".join(problems))


if __name__ == "__main__":
    check()
