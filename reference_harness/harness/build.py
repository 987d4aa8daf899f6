"""`prebuild` and `build`: the libraries are checked, the tree is compiled, build/manifest.json says what was built."""

from __future__ import annotations

import argparse
import compileall
import hashlib
import importlib
import json
import sys
from importlib.metadata import version

from harness.constants import HarnessError
from harness.log import LOG, configure_logging
from harness.scratch import BUILD, TREE, write_whole

LIBRARIES = {
    "mlperf_loadgen": "mlcommons-loadgen",
    "numpy": "numpy",
    "onnx": "onnx",
    "onnxruntime": "onnxruntime",
}
"""Module and distribution of everything that the harness imports."""

PACKAGES = ("code", "configs", "harness")
OLDEST_PYTHON = (3, 11)


def check_environment() -> dict[str, str]:
    """Import every library and return its version.

    Raises:
        HarnessError: one is missing or cannot be loaded, or Python is too old.
    """
    if sys.version_info < OLDEST_PYTHON:
        raise HarnessError(f"Python {sys.version.split()[0]} is too old: 3.11 or newer is needed")
    versions = {"python": sys.version.split()[0]}
    for module, distribution in LIBRARIES.items():
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise HarnessError(f"cannot import {module} ({distribution}): {error}") from error
        versions[distribution] = version(distribution)
    return versions


def build() -> None:
    """Compile the tree's packages and write build/manifest.json.

    Raises:
        HarnessError: a file does not compile.
    """
    versions = check_environment()
    for package in PACKAGES:
        if not compileall.compile_dir(TREE / package, quiet=1):
            raise HarnessError(f"{package}/ does not compile; the lines above say where")
    manifest = {"versions": versions, "sources": _digests()}
    write_whole(BUILD / "manifest.json", (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode())
    LOG.info("Built %d files; %s says with which libraries.", len(manifest["sources"]), BUILD / "manifest.json")


def _digests() -> dict[str, str]:
    files = sorted(path for package in PACKAGES for path in (TREE / package).rglob("*.py"))
    return {str(path.relative_to(TREE)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def main(argv: list[str]) -> None:
    """Check, or check and build."""
    parser = argparse.ArgumentParser(prog="harness.build")
    parser.add_argument("--check-only", action="store_true")
    if parser.parse_args(argv).check_only:
        LOG.info("The environment holds %s.", ", ".join(f"{k} {v}" for k, v in check_environment().items()))
    else:
        build()


if __name__ == "__main__":
    configure_logging()
    try:
        main(sys.argv[1:])
    except (HarnessError, OSError) as error:
        LOG.error("%s", error)
        sys.exit(1)
