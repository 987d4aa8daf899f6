"""The files of a release: sdist, wheel, chart, bills of materials and their checksums, the same bytes each time."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path

import yaml
from local_cluster.binaries import ensure_programs

from supply_chain import sbom
from supply_chain.outcome import REPOSITORY, run

DIST = REPOSITORY / "dist"
CHART = REPOSITORY / "charts/mlperf-operator"
CHECKSUMS = "SHA256SUMS"


class ReleaseError(Exception):
    """A part of the release cannot be made; the message says why."""


def packages(target: Path) -> list[Path]:
    """Build sdist and wheel into a folder; the wheel from the sdist, which so proves to be whole."""
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(sbom.epoch())}
    done = run("uv", "build", "--quiet", "--out-dir", target, environment=environment)
    if done.returncode:
        raise ReleaseError(done.stderr.strip())
    (target / ".gitignore").unlink(missing_ok=True)
    return sorted([*target.glob("*.whl"), *target.glob("*.tar.gz")])


def split(reference: str) -> tuple[str, str]:
    """Return repository and tag of an image; with a digest, the tag is followed by it, as in 1.0.0@sha256:....

    Raises:
        ReleaseError: it has no tag, or a digest that is none.
    """
    found = re.fullmatch(r"(?P<name>.+?):(?P<tag>[\w][\w.-]*(?:@sha256:[0-9a-f]{64})?)", reference)
    if found is None or "/" in found["tag"] or "@" in found["name"]:
        raise ReleaseError(f"{reference!r}: REPOSITORY:TAG and REPOSITORY:TAG@sha256:<64 digits> are possible")
    return found["name"], found["tag"]


def released_values(values: str, operator_image: str, harness_image: str) -> str:
    """Return the chart's values.yaml with the images of a release as its defaults; all else stays, comments too.

    Raises:
        ReleaseError: an image is no reference, or the file no longer has the lines that are replaced.
    """
    repository, tag = split(operator_image)
    split(harness_image)
    changes = (
        ("  repository: mlperf-operator\n", f"  repository: {repository}\n"),
        ('  tag: ""\n', f'  tag: "{tag}"\n'),
        ("suiteImages: {}\n", f"suiteImages:\n  reference-cpu: {harness_image}\n"),
    )
    for before, after in changes:
        if values.count(before) != 1:
            raise ReleaseError(f"values.yaml must have this line once: {before!r}")
        values = values.replace(before, after)
    image = yaml.safe_load(values)["image"]
    if (image["repository"], image["tag"]) != (repository, tag):
        raise ReleaseError(f"values.yaml does not take the image {operator_image!r}: it says {image}")
    return values


def chart(target: Path, operator_image: str, harness_image: str) -> Path:
    """Package the chart with these images as its defaults, and return the archive.

    Raises:
        ReleaseError: helm does not take the chart, or an image is no reference.
    """
    helm = ensure_programs("helm") / "helm"
    with tempfile.TemporaryDirectory(prefix="chart-") as folder:
        copy = Path(folder) / CHART.name
        shutil.copytree(CHART, copy)
        values = copy / "values.yaml"
        values.write_text(released_values(values.read_text(), operator_image, harness_image))
        for argv in (("lint", "--strict", copy), ("package", copy, "--destination", folder)):
            done = run(helm, *argv)
            if done.returncode:
                raise ReleaseError(f"helm {argv[0]}: {(done.stdout + done.stderr).strip()}")
        (archive,) = Path(folder).glob("*.tgz")
        target.mkdir(parents=True, exist_ok=True)
        result = target / archive.name
        result.write_bytes(repeatable(archive.read_bytes(), sbom.epoch()))
    return result


def repeatable(archive: bytes, seconds: int) -> bytes:
    """Return a .tar.gz with the same files whose bytes depend on their content alone: helm writes the time into it."""
    packed = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as source,
        gzip.GzipFile(filename="", fileobj=packed, mode="wb", mtime=seconds) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as target,
    ):
        for member in sorted((m for m in source.getmembers() if m.isfile()), key=lambda m: m.name):
            plain = tarfile.TarInfo(member.name)
            plain.size, plain.mode, plain.mtime = member.size, 0o644, seconds
            target.addfile(plain, source.extractfile(member))
    return packed.getvalue()


def bills(target: Path) -> list[Path]:
    """Write the bills of materials into a folder."""
    target.mkdir(parents=True, exist_ok=True)
    return [Path(shutil.copy(sbom.write(name, sbom.from_lock(name)), target)) for name in sbom.GROUPS]


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def checksums(files: Iterable[Path], target: Path) -> Path:
    """Write the checksums of a release's files, as `sha256sum --check` reads them."""
    lines = [f"{digest(path)}  {path.name}\n" for path in sorted(files, key=lambda path: path.name)]
    result = target / CHECKSUMS
    result.write_text("".join(lines))
    return result
