"""What lives in containerd: images going in, containers being ended."""

import errno
import hashlib
import io
import json
import os
import platform
import signal
import subprocess
import tarfile
import time
from contextlib import suppress
from pathlib import Path

from local_cluster import processes
from local_cluster.errors import ClusterError
from local_cluster.layout import Layout
from local_cluster.render import PAUSE_IMAGE

NAMESPACE = "k8s.io"
CGROUP_SECONDS = 10.0
CGROUPS = Path("/sys/fs/cgroup")
# What the kubelet asks of its cgroup with version 2 (pkg/kubelet/cm, getSupportedUnifiedControllers).
KUBELET_CONTROLLERS = ("cpu", "cpuset", "memory", "hugetlb", "pids")
CONTEXT_LABEL = "mlperf.dev/context-digest"
_SHIM = "containerd-shim-runc-v2"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def archive_of(program: bytes, tag: str, architecture: str) -> bytes:
    """Return a docker-archive with an image that holds nothing but one static program, which it runs as nobody."""
    layer = _tar({"pause": program}, mode=0o755)
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Entrypoint": ["/pause"], "User": "65535:65535"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [tag], "Layers": ["layer.tar"]}]
    members = {"config.json": json.dumps(config), "manifest.json": json.dumps(manifest)}
    return _tar({"layer.tar": layer, **{name: text.encode() for name, text in members.items()}}, mode=0o644)


def _tar(members: dict[str, bytes], mode: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def ensure_pause_image(layout: Layout, pause: Path) -> None:
    """Load the image of the process that holds a pod's namespaces."""
    if PAUSE_IMAGE in image_labels(layout):
        return
    machine = platform.machine()
    archive = layout.state / "pause.tar"
    archive.write_bytes(archive_of(pause.read_bytes(), PAUSE_IMAGE, _ARCHITECTURES.get(machine, machine)))
    import_archive(layout, archive)


def import_archive(layout: Layout, archive: Path) -> None:
    """Load the images of a docker-archive or OCI archive."""
    _ctr(layout, "images", "import", str(archive))


def image_labels(layout: Layout) -> dict[str, str]:
    """Return the labels of every loaded image, by the image's name, as containerd prints them."""
    rows = _ctr(layout, "images", "list").splitlines()[1:]
    return {row.split()[0]: row.split()[-1] for row in rows}


def label_image(layout: Layout, image: str, digest: str) -> None:
    """Note on a loaded image from which build context it came."""
    _ctr(layout, "images", "label", image, f"{CONTEXT_LABEL}={digest}")


def _ctr(layout: Layout, *arguments: str) -> str:
    argv = ["ctr", f"--address={layout.containerd_socket}", f"--namespace={NAMESPACE}", *arguments]
    answer = subprocess.run(argv, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        raise ClusterError(f"ctr {' '.join(arguments)} failed: {answer.stderr.strip()}")
    return answer.stdout


def end_all(layout: Layout, roots: list[Path]) -> None:
    """Kill every process in a pod, whose cgroups are below `roots`, then the shims that watched them."""
    inside = pod_processes(roots)
    processes.end(inside, signal.SIGKILL, 10)
    shims = [pid for pid, argv in processes.find([_SHIM]).items() if str(layout.containerd_socket) in argv]
    processes.end(shims, signal.SIGKILL, 10)


def cgroup_roots(mount: Path) -> list[Path]:
    """Return the root of each cgroup hierarchy: one with version 2, one a controller with version 1."""
    if (mount / "cgroup.controllers").exists():
        return [mount]
    return sorted(folder for folder in mount.iterdir() if folder.is_dir() and not folder.is_symlink())


def ensure_cgroup(roots: list[Path], name: str) -> list[Path]:
    """Return the cgroups of this name in every hierarchy, made where missing, with the controllers of their parent.

    Raises:
        ClusterError: this container or session may not make any.
    """
    made = [root / name for root in roots]
    try:
        for root, cgroup in zip(roots, made, strict=True):
            cgroup.mkdir(exist_ok=True)
            if (root / "cgroup.controllers").exists():
                known = (root / "cgroup.controllers").read_text().split()
                wanted = [f"+{controller}" for controller in known if controller in KUBELET_CONTROLLERS]
                (root / "cgroup.subtree_control").write_text(" ".join(wanted))
    except OSError as error:
        raise ClusterError(f"cannot make the cgroup {name} for a further node: {error}") from error
    return made


def pod_processes(roots: list[Path]) -> list[int]:
    """Return the processes of all pods: everything below the kubelet's cgroup."""
    found = set[int]()
    for root in roots:
        for folder, _, _ in os.walk(root / "kubepods"):
            # A pod that ends while we look takes its cgroup with it.
            with suppress(FileNotFoundError, ProcessLookupError):
                found |= {int(line) for line in (Path(folder) / "cgroup.procs").read_text().split()}
    return sorted(found)


def remove_cgroups(folders: list[Path]) -> None:
    """Remove cgroups and all below, deepest first; the kernel frees one a moment after its last process has ended.

    Raises:
        ClusterError: one is still in use.
    """
    deadline = time.monotonic() + CGROUP_SECONDS
    for cgroup in [path for folder in folders for path, _, _ in os.walk(folder, topdown=False)]:
        while not _removed(Path(cgroup)):
            if time.monotonic() > deadline:
                raise ClusterError(f"the cgroup {cgroup} is still in use")
            time.sleep(0.05)


def _removed(cgroup: Path) -> bool:
    try:
        cgroup.rmdir()
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True


def remove_cni_results(folder: Path, network: str) -> None:
    """Remove what the CNI library remembers of our pods in its fixed folder."""
    ours = {file.name.removeprefix(f"{network}-").rsplit("-", 1)[0] for file in folder.glob(f"{network}-*")}
    for file in list(folder.glob("*")):
        if any(container in file.name for container in ours):
            file.unlink()
    for empty in (folder, folder.parent):
        if empty.is_dir() and not any(empty.iterdir()):
            empty.rmdir()
