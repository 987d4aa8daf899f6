"""A real Debian root folder that plays the node: made once by mmdebstrap, then copied for each test.

Its programs (apt, dpkg, the shell) are real. What a kernel would show under /sys, /proc and /dev are plain files, and
programs that need a running system or a GPU (systemctl, modprobe, lspci) are the stand-ins of the folder standin/.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from local_cluster import host, mounts, packages, sources
from local_cluster.errors import RefusalError
from local_cluster.layout import cache_dir
from local_cluster.locks import locked
from local_cluster.progress import run_long

STANDIN = Path(__file__).parent / "standin"
PROGRAMS = {"mmdebstrap": "mmdebstrap", "gpg": "gpg", "gpg-agent": "gpg-agent", "dpkg-deb": "dpkg"}
A100, NVSWITCH, NVIDIA = "0x20b0", "0x1af1", "0x10de"
GPU_CLASS, SWITCH_CLASS = "0x030200", "0x068000"
CONTAINERD_CONFIG = (
    'version = 2\n\n[plugins."io.containerd.grpc.v1.cri"]\n  sandbox_image = "registry.k8s.io/pause:3.9"\n'
)

_TRIM = ("doc", "man", "info", "locale", "lintian", "zoneinfo", "bash-completion")
_WITHOUT_FSYNC = "etc/dpkg/dpkg.cfg.d/test-without-fsync"
# Tests ask whether apt and dpkg were told the right thing, not whether the disk keeps it over a power cut.
_HOOKS = (
    "rm -rf $1/var/lib/apt/lists/* $1/var/cache/apt/*.bin $1/var/log/*.log",
    "rm -rf $1/etc/apt/sources.list $1/etc/apt/sources.list.d/* $1/etc/apt/apt.conf.d/99mmdebstrap",
    f"echo force-unsafe-io > $1/{_WITHOUT_FSYNC}",
    # There is no /dev/pts, which apt would otherwise complain of.
    "echo 'Dpkg::Use-Pty \"false\";' > $1/etc/apt/apt.conf.d/test-without-pts",
)
_PATIENCE_SECONDS = 10.0
_ROOM = 2 * 1024**3


def refuse() -> None:
    """Refuse a machine on which there can be no such root.

    Raises:
        RefusalError: why.
    """
    if os.geteuid() != 0:
        raise RefusalError("a Debian root with its own package manager needs root")
    if not host.is_debian_like():
        raise RefusalError("a Debian root is made by mmdebstrap from the package sources of a Debian or Ubuntu machine")
    if host.lacks_capability(Path("/proc/self/status").read_text(), host.CAP_SYS_ADMIN):
        raise RefusalError("mmdebstrap needs CAP_SYS_ADMIN, which this container or session does not have")
    packages.ensure(PROGRAMS)


def base_archive() -> Path:
    """Return the root as an archive, made first where this machine does not have it yet (about 20 s)."""
    refuse()
    suite = sources.suite()
    recipe = "\0".join([suite, platform.machine(), *_TRIM, *_HOOKS])
    archive = cache_dir() / f"debian-root-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}.tar"
    with locked("debian-root", "it makes the Debian root of the tests"):
        if not archive.exists():
            _make(archive, suite)
    return archive


def _make(archive: Path, suite: str) -> None:
    with tempfile.TemporaryDirectory(dir=cache_dir(), prefix="debian-root-") as name:
        folder = Path(name)
        # Its user for downloads, _apt, must be able to pass through.
        folder.chmod(0o755)
        (folder / "sources").write_text(sources.own_sources())
        trims = [f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in _TRIM]
        hooks = [f"--customize-hook={hook}" for hook in _HOOKS]
        argv = ["mmdebstrap", "--variant=minbase", *trims, *hooks, suite]
        argv += [str(folder / "root.tar"), str(folder / "sources")]
        run_long("making the Debian root of the tests", argv, cache_dir() / "debian-root.log")
        (folder / "root.tar").rename(archive)


def fast_folder() -> Path:
    """Return where roots are best made: in memory, if there is room and device nodes work; else on the disk."""
    memory = Path("/dev/shm")
    if memory.is_dir():
        space = os.statvfs(memory)
        if space.f_bavail * space.f_frsize >= _ROOM and not space.f_flag & os.ST_NODEV:
            return memory
    return Path(tempfile.gettempdir())


def unpack(archive: Path, root: Path) -> None:
    """Unpack the archive into a new folder."""
    root.mkdir(parents=True)
    root.chmod(0o755)
    subprocess.run(["tar", "-xf", str(archive), "-C", str(root)], check=True)


def copy(base: Path, root: Path) -> None:
    """Copy an unpacked root, device nodes and owners too (0.2 s)."""
    subprocess.run(["cp", "-a", "--reflink=auto", str(base), str(root)], check=True)


def furnish(root: Path, *, gpus: int = 8, switches: int = 6) -> None:
    """Put in what a node with A100s has beyond a Debian root: the kernel's files, containerd, the stand-in programs."""
    for folder in ("sys/module", "sys/bus/pci/devices", "run", "var/lib", "etc/containerd", f"{headers()}/include"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for index in range(gpus):
        _pci(root, f"0000:{0x07 + index:02x}:00.0", GPU_CLASS, A100)
    for index in range(switches):
        _pci(root, f"0000:{0xC0 + index:02x}:00.0", SWITCH_CLASS, NVSWITCH)
    _pci(root, "0000:00:1f.0", "0x060100", "0x7a06", vendor="0x8086")
    (root / "etc/containerd/config.toml").write_text(CONTAINERD_CONFIG)
    shutil.copytree(STANDIN, root / "standin")
    for program in (STANDIN / "bin").iterdir():
        (root / "usr/sbin" / program.name).symlink_to(f"/standin/bin/{program.name}")
    units = root / "lib/systemd/system"
    units.mkdir(parents=True, exist_ok=True)
    (units / "containerd.service").write_text("[Service]\nExecStart=/usr/bin/containerd\n")
    active = root / "run/standin/active"
    active.mkdir(parents=True)
    (active / "containerd").touch()


def write_safely(root: Path) -> None:
    """Let dpkg write to the disk as safely as it does everywhere else, for benchmarks."""
    (root / _WITHOUT_FSYNC).unlink()


def headers() -> str:
    """Return the folder of the running kernel's headers, relative to the root."""
    return f"lib/modules/{os.uname().release}/build"


def _pci(root: Path, address: str, kind: str, device: str, vendor: str = NVIDIA) -> None:
    folder = root / "sys/bus/pci/devices" / address
    folder.mkdir(parents=True)
    for name, value in (("vendor", vendor), ("class", kind), ("device", device)):
        (folder / name).write_text(f"{value}\n")


def processes_in(root: Path) -> list[int]:
    """Return the processes whose root is this folder: what was started in it by chroot."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "root").readlink() == root.resolve():
                found.append(int(entry.name))
        except OSError:
            continue  # It has ended meanwhile.
    return found


def end_processes_in(root: Path) -> None:
    """Kill what runs in the root, as the container runtime does with everything of a container that it ends.

    Raises:
        RuntimeError: something does not end.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while remaining := processes_in(root):
        if time.monotonic() > deadline:
            raise RuntimeError(f"these processes in {root} do not end: {remaining}")
        for pid in remaining:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.02)


def remove(root: Path) -> None:
    """Remove a root: its processes, then its mounts, then its files; never the files while something is mounted."""
    end_processes_in(root)
    mounts.unmount_below(root.resolve())
    left = mounts.below(Path("/proc/self/mountinfo").read_text(), root.resolve())
    if left:
        raise RuntimeError(f"{root} is not removed, because {', '.join(left)} is still mounted")
    shutil.rmtree(root)
