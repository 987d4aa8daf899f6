"""Programs and data of the small Go modules in hack/: built or fetched once, into the cache that the local cluster has.

Their versions are those of each module's go.mod, their content is held against its go.sum.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "local-cluster"))

from local_cluster.binaries import find_go, source_digest
from local_cluster.errors import ClusterError, RefusalError
from local_cluster.layout import cache_dir
from local_cluster.locks import locked
from local_cluster.progress import run_long

__all__ = ["ClusterError", "RefusalError", "cache_dir", "module_folder", "program"]

ENVIRONMENT = {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly", "GOWORK": "off"}


def program(source: Path, name: str, package: str = ".") -> Path:
    """Build a program of the module in `source` where it is missing, and return its path.

    Raises:
        RefusalError: no usable Go toolchain.
        ClusterError: the build failed, such as for want of its modules.
    """
    path = cache_dir() / f"{name}-{source_digest(source, platform.machine())}"
    with locked(f"build-{name}", f"it builds {name}"):
        if not path.exists():
            partial = path.with_name(f".{path.name}.partial")
            argv = [find_go(), "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", str(partial), package]
            log = cache_dir() / f"build-{name}.log"
            run_long(f"building {name}", argv, log, env={**os.environ, **ENVIRONMENT}, cwd=source)
            partial.rename(path)
    return path


def module_folder(source: Path, module: str) -> Path:
    """Return the folder with the content of a module that the module in `source` requires, fetched where it is missing.

    Raises:
        RefusalError: no usable Go toolchain.
        ClusterError: it cannot be fetched, or is not what go.sum says.
    """
    argv = [find_go(), "mod", "download", "-json", module]
    done = subprocess.run(
        argv, cwd=source, env={**os.environ, **ENVIRONMENT}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ClusterError(f"fetching {module}: {(done.stderr or done.stdout).strip()}")
    return Path(json.loads(done.stdout)["Dir"])
