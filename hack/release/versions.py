"""One version everywhere, and a release's notes: read from pyproject.toml, Chart.yaml and CHANGELOG.md."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

UNRELEASED = "Unreleased"
_HEADING = re.compile(r"^## \[(?P<version>[^\]]+)\](?: - (?P<date>\d{4}-\d{2}-\d{2}))?\s*$", re.MULTILINE)
_VERSION = re.compile(r"\d+\.\d+\.\d+(?:-[0-9A-Za-z.-]+)?")


class Sources(NamedTuple):
    """The texts of the files that tell a version."""

    pyproject: str
    chart: str
    changelog: str


def read(repository: Path) -> Sources:
    """Return the texts of a checkout."""
    names = ("pyproject.toml", "charts/mlperf-operator/Chart.yaml", "CHANGELOG.md")
    return Sources(*((repository / name).read_text() for name in names))


def project_version(pyproject: str) -> str:
    """Return the version that pyproject.toml names."""
    return str(tomllib.loads(pyproject)["project"]["version"])


def inconsistencies(texts: Sources, tag: str = "") -> list[str]:
    """Return what speaks against a release with this tag (`v` and the version).

    Without a tag it is none yet: then the changelog may still have everything under Unreleased.
    """
    version = project_version(texts.pyproject)
    described: Mapping[str, Any] = yaml.safe_load(texts.chart)
    wrong = [
        f"Chart.yaml: {field} is {described[field]!r}, pyproject.toml says {version!r}"
        for field in ("version", "appVersion")
        if str(described[field]) != version
    ]
    if not _VERSION.fullmatch(version):
        wrong.append(f"{version!r} is no version: X.Y.Z and X.Y.Z-rc.1 are possible")
    if tag and tag != f"v{version}":
        wrong.append(f"the tag is {tag!r}, v{version} is possible")
    if tag and not notes(texts.changelog, version):
        wrong.append(f"CHANGELOG.md has nothing under ## [{version}] - YYYY-MM-DD")
    return wrong


def notes(changelog: str, version: str) -> str:
    """Return what the changelog says of a version, empty where it has no dated section of it or says nothing there."""
    headings = list(_HEADING.finditer(changelog))
    for heading, following in zip(headings, [*headings[1:], None], strict=True):
        if heading["version"] == version and (heading["date"] or version == UNRELEASED):
            return changelog[heading.end() : following.start() if following else None].strip()
    return ""
