"""Fills a folder from which the reference harness's image is built.

The folder holds the Dockerfile, the harness's tree and, as site-packages, the libraries that uv.lock pins. Of
scikit-learn only the digits data and its licence are taken: all of it, with SciPy, would be almost 150 MB more.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HARNESS = Path(__file__).resolve().parent
REPOSITORY = HARNESS.parent
TREE = ("Makefile", "Makefile.docker", "README.md", "code", "configs", "harness")
NOT_IMPORTED = ("pyyaml", "scikit-learn", "skl2onnx")
"""Members of the dependency group `harness` that the harness itself never imports."""

DATA = Path("sklearn", "datasets", "data", "digits.csv.gz")
DATA_SOURCE = "scikit-learn"
USELESS_FOLDERS = ("test", "tests", "__pycache__", "include", "bin")


def export(*arguments: str) -> list[str]:
    """Return pinned requirements of the dependency group `harness`, one an item."""
    argv = [
        "uv",
        "export",
        "--quiet",
        "--frozen",
        "--only-group=harness",
        "--no-hashes",
        "--no-annotate",
        "--no-header",
    ]
    done = subprocess.run([*argv, *arguments], cwd=REPOSITORY, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.splitlines()


def install(requirements: list[str], target: Path, python_version: str) -> None:
    """Unpack the wheels of exactly these requirements into a folder."""
    argv = ["uv", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:", f"--python-version={python_version}"]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(requirements) + "\n")
        file.flush()
        subprocess.run([*argv, f"--target={target}", f"--requirements={file.name}"], cwd=REPOSITORY, check=True)


def add_libraries(target: Path, python_version: str) -> None:
    """Fill site-packages with what the harness imports, without tests and headers."""
    install(export(*(f"--prune={name}" for name in NOT_IMPORTED)), target, python_version)
    for path in sorted(target.rglob("*"), reverse=True):
        if path.is_dir() and path.name in USELESS_FOLDERS:
            shutil.rmtree(path)


def add_data(target: Path, python_version: str) -> None:
    """Put scikit-learn's digits where its own package has them, with its licence."""
    wanted = [line for line in export() if line.startswith(f"{DATA_SOURCE}==")]
    with tempfile.TemporaryDirectory() as folder:
        install(wanted, Path(folder), python_version)
        destination = target / DATA
        destination.parent.mkdir(parents=True)
        shutil.copy(Path(folder) / DATA, destination)
        (licence,) = Path(folder).glob("scikit_learn-*.dist-info/licenses/COPYING")
        shutil.copy(licence, destination.with_name("COPYING"))


def make_context(target: Path, python_version: str) -> None:
    """Fill the folder, replacing what an earlier call left there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
        fresh = Path(folder) / "context"
        add_libraries(fresh / "site-packages", python_version)
        add_data(fresh / "site-packages", python_version)
        shutil.copy(HARNESS / "Dockerfile", fresh / "Dockerfile")
        (fresh / "tree").mkdir()
        for name in TREE:
            source, destination = HARNESS / name, fresh / "tree" / name
            if source.is_dir():
                shutil.copytree(source, destination, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, destination)
        if target.exists():
            shutil.rmtree(target)
        fresh.rename(target)


def main(argv: list[str]) -> None:
    """Parse the command line and fill the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", type=Path, help="folder to fill; what is in it is replaced")
    parser.add_argument("--python-version", default="3.11", help="Python of the base image (default: %(default)s)")
    options = parser.parse_args(argv)
    if shutil.which("uv") is None:
        parser.error('uv is not on the PATH: export PATH="$(hack/bootstrap.sh):$PATH"')
    target = options.target.absolute()
    if target.is_dir() and any(target.iterdir()) and not (target / "Dockerfile").is_file():
        parser.error(f"{target} is not empty and is no build context: name another folder")
    make_context(target, options.python_version)
    print(target)


if __name__ == "__main__":
    main(sys.argv[1:])
