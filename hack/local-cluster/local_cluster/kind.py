"""A cluster of kind, whose node is a container of a Docker engine. Written by kind's own reference, never run here."""

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from local_cluster import binaries, docker, machine
from local_cluster.errors import ClusterError, RefusalError
from local_cluster.images import BuildRequest
from local_cluster.layout import Condition, Layout
from local_cluster.locks import locked
from local_cluster.progress import run_long, say, tail

NODE_SECONDS = 180
_RECORD = "kind.json"


def create_argv(program: str, cluster: str, kubeconfig: Path) -> list[str]:
    """Return the command that makes a cluster. kind's own default names the node's image by its digest."""
    wait = f"--wait={NODE_SECONDS}s"
    return [program, "create", "cluster", f"--name={cluster}", f"--kubeconfig={kubeconfig}", wait]


def delete_argv(program: str, cluster: str, kubeconfig: Path) -> list[str]:
    """Return the command that takes a cluster away."""
    return [program, "delete", "cluster", f"--name={cluster}", f"--kubeconfig={kubeconfig}"]


def export_argv(program: str, cluster: str, kubeconfig: Path) -> list[str]:
    """Return the command that writes an existing cluster's kubeconfig."""
    return [program, "export", "kubeconfig", f"--name={cluster}", f"--kubeconfig={kubeconfig}"]


def load_argv(program: str, cluster: str, image: str) -> list[str]:
    """Return the command that loads an archive, or an image that Docker has, into every node."""
    source = "image-archive" if Path(image).is_file() else "docker-image"
    return [program, "load", source, image, f"--name={cluster}"]


def clusters(listing: str) -> set[str]:
    """Return the names that `kind get clusters` printed; that there are none it says on standard error."""
    return {line.strip() for line in listing.splitlines() if line.strip()}


def creation_failure(output: str, cluster: str) -> str:
    """Put kind's reason for not making a cluster into a sentence."""
    if "failed to pull image" in output:
        image = output.partition('failed to pull image "')[2].partition('"')[0]
        return f"Docker cannot pull the node's image {image}: it needs its registry, or `docker load` beforehand"
    if "already exist" in output:
        return f"Docker has containers of a cluster {cluster!r} already: `kind delete cluster --name={cluster}`"
    return f"kind cannot make the cluster {cluster!r}:\n{output}"


def is_kind(layout: Layout) -> bool:
    """Say whether the cluster of this name is one of kind."""
    return (layout.state / _RECORD).exists()


@dataclass(frozen=True)
class Kind:
    """The provider for machines with a Docker engine."""

    layout: Layout

    @property
    def cluster(self) -> str:
        """The name under which kind knows the cluster."""
        return f"mlperf-{self.layout.name}"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.layout.kubeconfig

    def up(self, *, audit: bool) -> Path:
        """Make the cluster, or start the one that is there, and wait for its node.

        Raises:
            RefusalError: no Docker engine answers, or kind cannot do what was asked.
            ClusterError: the cluster did not start.
        """
        if audit:
            raise RefusalError("--audit is possible with the provider local only")
        docker.require()
        with locked(f"cluster-{self.layout.name}", f"it changes the cluster {self.layout.name!r}"):
            program = str(binaries.ensure_kind())
            self.layout.state.mkdir(parents=True, exist_ok=True)
            (self.layout.state / _RECORD).write_text(json.dumps({"cluster": self.cluster}) + "\n")
            if self._exists(program):
                # A node's container stays stopped after a restart of the machine.
                _run(["docker", "start", f"{self.cluster}-control-plane"])
                _run(export_argv(program, self.cluster, self.kubeconfig))
            else:
                self._create(program)
            self._kubectl("wait", "--for=condition=Ready", "nodes", "--all", f"--timeout={NODE_SECONDS}s")
        return self.kubeconfig

    def down(self) -> None:
        """Take the cluster away. Safe to repeat."""
        docker.require()
        with locked(f"cluster-{self.layout.name}", f"it changes the cluster {self.layout.name!r}"):
            _run(delete_argv(str(binaries.ensure_kind()), self.cluster, self.kubeconfig))
            if self.layout.state.exists():
                shutil.rmtree(self.layout.state)
            machine.remove_empty(self.layout.base)
        say(f"the cluster {self.layout.name!r} is gone")

    def status(self) -> list[Condition]:
        """Say whether Docker answers and whether the cluster can be used.

        Raises:
            RefusalError: there is no such cluster.
        """
        if not is_kind(self.layout):
            raise RefusalError(f"there is no cluster {self.layout.name!r} of kind; `up` makes one")
        why = docker.problem()
        lines = [Condition("docker", None, not why, why)]
        try:
            self._kubectl("get", "--raw=/readyz", "--request-timeout=10s")
            self._kubectl("wait", "--for=condition=Ready", "nodes", "--all", "--timeout=1s")
        except ClusterError as error:
            return [*lines, Condition("cluster", None, healthy=False, detail=str(error))]
        return [*lines, Condition("cluster", None, healthy=True)]

    def load_image(self, image: str) -> None:
        """Load a docker-archive, or an image that Docker has, into the node.

        Raises:
            RefusalError: there is neither such a file nor such an image, or no such cluster.
        """
        docker.require()
        if not is_kind(self.layout):
            raise RefusalError(f"there is no cluster {self.layout.name!r} of kind; `up` makes one")
        if not Path(image).is_file() and not docker.has_image(image):
            raise RefusalError(f"{image!r} is neither a file nor an image that Docker has (`docker images` lists them)")
        _run(load_argv(str(binaries.ensure_kind()), self.cluster, image))
        say(f"loaded {image}")

    def build_image(self, request: BuildRequest, *, load: bool) -> None:
        """Build an image with Docker, and load it into the node."""
        docker.build(request)
        if load:
            self.load_image(request.tag)

    def base_image(self) -> str:
        """Return the name of the base image, made first where it is missing."""
        return docker.ensure_base_image()

    def _exists(self, program: str) -> bool:
        return self.cluster in clusters(_run([program, "get", "clusters"]))

    def _create(self, program: str) -> None:
        log = self.layout.logs / "kind.log"
        try:
            run_long(f"kind makes {self.cluster}", create_argv(program, self.cluster, self.kubeconfig), log)
        except ClusterError as error:
            raise ClusterError(creation_failure(tail(log, 20), self.cluster)) from error

    def _kubectl(self, *arguments: str) -> str:
        program = shutil.which("kubectl") or str(binaries.ensure_programs("kube") / "kubectl")
        return _run([program, f"--kubeconfig={self.kubeconfig}", *arguments])


def _run(argv: list[str]) -> str:
    answer = subprocess.run(argv, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        raise ClusterError(f"{Path(argv[0]).name} {' '.join(argv[1:])} failed: {answer.stderr.strip()}")
    return answer.stdout
