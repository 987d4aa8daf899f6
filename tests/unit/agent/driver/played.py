"""A host whose programs are played: for the order of commands and for what real tools say when they fail.

The tests in tests/node run the real apt and dpkg; these are for every other path.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mlperf_operator.agent.driver.host import Done, Host

Answer = tuple[int, str]
KERNEL = os.uname().release


class PlayedHost(Host):
    """Remembers what is run and answers as it is told; whatever it was not told about succeeds and says nothing."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.ran: list[tuple[str, ...]] = []
        self.answers: dict[tuple[str, ...], Answer | Callable[[tuple[str, ...]], Answer]] = {}
        self.said: list[str] = []

    def run(self, argv: Sequence[str], *, seconds: float = 60.0, env: Mapping[str, str] | None = None) -> Done:
        words = tuple(argv)
        self.ran.append(words)
        for length in range(len(words), 0, -1):
            answer = self.answers.get(words[:length])
            if answer is not None:
                code, text = answer(words) if callable(answer) else answer
                return Done(words, code, text)
        return Done(words, 0, "")

    def say(self, text: str) -> None:
        self.said.append(text)

    def put(self, name: str, text: str = "") -> None:
        """Place a file."""
        self.write(name, text)

    def programs(self) -> list[str]:
        """Return what was run, as lines."""
        return [" ".join(words) for words in self.ran]


class PlayedNode(PlayedHost):
    """A node with one GPU: packages, modules and services that behave as simply as they can."""

    def __init__(self, root: Path, *, nvswitches: int = 0) -> None:
        super().__init__(root)
        self.installed: dict[str, str] = {"dpkg": "1.22"}
        self.held: set[str] = set()
        self.broken: set[str] = set()
        self.active: set[str] = {"containerd"}
        self.module: str | None = None
        """Version of the module on the disk."""
        self.put("/etc/os-release", 'ID=debian\nVERSION_ID="12"\n')
        self._device("0000:07:00.0", "0x030200")
        for number in range(nvswitches):
            self._device(f"0000:c{number}:00.0", "0x068000")
        self.path(f"/lib/modules/{KERNEL}/build").mkdir(parents=True)
        for name in ("/usr", "/var", "/dev"):
            self.path(name).mkdir(exist_ok=True)
        self.answers = {
            ("dpkg-query",): self._dpkg,
            ("apt-mark", "showhold"): lambda _: (0, "\n".join(sorted(self.held))),
            ("apt-mark", "hold"): lambda words: self._hold(words[2:]),
            ("apt-mark", "unhold"): lambda words: self._release(words[2:]),
            ("apt-get", "install"): self._install,
            ("modprobe",): lambda words: self._modprobe(words[1]),
            ("rmmod",): lambda words: self._rmmod(words[1]),
            ("systemctl",): self._systemctl,
            ("nvidia-smi",): self._smi,
            ("nv-fabricmanager",): lambda _: (0, f"Fabric Manager version is : {self._fabric()}"),
        }

    def _device(self, address: str, kind: str) -> None:
        self.put(f"/sys/bus/pci/devices/{address}/vendor", "0x10de\n")
        self.put(f"/sys/bus/pci/devices/{address}/class", f"{kind}\n")

    def have(self, **packages: str) -> None:
        """Install packages, underscores for hyphens, and what they bring."""
        for name, version in packages.items():
            self._unpack(name.replace("_", "-"), version)

    def load(self, version: str) -> None:
        """Have a module on the disk and loaded."""
        self.build(version)
        self._modprobe("nvidia")

    def build(self, version: str) -> None:
        """Have a module on the disk."""
        self.module = version
        self.put(f"/lib/modules/{KERNEL}/updates/dkms/nvidia.ko")

    def loaded(self) -> str | None:
        """Return the version of the loaded module."""
        text = self.read("/proc/driver/nvidia/version")
        return text.split("Module  ")[1].split()[0] if text else None

    def _unpack(self, name: str, version: str) -> None:
        self.installed[name] = version
        if name.startswith("nvidia-dkms"):
            self.build(version.partition("-")[0])
        if "fabricmanager" in name:
            self.put("/usr/bin/nv-fabricmanager")
            self.put("/usr/lib/systemd/system/nvidia-fabricmanager.service")

    def _fabric(self) -> str:
        names = [name for name in self.installed if "fabricmanager" in name]
        return self.installed[names[0]].partition("-")[0]

    def _dpkg(self, words: tuple[str, ...]) -> Answer:
        rows = [
            f"{'iF' if name in self.broken else 'ii'} \t{name}\tall\t{version}"
            for name, version in self.installed.items()
        ]
        return 0, "\n".join(rows)

    def _hold(self, names: Sequence[str]) -> Answer:
        self.held |= set(names)
        return 0, ""

    def _release(self, names: Sequence[str]) -> Answer:
        self.held -= set(names)
        return 0, ""

    def _install(self, words: tuple[str, ...]) -> Answer:
        wanted = [word for word in words if not word.startswith("-") and "=" in word and "::" not in word]
        gone = [word[:-1] for word in words if word.endswith("-") and not word.startswith("-")]
        if "-s" in words:
            plan = [f"Inst {word.partition('=')[0]} ({word.partition('=')[2]} here [all])" for word in wanted]
            return 0, "\n".join([*plan, *(f"Remv {name} [1]" for name in gone)])
        if "--download-only" not in words:
            for word in wanted:
                self._unpack(*word.split("="))
            for name in gone:
                self.installed.pop(name, None)
        return 0, ""

    def _modprobe(self, name: str) -> Answer:
        if name == "nvidia" and not self.exists("/sys/module/nvidia"):
            self.put(
                "/proc/driver/nvidia/version", f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {self.module}  Thu\n"
            )
            self.put("/dev/nvidia0")
        self.put(f"/sys/module/{name}/refcnt", "0\n")
        return 0, ""

    def _rmmod(self, name: str) -> Answer:
        self.remove(f"/sys/module/{name}/refcnt")
        self.path(f"/sys/module/{name}").rmdir()
        if name == "nvidia":
            self.remove("/proc/driver/nvidia/version")
            self.remove("/dev/nvidia0")
        return 0, ""

    def _systemctl(self, words: tuple[str, ...]) -> Answer:
        verb, unit = words[1], words[-1]
        if verb == "is-active":
            return (0, "active") if unit in self.active else (3, "inactive")
        if verb == "stop":
            self.active.discard(unit)
        elif verb in ("start", "restart", "enable"):
            self.active.add(unit)
        return 0, ""

    def _smi(self, words: tuple[str, ...]) -> Answer:
        if words[1:2] != ("-q",) and words[1].startswith("--query-gpu"):
            fields = words[1].partition("=")[2].split(",")
            values = {"index": "0", "name": "NVIDIA A100", "driver_version": self.loaded() or ""}
            return 0, ", ".join(values.get(field, "[N/A]") for field in fields)
        return 0, "GPU 00000000:07:00.0\n" if words[1:] == ("-q",) else ""
