"""Fills a folder from which the operator's image is built: Dockerfile, wheel, and the wheels that uv.lock pins."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


def run(*argv: str, output: bool = False) -> str:
    """Run a command in the repository and return what it printed, if asked for."""
    done = subprocess.run(argv, cwd=REPOSITORY, check=True, text=True, stdout=subprocess.PIPE if output else None)
    return done.stdout or ""


def requirements() -> str:
    """Return the pinned requirements of the operator itself, with what its traces need."""
    what = ("--frozen", "--no-default-groups", "--extra=tracing", "--no-emit-project")
    return run("uv", "export", "--quiet", *what, "--no-hashes", "--no-annotate", "--no-header", output=True)


def platforms(machine: str) -> list[str]:
    """Return pip's options for the wheels that run on Debian 12 (glibc 2.36) on this machine."""
    glibc = [f"manylinux_2_{minor}" for minor in range(36, 16, -1)]
    return [f"--platform={tag}_{machine}" for tag in (*glibc, "manylinux2014")]


def fill(target: Path, python_version: str, machines: Sequence[str] = ()) -> None:
    """Fill the folder, replacing what an earlier call left there; no machines: for this one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
        fresh = Path(folder) / "context"
        wheels = fresh / "wheels"
        wheels.mkdir(parents=True)
        listed = wheels / "requirements.txt"
        listed.write_text(requirements())
        pip = ("uv", "run", "--quiet", "--no-project", "--with=pip", "python", "-m", "pip", "download", "--quiet")
        for machine in machines or ("",):
            run(
                *pip,
                "--no-deps",
                "--only-binary=:all:",
                f"--python-version={python_version}",
                *(platforms(machine) if machine else ()),
                f"--dest={wheels}",
                f"--requirement={listed}",
            )
        run("uv", "build", "--quiet", "--wheel", f"--out-dir={wheels}")
        (wheels / ".gitignore").unlink(missing_ok=True)
        shutil.copy(REPOSITORY / "Dockerfile", fresh / "Dockerfile")
        if target.exists():
            shutil.rmtree(target)
        fresh.rename(target)


def main(argv: list[str]) -> None:
    """Parse the command line and fill the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", type=Path, help="folder to fill; what is in it is replaced")
    parser.add_argument("--python-version", default="3.11", help="Python of the base image (default: %(default)s)")
    parser.add_argument(
        "--machine", action="append", default=[], choices=("x86_64", "aarch64"), help="for these (default: this one)"
    )
    options = parser.parse_args(argv)
    if shutil.which("uv") is None:
        parser.error('uv is not on the PATH: export PATH="$(hack/bootstrap.sh):$PATH"')
    target = options.target.absolute()
    if target.is_dir() and any(target.iterdir()) and not (target / "Dockerfile").is_file():
        parser.error(f"{target} is not empty and is no build context: name another folder")
    fill(target, options.python_version, options.machine)
    print(target)


if __name__ == "__main__":
    main(sys.argv[1:])
