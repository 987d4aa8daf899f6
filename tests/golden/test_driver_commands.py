"""Every command line and file of the driver's sources, against what a person has read. UPDATE_GOLDEN=1 writes them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mlperf_operator.agent.driver.sources import manager, runfile
from mlperf_operator.agent.driver.sources.base import Change, Command
from mlperf_operator.catalogue import Package, Repository, RunFileSource

FILES = Path(__file__).parent / "driver-commands"
UPDATE = os.environ.get("UPDATE_GOLDEN") == "1"

DRIVER = Repository(url="https://packages.example.com/cuda/", suite="./", key="key of cuda")
TOOLKIT = Repository(url="https://packages.example.com/toolkit", suite="stable", components=("main",), key="other key")
NEW = (
    Package(name="nvidia-driver-550-server", version="550.54.14-1"),
    Package(name="nvidia-fabricmanager-550", version="550.54.14-1"),
)
OLD = (Package(name="nvidia-driver-535-server", version="535.161.08-1"),)
CHANGE = Change(NEW, ("nvidia-driver-535-server",))
HOST_SOURCES = {
    "/etc/apt/sources.list": "deb https://archive.example.com/debian bookworm main\n",
    "/etc/apt/sources.list.d/cuda.list": "deb [signed-by=/usr/share/cuda.gpg] https://packages.example.com/cuda ./\n",
    "/etc/apt/sources.list.d/debian.sources": "Types: deb\nURIs: https://archive.example.com\nSuites: sid\n",
}


def shown(title: str, *commands: Command) -> str:
    lines = [f"{' '.join(command.argv)}   [{command.seconds:g} s]" for command in commands]
    return "\n".join([f"# {title}", *lines, ""])


def of_manager(name: str) -> str:
    tool = manager(name)  # type: ignore[arg-type]
    repositories = (DRIVER, TOOLKIT)
    files = tool.files(repositories, NEW, HOST_SOURCES)
    parts = [f"== {path}\n{text.rstrip()}\n" for path, text in files.items()]
    parts += [
        shown("refresh", *tool.refresh(repositories)),
        shown("refresh all", *tool.refresh_all()),
        shown("simulate", *tool.simulate(CHANGE)),
        shown("download", tool.download(CHANGE)),
        shown("keep", tool.keep(OLD)),
        shown("unhold", tool.unhold(["nvidia-driver-535-server"])),
        shown("install", *tool.install(CHANGE)),
        shown("only remove", *tool.install(Change((), ("nvidia-driver-535-server",)))),
        shown("hold", tool.hold(NEW)),
        shown("repair", *tool.repair()),
        shown("clean", tool.clean()),
    ]
    return "\n".join(parts)


def of_run_file() -> str:
    cuda = RunFileSource(
        os=("debian",), url="https://packages.example.com/cuda_12.4.0_550.54.14_linux.run", sha256="0" * 64
    )
    driver_only = RunFileSource(os=("debian",), host_path="/opt/NVIDIA-Linux-x86_64-550.54.14.run", sha256="0" * 64)
    parts = [
        shown("make the folder to unpack in", runfile.temporary_folder()),
        shown("CUDA's file, fetched", runfile.install(cuda)),
        shown("CUDA's file without the toolkit", runfile.install(cuda.model_copy(update={"toolkit": False}))),
        shown("the driver's file, from the host", runfile.install(driver_only)),
        shown("uninstall", runfile.uninstall()),
    ]
    return "\n".join(parts)


@pytest.mark.parametrize("name", ["apt", "dnf", "zypper", "runfile"])
def test_a_source_says_what_its_golden_file_says(name: str) -> None:
    made = of_run_file() if name == "runfile" else of_manager(name)
    file = FILES / f"{name}.txt"
    if UPDATE:
        FILES.mkdir(exist_ok=True)
        file.write_text(made)
    assert made == file.read_text(), "run `UPDATE_GOLDEN=1 pytest tests/golden` and read the difference"
