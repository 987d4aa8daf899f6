"""Persistent volumes, and the package sources of the base image."""

from pathlib import Path
from typing import Any

import pytest
from local_cluster import sources, volumes

DEB822 = """# a comment
Types: deb
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates bookworm-backports
Components: main contrib
Signed-By: /usr/share/keyrings/archive.gpg

Types: deb
URIs: https://tools.example/x
Suites: nodistro
Components: main

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main

Types: deb-src
URIs: http://source.example/debian
Suites: bookworm
Components: main
"""

ONE_LINE = """# deb http://off.example/debian bookworm main
deb [signed-by=/k.gpg arch=amd64] http://mirror.example/debian bookworm main
deb http://mirror.example/debian-security bookworm-security main contrib
deb https://download.example/linux/debian bookworm stable
deb https://packages.example/apt cloud-sdk-bookworm main
deb-src http://mirror.example/debian bookworm main
"""


def test_only_the_distributions_own_stanzas_are_kept() -> None:
    option = "[signed-by=/usr/share/keyrings/archive.gpg] "
    assert sources.deb822_lines(DEB822, "bookworm") == [
        f"deb {option}http://mirror.example/debian bookworm main contrib",
        f"deb {option}http://mirror.example/debian bookworm-updates main contrib",
    ]


def test_only_the_distributions_own_lines_are_kept() -> None:
    assert sources.one_line_sources(ONE_LINE, "bookworm") == ONE_LINE.splitlines()[1:3]


def _volume(name: str, phase: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "status": {"phase": phase}}


@pytest.mark.parametrize(
    ("name", "phase", "expected"),
    [
        ("local-00", "Released", ["local-00"]),
        ("local-00", "Bound", []),
        ("local-00", "Available", []),
        ("a-users-own", "Released", []),
    ],
)
def test_only_our_own_volumes_without_a_claim_are_emptied(name: str, phase: str, expected: list[str]) -> None:
    assert volumes.released({"items": [_volume(name, phase)]}) == expected


def test_a_claim_that_names_no_class_gets_one_of_the_volumes(tmp_path: Path) -> None:
    annotations = volumes.storage_class()["metadata"]["annotations"]
    volume = volumes.persistent_volume(3, tmp_path)
    assert annotations == {"storageclass.kubernetes.io/is-default-class": "true"}
    assert volume["spec"]["storageClassName"] == volumes.storage_class()["metadata"]["name"]
    assert volume["spec"]["hostPath"]["path"] == str(tmp_path / volume["metadata"]["name"])
    assert {"ReadWriteOnce", "ReadWriteMany"} <= set(volume["spec"]["accessModes"])
