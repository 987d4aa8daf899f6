"""What surrounds the stand-in tree: packages, wheels, downloads and git repositories, made from text by real tools."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
TREE = HERE / "tree"
REPOSITORIES = HERE / "repositories"
TAG = "standin-v4.1"
CUDA_SOURCE = HERE.parent / "e2e" / "standin_gpu" / "cuda.c"

INFERENCE_CASES = tuple(f"case_{number:05}" for number in (*range(41), 185, 400))
CALIBRATION_CASES = tuple(f"case_{number:05}" for number in (137, *range(200, 219)))
URLS = {
    "https://github.com/mlcommons/inference.git": "inference",
    "https://github.com/mlcommons/power-dev.git": "power-dev",
    "https://github.com/NVIDIA/DeepLearningExamples.git": "DeepLearningExamples",
}
"""The repositories that the build clones, and our stand-ins of them."""

SUBMISSION_URL = "https://github.com/mlcommons/inference_results_v4.1"
SUBMISSION, SUBMISSION_FOLDER = "inference_results_v4.1", "closed/NVIDIA"
"""The repository that holds the tree, by name, and the tree's folder in it."""

_LIB = '''"""Stand-in for tests: what the accuracy scripts import."""

VERSION = "2.0"


def share_of_right_answers(entries):
    """Return the share of LoadGen's accuracy log whose answers are right."""
    right = sum(
        int.from_bytes(bytes.fromhex(e["data"]), "little", signed=True) == (e["qsl_idx"] * 7919 + 13) % 65537
        for e in entries
    )
    return right / len(entries)
'''
_BACKEND = '''"""Stand-in for tests: builds the wheel of a project that is nothing but a name."""

import os
import zipfile


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    name, info = "standin_loadgen-4.1-py3-none-any.whl", "standin_loadgen-4.1.dist-info"
    with zipfile.ZipFile(os.path.join(wheel_directory, name), "w") as wheel:
        wheel.writestr("standin_loadgen.py", "VERSION = '4.1'")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\\nName: standin-loadgen\\nVersion: 4.1\\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(f"{info}/RECORD", "")
    return name
'''
COMPILER = """#!/bin/sh
# Stand-in for tests: writes what a build of the tree in a folder leaves.
set -eu
build=$1/build
mkdir -p "$build/harness" "$build/bin" "$build/inference/loadgen/build"
echo "CMAKE_HOME_DIRECTORY=$1" >"$build/harness/CMakeCache.txt"
for name in bert 3dunet; do
  printf '#!/bin/sh\\nexit 0\\n' >"$build/bin/harness_$name"
  chmod +x "$build/bin/harness_$name"
done
for name in pixelShuffle3DPlugin/libpixelshuffle3dplugin conv3D1X1X1K4Plugin/libconv3D1X1X1K4Plugin \\
  conv3D3X3X3C1K32Plugin/libconv3D3X3X3C1K32Plugin; do
  mkdir -p "$build/plugins/${name%/*}"
  echo plugin >"$build/plugins/$name.so"
done
echo library >"$build/inference/loadgen/build/libmlperf_loadgen.a"
"""
_SCRIPT = "#!/bin/sh\n# Stand-in for tests.\nexit 0\n"


def add_deb(folder: Path, name: str, files: Mapping[str, str], scripts: Mapping[str, str] | None = None) -> Path:
    """Build a Debian package into a folder."""
    place = folder / f"{name}_1.0_all.deb"
    control = f"Package: {name}\nVersion: 1.0\nArchitecture: all\nMaintainer: Tests <tests@example.invalid>\n"
    texts = {"DEBIAN/control": f"{control}Description: stand-in for tests\n", **files}
    texts |= {f"DEBIAN/{key}": text for key, text in (scripts or {}).items()}
    with tempfile.TemporaryDirectory() as work:
        for path, content in texts.items():
            file = Path(work, "tree", path)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
            file.chmod(0o755 if content.startswith("#!") else 0o644)
        argv = ["dpkg-deb", "--build", "--root-owner-group", "-Znone", f"{work}/tree", str(place)]
        subprocess.run(argv, check=True, capture_output=True)
    return place


def add_wheel(folder: Path, name: str, version: str, files: Mapping[str, str]) -> Path:
    """Build a wheel into a folder."""
    module, info = name.replace("-", "_"), f"{name.replace('-', '_')}-{version}.dist-info"
    texts = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    place = folder / f"{module}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(place, "w") as wheel:
        for path, content in texts.items():
            wheel.writestr(zipfile.ZipInfo(path), content)
        wheel.writestr(zipfile.ZipInfo(f"{info}/RECORD"), "".join(f"{path},,\n" for path in [*texts, f"{info}/RECORD"]))
    return place


def add_wheels(folder: Path) -> Path:
    """Build the wheels that `prebuild` installs, and the one that the build of LoadGen needs."""
    folder.mkdir(parents=True, exist_ok=True)
    names = ("transformers", "typeguard", "nibabel")
    add_wheel(folder, "standin-lib", "2.0", {"standin_lib.py": _LIB})
    add_wheel(folder, "standin-more", "1.0", {f"{name}.py": 'VERSION = "1.0"\n' for name in ("standin_more", *names)})
    add_wheel(folder, "pybind11", "2.11.1", {"standin_backend.py": _BACKEND})
    add_wheel(folder, "setuptools", "75.0", {})
    add_wheel(folder, "wheel", "0.45", {})
    return folder


def add_repository(folder: Path) -> Path:
    """Build the apt repository of the image."""
    folder.mkdir(parents=True)
    programs = ("numactl", "ccache", "gcc-9", "g++-9", "gcc-11", "g++-11")
    files = {"usr/bin/standin-cc": COMPILER, **{f"usr/bin/{name}": _SCRIPT for name in programs}}
    deb = add_deb(folder, "standin-tools", files, {"postinst": "#!/bin/sh\necho standin-tools: configured\n"})
    control = subprocess.run(["dpkg-deb", "--field", str(deb)], check=True, capture_output=True, text=True).stdout
    facts = {"Filename": f"./{deb.name}", "Size": deb.stat().st_size, "SHA256": _sha256(deb.read_bytes())}
    (folder / "Packages").write_text(control + "".join(f"{key}: {value}\n" for key, value in facts.items()))
    return folder


def add_old(folder: Path) -> Path:
    """Build what the image has and `prebuild` removes or replaces."""
    folder.mkdir(parents=True)
    files = {"usr/share/standin-old/data": "old\n", "usr/lib/python3/dist-packages/standin_old.py": "VERSION = 1\n"}
    add_deb(folder, "standin-old", files)
    replaced = {"standin_lib.py": 'VERSION = "1.0"\n', "standin_lib_of_version_1.py": "\n"}
    add_wheel(folder, "standin-lib", "1.0", replaced)
    return folder


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@cache
def downloads() -> dict[str, bytes]:
    """Return everything that the tree downloads, by path below scratch; the same bytes every time."""
    found = {
        "data/squad/dev-v1.1.json": json.dumps({"data": [], "version": "1.1"}).encode(),
        "models/bert/bert_large_v1_1.onnx": _noise(4096, 1),
        "models/bert/bert_large_v1_1_fake_quant.onnx": _noise(4096, 2),
        "models/bert/vocab.txt": "".join(f"token{number}\n" for number in range(20_000)).encode(),
        "models/3d-unet-kits19/3dUNetKiTS19.onnx": _noise(4096, 3),
        "data/KiTS19/inference_cases.json": json.dumps(INFERENCE_CASES).encode(),
        "data/KiTS19/calibration_cases.json": json.dumps(CALIBRATION_CASES).encode(),
    }
    for case in (*INFERENCE_CASES, *CALIBRATION_CASES):
        if case != "case_00400":  # Made from case_00185.
            folder = f"data/KiTS19/kits19/data/{case}"
            size = 1_100_000 if case == "case_00185" else 1000
            found[f"{folder}/imaging.nii.gz"] = _packed(_noise(size, hash_of(case)))
            found[f"{folder}/segmentation.nii.gz"] = _packed(_noise(500, hash_of(case) + 1))
    return found


def hash_of(text: str) -> int:
    """Return a number of a text, the same in every process."""
    return int(_sha256(text.encode())[:8], 16)


def _noise(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)  # noqa: S311 - nothing secret, and the same every time


def _packed(content: bytes) -> bytes:
    return gzip.compress(content, compresslevel=1, mtime=0)


def add_downloads(folder: Path) -> Path:
    """Write what the tree downloads."""
    for path, content in downloads().items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


def add_git(folder: Path) -> Path:
    """Make the bare repositories that the build clones: one has another as its submodule."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        for name in ("DeepLearningExamples", "power-dev", "inference", SUBMISSION):
            source = Path(work, name)
            if name == SUBMISSION:
                copy_tree(source / SUBMISSION_FOLDER)
            else:
                shutil.copytree(REPOSITORIES / name, source)
            _git(source, "init", "-q", "-b", "master")
            _git(source, "add", "-A")
            if name == "inference":
                _add_submodule(source, Path(work, "DeepLearningExamples"))
            _git(source, "commit", "-q", "-m", "Stand-in for tests")
            _git(source, "tag", TAG)
            bare = folder / f"{name}.git"
            _git(source, "clone", "-q", "--bare", str(source), str(bare))
            _git(bare, "config", "uploadpack.allowFilter", "true")
    return folder


@cache
def submission_commit() -> str:
    """Return the commit of the repository that holds the tree, the same wherever it is made."""
    with tempfile.TemporaryDirectory() as work:
        return _git(add_git(Path(work)) / f"{SUBMISSION}.git", "rev-parse", "HEAD").strip()


def _add_submodule(source: Path, module: Path) -> None:
    path, url = "language/bert/DeepLearningExamples", "https://github.com/NVIDIA/DeepLearningExamples.git"
    (source / ".gitmodules").write_text(f'[submodule "{path}"]\n\tpath = {path}\n\turl = {url}\n')
    _git(source, "add", ".gitmodules")
    commit = _git(module, "rev-parse", "HEAD").strip()
    _git(source, "update-index", "--add", "--cacheinfo", f"160000,{commit},{path}")


def _git(folder: Path, *arguments: str) -> str:
    moment = "2024-08-01T12:00:00Z"
    who = {
        f"GIT_{role}_{what}": "tests@example.invalid" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    when = {"GIT_AUTHOR_DATE": moment, "GIT_COMMITTER_DATE": moment}
    environment = {**os.environ, **who, **when, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
    return subprocess.check_output(["git", "-C", str(folder), *arguments], env=environment, text=True)


def add_library(place: Path) -> None:
    """Compile a shared library that needs no other."""
    argv = ["cc", "-shared", "-fPIC", "-nostdlib", "-ffreestanding", "-o", str(place), str(CUDA_SOURCE)]
    subprocess.run(argv, check=True)


def copy_tree(target: Path) -> Path:
    """Copy the tree as a checkout of it has it."""
    shutil.copytree(TREE, target, ignore=shutil.ignore_patterns("__pycache__", "build"), dirs_exist_ok=True)
    return target


def make_context(folder: Path) -> Path:
    """Fill a folder from which the image is built, replacing what an earlier call left there."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(HERE / "image", folder)
    standin = folder / "standin"
    copy_tree(standin / "checkout" / "closed" / "NVIDIA")
    add_downloads(standin / "downloads")
    add_repository(standin / "repository")
    add_old(standin / "old")
    add_wheels(standin / "wheels")
    add_library(folder / "libcuda.so.1")
    shutil.copy(folder / "libcuda.so.1", standin / "libstandin.so.1")
    add_git(standin / "git")
    (folder / "pip.conf").write_text("[global]\nno-index = true\nfind-links = /opt/standin/wheels\n")
    (standin / "gitconfig").write_text(git_config("/opt/standin/git"))
    return folder


def git_config(folder: str) -> str:
    """Return git's configuration with which the URLs of the build lead to a folder, as they would to the network."""
    all_urls = {**URLS, SUBMISSION_URL: SUBMISSION}
    urls = "".join(f'[url "file://{folder}/{name}.git"]\n\tinsteadOf = {url}\n' for url, name in all_urls.items())
    return f'[protocol "file"]\n\tallow = always\n{urls}'
