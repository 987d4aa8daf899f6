"""Software bills of materials, in CycloneDX: what the operator and the reference harness are made of, by uv.lock.

`write` makes the same bytes from the same commit. The operator's image has its Debian packages beside this:
`with_packages` adds them.
"""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from operator_context import requirements
from supply_chain.outcome import REPOSITORY, Outcome, judged, run

Bom = dict[str, Any]
Package = tuple[str, str]

FOLDER = REPOSITORY / "build/sbom"
NAMESPACE = uuid.UUID("4d1c1c0e-2a8e-5b8e-9a53-6c0a0a4b7c11")
"""Of our serial numbers: a number of our own, so that the same content has the same one."""

GROUPS = {
    "mlperf-operator": ("--no-default-groups", "--extra=tracing"),
    "mlperf-reference-harness": ("--only-group=harness",),
}
IMAGE_PYTHON = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "python_version": "3.11"}
IMAGE_PYTHON |= {"python_full_version": "3.11.2", "platform_machine": "x86_64", "implementation_name": "cpython"}


def epoch() -> int:
    """Return the time that a build tells as its own, in Unix seconds: SOURCE_DATE_EPOCH, else the last commit's."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    return int(given or run("git", "log", "-1", "--format=%ct").stdout.strip() or 0)


def from_lock(name: str) -> Bom:
    """Return the bill of one of GROUPS, from uv.lock."""
    options = ("--quiet", "--frozen", "--preview-features=sbom-export", "--format=cyclonedx1.5")
    done = run("uv", "export", *options, *GROUPS[name])
    done.check_returncode()
    bom: Bom = json.loads(done.stdout)
    bom["metadata"]["component"]["name"] = name
    return bom


def repeatable(bom: Mapping[str, Any], seconds: int) -> Bom:
    """Return a bill whose time and serial number follow from what it says."""
    metadata = {**bom["metadata"], "timestamp": datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}
    content = {**bom, "metadata": metadata}
    content.pop("serialNumber", None)
    serial = uuid.uuid5(NAMESPACE, json.dumps(content, sort_keys=True))
    return {**content, "serialNumber": f"urn:uuid:{serial}"}


def invalid(bom: Mapping[str, Any]) -> list[str]:
    """Return what CycloneDX's own schema has against a bill, a list with one sentence at most."""
    error = JsonStrictValidator(SchemaVersion.from_version(bom["specVersion"])).validate_str(json.dumps(bom))
    return [str(error)[:500]] if error else []


def packages(bom: Mapping[str, Any]) -> set[Package]:
    """Return name and version of each component."""
    return {(canonicalize_name(part["name"]), part["version"]) for part in bom.get("components", [])}


def pinned(lines: Iterable[str]) -> set[Package]:
    """Return name and version of pinned requirements, those that hold in the image."""
    found: set[Package] = set()
    for line in lines:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate(IMAGE_PYTHON):
            version = re.fullmatch(r"==([^,]+)", str(requirement.specifier))
            found.add((canonicalize_name(requirement.name), version.group(1) if version else ""))
    return found


def of_wheels(folder: Path, own: str = "mlperf-operator") -> set[Package]:
    """Return name and version of the wheels that an image is built from, but for the project's own."""
    parsed = (parse_wheel_filename(path.name) for path in folder.glob("*.whl"))
    return {(name, str(version)) for name, version, *_ in parsed if name != own}


def with_packages(bom: Mapping[str, Any], debian: Iterable[Package]) -> Bom:
    """Return the bill of an image: that of its Python packages, with its Debian packages."""
    parts = [
        {
            "type": "library",
            "bom-ref": f"deb/{name}@{version}",
            "name": name,
            "version": version,
            "purl": f"pkg:deb/debian/{name}@{version.replace('+', '%2B').replace(':', '%3A')}",
        }
        for name, version in sorted(debian)
    ]
    component = {**bom["metadata"]["component"], "type": "container"}
    metadata = {**bom["metadata"], "component": component}
    return {**bom, "metadata": metadata, "components": [*bom.get("components", []), *parts]}


def write(name: str, bom: Mapping[str, Any]) -> Path:
    """Write a bill to build/sbom/ and return its path."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{name}.cdx.json"
    path.write_text(json.dumps(repeatable(bom, epoch()), indent=1) + "\n")
    return path


def check() -> Outcome:
    """Write the bills, hold them against CycloneDX's schema, and the operator's against what its image installs."""
    problems, parts = [], 0
    for name in GROUPS:
        bom = from_lock(name)
        path = write(name, bom)
        problems += [f"{path.name}: {text}" for text in invalid(json.loads(path.read_text()))]
        parts += len(bom["components"])
    missing = pinned(requirements().splitlines()) - packages(from_lock("mlperf-operator"))
    problems += [f"in the operator's image, but not in its bill: {name} {version}" for name, version in sorted(missing)]
    return judged("SBOM", f"{len(GROUPS)} bills in build/sbom/, {parts} components", problems)
