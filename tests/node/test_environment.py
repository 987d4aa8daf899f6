"""What real apt, dpkg and pip did to a real Debian root is complete on another copy of it: they go on working there."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import sys
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlperf_operator.agent.wrapper import roots
from mlperf_operator.agent.wrapper.delta import SnapshotError
from node import debian_root, packages
from node.node import Node, exact
from node.repository import Server
from unit.agent.roots_of import kept, laid, seen

pytestmark = pytest.mark.integration

LIBRARY = "usr/local/lib/libstandin.so.1"


@pytest.fixture
def fresh(node: Node, server: Server, tmp_path: Path) -> Iterator[Node]:
    """A container of the same image as `node`, which has a package that prebuild removes."""
    node.apt(server, "install", packages.TOOLKIT)
    root = node.root.with_name(uuid.uuid4().hex[:8])
    debian_root.copy(node.root, root)
    yield Node(root, tmp_path)
    debian_root.remove(root)


def wheel(folder: Path) -> Path:
    """Build a wheel of one module and one program."""
    info = "standin_module-1.0.dist-info"
    files = {
        "standin_module/__init__.py": "def main() -> None:\n    print('it works')\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: standin-module\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[console_scripts]\nstandin = standin_module:main\n",
    }
    lines = [f"{name},sha256={_record_digest(text)},{len(text)}" for name, text in files.items()]
    target = folder / "standin_module-1.0-py3-none-any.whl"
    with zipfile.ZipFile(target, "w") as archive:
        for name, text in {**files, f"{info}/RECORD": "\n".join([*lines, f"{info}/RECORD,,", ""])}.items():
            archive.writestr(name, text)
    return target


def _record_digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")


def pip_install(root: Path, work: Path) -> None:
    """Install the wheel with real pip; the root has no Python of its own."""
    subprocess.run([sys.executable, "-m", "venv", str(work / "venv")], check=True)
    argv: list[str | Path] = [
        work / "venv/bin/python",
        "-m",
        "pip",
        "install",
        "--no-index",
        "--quiet",
        "--no-warn-script-location",
    ]
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    subprocess.run([*argv, "--root", root, "--prefix", "/usr/local", wheel(work)], check=True, env=environment)


def prebuild(node: Node, server: Server) -> None:
    """Remove, install and build as NVIDIA's scripts do."""
    node.apt(server, "purge", packages.TOOLKIT)
    node.apt(server, "install", *exact(packages.FIRST))
    node.run("dpkg-divert", "--local", "--rename", "--add", "/usr/bin/perl")
    node.run("update-alternatives", "--install", "/usr/bin/standin-cc", "standin-cc", "/usr/bin/nvidia-smi", "9")
    pip_install(node.root, node.work)
    # Any real library will do: ldconfig asks for its name.
    origin = next((node.root / "usr/lib").glob("*/libz.so.1.*"))
    (node.root / LIBRARY).write_bytes(origin.read_bytes())
    node.run("ldconfig")
    node.run("rm", "-rf", "/usr/share/debconf")


def _part_of_it(root: Path) -> dict[str, object]:
    left_out = tuple(f"{path}/" for path in roots.EXCLUDED)
    # ldconfig writes its cache, and with it the time of /etc.
    return {path: entry for path, entry in seen(root).items() if path != "etc" and not f"{path}/".startswith(left_out)}


def test_apt_dpkg_ldconfig_and_pip_find_everything_in_another_container(
    node: Node, fresh: Node, server: Server, tmp_path: Path
) -> None:
    note = kept(node.root, tmp_path / "store", lambda: prebuild(node, server))
    before = fresh.run("dpkg", "-l")
    laid(fresh.root, tmp_path / "store", note)
    assert note["deleted"] > 0
    assert _part_of_it(fresh.root) == _part_of_it(node.root)

    now = fresh.run("dpkg", "-l")
    assert packages.TOOLKIT in before
    assert packages.TOOLKIT not in now
    assert f"ii nvidia-driver-550-server {packages.FIRST}-1 " in " ".join(now.split())
    assert fresh.run("dpkg", "--audit") == ""
    assert "=> /usr/local/lib/libz.so.1\n" in fresh.run("ldconfig", "-p")
    assert fresh.run("readlink", "-f", "/usr/bin/standin-cc") == "/usr/bin/nvidia-smi\n"
    module = next((fresh.root / "usr/local").glob("lib/python3*/*-packages"))
    shown = [
        sys.executable,
        "-I",
        "-c",
        f"import sys; sys.path.insert(0, {str(module)!r}); import standin_module as m; m.main()",
    ]
    assert subprocess.run(shown, check=True, capture_output=True, text=True).stdout == "it works\n"
    # And the package manager goes on from there.
    fresh.apt(server, "remove", *packages.fabric_packages(packages.FIRST))
    fresh.apt(server, "install", packages.TOOLKIT)
    assert (fresh.root / "usr/bin/nvidia-ctk").exists()


def test_another_image_is_refused(node: Node, fresh: Node, server: Server, tmp_path: Path) -> None:
    note = kept(node.root, tmp_path / "store", lambda: node.apt(server, "purge", packages.TOOLKIT))
    fresh.apt(server, "install", *packages.fabric_packages(packages.FIRST))
    with pytest.raises(SnapshotError, match="another base image"):
        laid(fresh.root, tmp_path / "store", note)
