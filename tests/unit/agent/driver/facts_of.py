"""Builders for the driver pod's tests: a healthy host, and hosts that answer from recordings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlperf_operator.agent.driver.facts import FabricManager, Facts, Os, Smi, SmiGpu
from mlperf_operator.agent.driver.host import NOT_STARTED, Done, Host
from mlperf_operator.catalogue import ContainerToolkit, Driver, Mode, Target

RECORDED = Path(__file__).parent / "recorded"
VERSION = "550.54.14"
A100 = "NVIDIA A100-SXM4-40GB"


def recorded(name: str) -> str:
    """What a real tool said."""
    return (RECORDED / name).read_text()


def gpu(index: int = 0, **changes: Any) -> SmiGpu:
    """A healthy A100, as nvidia-smi shows it."""
    return replace(SmiGpu(A100, "Disabled", 400.0, 400.0, "N/A", index=index), **changes)


def smi_of(count: int = 8, **changes: Any) -> Smi:
    """What nvidia-smi says of healthy A100s."""
    return replace(Smi(driver=VERSION, gpus=tuple(gpu(index) for index in range(count))), **changes)


def facts_of(**changes: Any) -> Facts:
    """A healthy node with eight A100 SXM4 and NVSwitch."""
    healthy = Facts(
        os=Os("ubuntu", "22.04"),
        kernel="5.15.0-101-generic",
        loaded=VERSION,
        gpus=8,
        product=A100,
        nvswitches=6,
        smi=smi_of(),
        fabric_manager=FabricManager(VERSION, active=True),
        headers=True,
        runtime_configured=True,
    )
    return replace(healthy, **changes)


def target_of(mode: Mode = "Install", version: str = VERSION, *, toolkit: bool = False) -> Target:
    """A target of one package of this version."""
    repository = {"url": "https://packages.example.com/deb", "key": "a key"}
    package = {"name": "nvidia-driver-550-server", "version": f"{version}-1"}
    source = {"type": "Packages", "os": ["ubuntu"], "repository": repository, "driver": [package]}
    driver = Driver.model_validate({"branch": version.partition(".")[0], "version": version, "sources": [source]})
    tools = {"os": ["ubuntu"], "repository": repository, "packages": [package]}
    wanted = ContainerToolkit.model_validate({"sources": [tools]}) if toolkit else None
    return Target(mode=mode, driver=driver if mode != "Verify" else None, toolkit=wanted)


class ScriptedHost(Host):
    """A host whose files are real and whose programs answer from a table; others cannot be started."""

    def __init__(self, root: Path, answers: Mapping[str, str | Done] | None = None) -> None:
        super().__init__(root)
        self.answers = dict(answers or {})
        self.ran: list[str] = []
        self.said: list[str] = []

    def run(self, argv: Sequence[str], *, seconds: float = 60.0, env: Mapping[str, str] | None = None) -> Done:
        command = " ".join(argv)
        self.ran.append(command)
        answer = self.answers.get(command, Done(tuple(argv), NOT_STARTED, f"{argv[0]}: no such program"))
        return answer if isinstance(answer, Done) else Done(tuple(argv), 0, answer)

    def say(self, text: str) -> None:
        self.said.append(text)

    def put(self, name: str, text: str = "") -> Path:
        """Write a file of the host."""
        place = self.root / name.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        return place

    def program(self, name: str) -> None:
        """Put a program there, so that the host has it."""
        self.put(f"/usr/bin/{name}", "#!/bin/sh\n")

    def device(self, slot: str, kind: str, vendor: str = "0x10de") -> None:
        """Put a device on the PCI bus."""
        self.put(f"/sys/bus/pci/devices/{slot}/vendor", f"{vendor}\n")
        self.put(f"/sys/bus/pci/devices/{slot}/class", f"{kind}\n")


SMI_ROWS = (
    "nvidia-smi --query-gpu=index,driver_version,name,mig.mode.current,power.limit,power.default_limit"
    " --format=csv,noheader,nounits"
)


def failed(command: str, code: int, output: str) -> Done:
    """A program that ended badly."""
    return Done(tuple(command.split()), code, output)


def a100_host(root: Path) -> ScriptedHost:
    """A healthy node with eight A100 SXM4 and NVSwitch, under a folder."""
    host = ScriptedHost(
        root,
        {
            SMI_ROWS: recorded("nvidia-smi-a100x8.csv"),
            "nvidia-smi -q": recorded("nvidia-smi-q-a100x8.txt"),
            "nvidia-smi nvlink --status": recorded("nvlink-a100x2.txt"),
            "nv-fabricmanager --version": f"Fabric Manager version is : {VERSION}\n",
            "systemctl is-active nvidia-fabricmanager": "active\n",
        },
    )
    host.put("/etc/os-release", recorded("os-release-ubuntu-22.04.txt"))
    host.put("/proc/driver/nvidia/version", recorded("proc-version-proprietary.txt").replace("550.90.07", VERSION))
    for index in range(8):
        host.device(f"0000:{index:02x}:00.0", "0x030200")
        host.put(f"/dev/nvidia{index}")
    for index in range(6):
        host.device(f"0000:c{index}:00.0", "0x068000")
        host.put(f"/proc/driver/nvidia-nvswitch/devices/0000:c{index}:00.0")
    host.device("0000:00:1f.0", "0x060100", vendor="0x8086")
    for name in ("nvidiactl", "nvidia-uvm"):
        host.put(f"/dev/{name}")
    for name in ("nvidia-smi", "nv-fabricmanager"):
        host.program(name)
    return host


def processes(folder: Path, *found: tuple[int, str, str, Sequence[Path]]) -> Path:
    """A /proc with these processes: number, command, cgroup and what each has open."""
    folder.mkdir(exist_ok=True)
    (folder / "locks").write_text("")
    (folder / "uptime").write_text("1 1\n")
    for number, command, cgroup, opened in found:
        place = folder / str(number)
        (place / "fd").mkdir(parents=True)
        (place / "comm").write_text(f"{command}\n")
        (place / "cgroup").write_text(cgroup)
        for descriptor, path in enumerate(opened):
            (place / "fd" / str(descriptor)).symlink_to(path)
    return folder
