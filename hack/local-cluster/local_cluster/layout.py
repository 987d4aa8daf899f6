"""Where a cluster keeps its files, and the record that says what kind of cluster it is."""

import json
import os
import re
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from local_cluster.addresses import Place, place
from local_cluster.errors import RefusalError

DEFAULT_FULL = "local"
DEFAULT_CONTROL_PLANE = "control-plane"
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")


@dataclass(frozen=True)
class Ports:
    """TCP ports of one cluster. The last four are used only by a cluster with a node."""

    etcd: int = 2379
    etcd_peer: int = 2380
    apiserver: int = 6443
    controller_manager: int = 10257
    scheduler: int = 10259
    kubelet: int = 10250
    kubelet_health: int = 10248
    proxy_health: int = 10256
    proxy_metrics: int = 10249


@dataclass(frozen=True)
class Spec:
    """What a cluster is: kept in its state directory, so that later commands need only its name."""

    name: str
    full: bool
    audit: bool
    ports: Ports
    slot: int = 0
    """Which of the machine's places for a node is this cluster's; without meaning where there is no node."""

    @property
    def place(self) -> Place:
        """The node's addresses."""
        return place(self.slot)

    def to_json(self) -> str:
        """Return the text that `from_json` reads."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @staticmethod
    def from_json(text: str) -> "Spec":
        """Read what `to_json` wrote."""
        data = json.loads(text)
        # Records of before there were slots name none.
        return Spec(data["name"], data["full"], data["audit"], Ports(**data["ports"]), data.get("slot", 0))


@dataclass(frozen=True)
class Condition:
    """One line of `status`: a process, or the cluster as a whole."""

    name: str
    pid: int | None
    healthy: bool
    detail: str = ""


@dataclass(frozen=True)
class Layout:
    """The directories of one cluster."""

    name: str
    base: Path
    run_base: Path

    @property
    def state(self) -> Path:
        """Everything that must survive a restart of the machine."""
        return self.base / self.name

    @property
    def run(self) -> Path:
        """Sockets, mounts and network namespaces: worthless after a restart of the machine."""
        return self.run_base / self.name

    @property
    def spec_file(self) -> Path:
        """The cluster's record."""
        return self.state / "cluster.json"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.state / "kubeconfig"

    @property
    def certs(self) -> Path:
        """Keys and certificates."""
        return self.state / "certs"

    @property
    def config(self) -> Path:
        """Rendered configuration files."""
        return self.state / "config"

    @property
    def logs(self) -> Path:
        """One log a component."""
        return self.state / "logs"

    @property
    def pids(self) -> Path:
        """One process record a component."""
        return self.state / "pids"

    @property
    def volumes(self) -> Path:
        """The folders behind the persistent volumes."""
        return self.state / "volumes"

    @property
    def network_namespace(self) -> Path:
        """The file that holds the node's network namespace, where it has one of its own."""
        return self.run / "network-namespace"

    @property
    def device_plugins(self) -> Path:
        """What a further node sees as the folder of device plug-ins."""
        return self.state / "device-plugins"

    @property
    def kubelet_root(self) -> Path:
        """The kubelet's folder, with the pods' volumes."""
        return self.state / "kubelet"

    @property
    def containerd_socket(self) -> Path:
        """Where containerd listens."""
        return self.run / "containerd.sock"

    def read_spec(self) -> Spec | None:
        """Return the cluster's record, or None when there is no such cluster."""
        try:
            return Spec.from_json(self.spec_file.read_text())
        except FileNotFoundError:
            return None


def layout_for(name: str) -> Layout:
    """Return the directories of the cluster `name`: system folders for root, else the user's own.

    Raises:
        RefusalError: the name cannot be a folder's and an interface's name.
    """
    if not _NAME.fullmatch(name):
        raise RefusalError(f"the name {name!r} is not possible: use up to 32 small letters, digits and inner hyphens")
    return Layout(name, *_bases())


def existing_layouts() -> list[Layout]:
    """Return the directories of every cluster of this user that has left any, by name."""
    folders = [folder for base in _bases() if base.is_dir() for folder in base.iterdir() if folder.is_dir()]
    return [layout_for(name) for name in sorted({folder.name for folder in folders}) if _NAME.fullmatch(name)]


def _bases() -> tuple[Path, Path]:
    if os.geteuid() == 0:
        return Path("/var/lib/mlperf-operator-cluster"), Path("/run/mlperf-operator-cluster")
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state")
    base = state / "mlperf-operator-cluster"
    return base, base


def cache_dir() -> Path:
    """Return the folder for what outlives every cluster: built programs, images, locks."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "mlperf-operator"


def all_specs(base: Path) -> list[Spec]:
    """Return the records of every cluster under `base`, by name."""
    specs = []
    for file in sorted(base.glob("*/cluster.json")):
        # A cluster may be taken down while we look.
        with suppress(FileNotFoundError):
            specs.append(Spec.from_json(file.read_text()))
    return specs
