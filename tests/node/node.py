"""A node for one test: a Debian root, and the driver pod's agent run on it as the pod runs it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlperf_operator.catalogue import (
    ContainerToolkit,
    Driver,
    Mode,
    Package,
    PackageSource,
    Repository,
    Target,
    ToolkitSource,
)
from mlperf_operator.driver_report import NodeReport
from node import debian_root, packages
from node.repository import Server

AGENT = (sys.executable, "-m", "mlperf_operator.agent.driver")
SYSTEMS = ("debian", "ubuntu")
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
RECORD = "var/lib/mlperf-operator/driver.json"
LOCK = "run/mlperf-operator/driver.lock"
PATIENCE_SECONDS = 60.0


def target(
    repository: Repository, version: str = packages.FIRST, mode: Mode = "Install", *, toolkit: bool = False, **more: Any
) -> Target:
    """Return what a driver pod for this version is told; `more` are fields of the source."""

    def exact(names: tuple[str, ...]) -> tuple[Package, ...]:
        return tuple(Package(name=name, version=f"{version}-1") for name in names)

    fields: dict[str, Any] = {
        "os": SYSTEMS,
        "repository": repository,
        "driver": exact(packages.driver_packages(version)),
        "fabric_manager": exact(packages.fabric_packages(version)),
        **more,
    }
    driver = Driver(
        branch=packages.branch_of(version), version=version, min_free_bytes=0, sources=(PackageSource(**fields),)
    )
    tools = ToolkitSource(
        os=SYSTEMS,
        repository=repository,
        packages=(Package(name=packages.TOOLKIT, version=packages.TOOLKIT_VERSION),),
    )
    return Target(mode=mode, driver=driver, toolkit=ContainerToolkit(sources=(tools,)) if toolkit else None)


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended."""

    code: int
    report: NodeReport
    said: str


class Node:
    """The root folder and what a test does with it."""

    def __init__(self, root: Path, work: Path) -> None:
        self.root = root
        self.work = work

    # The agent.

    def environment(self, wanted: Target) -> dict[str, str]:
        """Return the environment of the driver pod's containers."""
        return {
            **os.environ,
            "MLPERF_HOST_ROOT": str(self.root),
            "MLPERF_DRIVER_TARGET": wanted.model_dump_json(by_alias=True),
            "MLPERF_TERMINATION_LOG": str(self.work / "termination-log"),
        }

    def start(self, wanted: Target, command: str = "ensure", **environment: str) -> subprocess.Popen[str]:
        """Start the agent; what it says goes to the file `said`."""
        (self.work / "termination-log").write_text("")
        with (self.work / "said").open("w") as sink:
            return subprocess.Popen(
                [*AGENT, command],
                env={**self.environment(wanted), **environment},
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                text=True,
            )

    def finish(self, process: subprocess.Popen[str], seconds: float = PATIENCE_SECONDS) -> Outcome:
        """Wait for the agent's end and return it.

        Raises:
            AssertionError: it wrote no report, or said in passing that it broke.
        """
        try:
            code = process.wait(seconds)
        finally:
            process.kill()
            process.wait()
        said = (self.work / "said").read_text()
        message = (self.work / "termination-log").read_text()
        assert message, f"no report; it ended with {code} and said:\n{said}"
        assert len(message.encode()) <= 4096
        assert "Traceback" not in said, said
        return Outcome(code, NodeReport.model_validate_json(message), said)

    def ensure(self, wanted: Target) -> Outcome:
        """Let the agent make the node match, once."""
        return self.finish(self.start(wanted))

    def made_ready(self, wanted: Target) -> Outcome:
        """Let the agent make the node match, which must succeed."""
        outcome = self.ensure(wanted)
        assert outcome.code == 0, outcome
        assert outcome.report.ready, outcome
        return outcome

    @contextmanager
    def verifying(self, wanted: Target, port: int) -> Iterator[subprocess.Popen[str]]:
        """Run the agent's main container meanwhile."""
        process = self.start(wanted, "verify", MLPERF_VERIFY_PORT=str(port))
        try:
            yield process
        finally:
            process.terminate()
            code = process.wait(20)
        assert code == 0, (self.work / "said").read_text()

    def apt(self, server: Server, *arguments: str) -> None:
        """Let somebody else use apt-get on the node with the same repository.

        Raises:
            AssertionError: it failed.
        """
        folder = self.root / "etc/apt"
        theirs = folder / "sources.list.d/standin.list"
        # apt refuses to read one source with two keys; where the agent has been, it is named already.
        if not any(server.url in file.read_text() for file in theirs.parent.glob("*.list")):
            (folder / "keyrings/standin.asc").write_text(server.key.public())
            theirs.write_text(f"deb [signed-by=/etc/apt/keyrings/standin.asc] {server.url} ./\n")
        try:
            self.run("apt-get", "update", "-qq", "--error-on=any")
            self.run("apt-get", "-y", "-qq", "--allow-downgrades", "--allow-change-held-packages", *arguments)
        finally:
            theirs.unlink(missing_ok=True)

    def by_hand(self, server: Server, version: str) -> None:
        """Let somebody else install and load a driver, as guides tell people to."""
        self.apt(server, "install", *exact(version))
        self.run("modprobe", "-a", "nvidia", "nvidia_uvm", "nvidia_modeset")
        self.run("systemctl", "enable", "--now", "nvidia-persistenced", "nvidia-fabricmanager")

    def kill(self, process: subprocess.Popen[str]) -> None:
        """Kill the agent and all that it started, as the container runtime does."""
        process.kill()
        process.wait()
        debian_root.end_processes_in(self.root)

    # What a test arranges.

    def knob(self, name: str, content: str = "") -> None:
        """Arrange something; standin/lib.sh says what there is."""
        folder = self.root / "standin/knobs"
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(content)

    def slow(self, moment: str, seconds: float = 60) -> None:
        """Make a moment such as `postinst nvidia-dkms-550-server` last."""
        self.knob(f"sleep.{dotted(moment)}", str(seconds))

    def fails(self, moment: str, words: str, *, once: bool = False) -> None:
        """Make a moment fail with these words."""
        self.knob(f"{'fail-once' if once else 'fail'}.{dotted(moment)}", f"{words}\n")

    def knob_off(self, moment: str) -> None:
        """Let a moment that was made slow be as quick as ever."""
        (self.root / "standin/knobs" / f"sleep.{dotted(moment)}").unlink(missing_ok=True)

    def no_knobs(self) -> None:
        """Take back everything that was arranged."""
        for folder in ("knobs", "at"):
            for file in (self.root / "standin" / folder).glob("*"):
                file.unlink()

    def reached(self, moment: str) -> bool:
        """Say whether a slow moment has begun."""
        return (self.root / "standin/at" / dotted(moment)).exists()

    def without(self, kind: str) -> None:
        """Take the PCI devices of a class off the bus."""
        for folder in (self.root / "sys/bus/pci/devices").iterdir():
            if (folder / "class").read_text().strip() == kind:
                shutil.rmtree(folder)

    # What a test looks at.

    def free_bytes(self) -> int:
        """Return the space that is free in the root."""
        space = os.statvfs(self.root)
        return space.f_bavail * space.f_frsize

    def run(self, *argv: str) -> str:
        """Run a program in the root and return what it printed.

        Raises:
            AssertionError: it failed.
        """
        done = subprocess.run(
            ["chroot", str(self.root), *argv],
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{argv} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done.stdout

    def calls(self) -> list[str]:
        """Return what the stand-in programs were asked and the package scripts ran, in order."""
        file = self.root / "standin/calls"
        return file.read_text().splitlines() if file.exists() else []

    def forget_calls(self) -> None:
        """Begin a new list of calls."""
        (self.root / "standin/calls").unlink(missing_ok=True)

    def changes(self) -> list[str]:
        """Return the calls that change something: all but questions to nvidia-smi."""
        return [call for call in self.calls() if call != "nvidia-smi"]

    def installed(self) -> dict[str, str]:
        """Return the versions of the stand-in packages that are wholly installed."""
        return {name: version for name, (version, state) in self.dpkg().items() if state == "installed"}

    def dpkg(self) -> dict[str, tuple[str, str]]:
        """Return version and state of each stand-in package that dpkg has files of."""
        rows = self.run("dpkg-query", "-W", "-f", "${Package} ${Version} ${db:Status-Status}\n").splitlines()
        found = {name: (version, state) for name, version, state in (row.split(" ") for row in rows)}
        ours = {deb.name for deb in packages.everything()}
        return {
            name: facts
            for name, facts in found.items()
            if name in ours and facts[1] not in ("not-installed", "config-files")
        }

    def every_package(self) -> str:
        """Return version and state of every package, holds too."""
        return self.run("dpkg-query", "-W", "-f", "${Package} ${Version} ${Status}\n")

    def held(self) -> set[str]:
        """Return the packages on hold."""
        return set(self.run("apt-mark", "showhold").split())

    def loaded(self) -> str | None:
        """Return the version of the loaded module."""
        file = self.root / "sys/module/nvidia/version"
        return file.read_text().strip() if file.exists() else None

    def active(self, unit: str) -> bool:
        """Say whether a service runs."""
        return (self.root / "run/standin/active" / unit).exists()

    def record(self) -> dict[str, Any]:
        """Return the agent's record on the node; empty where there is none."""
        file = self.root / RECORD
        return dict(json.loads(file.read_text())) if file.exists() else {}

    def fingerprint(self) -> Mapping[str, tuple[int, int]]:
        """Return size and time of every file that an attempt without a change leaves alone: no logs, locks, caches."""
        kept = ("etc", "usr", "lib/modules", "var/lib", "sys", "dev")
        return {
            str(file.relative_to(self.root)): (status.st_size, status.st_mtime_ns)
            for folder in kept
            for file in (self.root / folder).rglob("*")
            if file.is_file() and not file.is_symlink() and (status := file.stat())
        }


def exact(version: str) -> list[str]:
    """Return driver and fabric manager of a version as apt-get takes them."""
    return [f"{name}={version}-1" for name in (*packages.driver_packages(version), *packages.fabric_packages(version))]


def wanted_packages(version: str) -> dict[str, str]:
    """Return what is installed where exactly this version is."""
    names = (*packages.driver_packages(version), *packages.fabric_packages(version))
    return dict.fromkeys(names, f"{version}-1")


def dotted(moment: str) -> str:
    """Return a moment as the names of knobs have it."""
    return moment.replace(" ", ".").replace("/", ".")


def wait_for(
    what: Callable[[], bool], seconds: float = PATIENCE_SECONDS, process: subprocess.Popen[str] | None = None
) -> None:
    """Wait until something is so.

    Raises:
        AssertionError: it did not become so in time, or the process ended before.
    """
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not become so in time"
        assert process is None or process.poll() is None, "the process ended before"
        time.sleep(0.01)


def terminate(process: subprocess.Popen[str]) -> None:
    """Ask the agent to end, as the kubelet does first."""
    process.send_signal(signal.SIGTERM)
