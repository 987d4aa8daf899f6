"""A cluster of the user's own, used instead of the local one."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from local_cluster import binaries, images
from local_cluster.errors import ClusterError, RefusalError
from local_cluster.layout import Condition
from local_cluster.progress import say

KUBECONFIG_VARIABLE = "MLPERF_KUBECONFIG"


@dataclass(frozen=True)
class External:
    """The user's cluster."""

    kubeconfig: Path

    def verify(self) -> None:
        """Ask the cluster whether it is ready.

        Raises:
            ClusterError: it does not answer, or not with yes.
        """
        kubectl = shutil.which("kubectl") or str(binaries.ensure_programs("kube") / "kubectl")
        argv = [kubectl, f"--kubeconfig={self.kubeconfig}", "--request-timeout=10s", "get", "--raw=/readyz"]
        answer = subprocess.run(argv, capture_output=True, text=True, check=False)
        if answer.returncode != 0:
            raise ClusterError(f"the cluster of {self.kubeconfig} is not ready: {answer.stderr.strip()}")

    def up(self, *, audit: bool) -> Path:
        """Ask the cluster whether it is ready, and return its kubeconfig.

        Raises:
            ClusterError: it is not ready.
        """
        if audit:
            say("whether a cluster of your own keeps an audit log is yours to say; --audit changes nothing")
        self.verify()
        return self.kubeconfig

    def down(self) -> None:
        """Leave the cluster as it is."""
        say(f"{self.kubeconfig} is a cluster of your own; nothing was changed")

    def status(self) -> list[Condition]:
        """Ask the cluster whether it is ready."""
        try:
            self.verify()
        except ClusterError as error:
            return [Condition("cluster", None, healthy=False, detail=str(error))]
        return [Condition("cluster", None, healthy=True)]

    def load_image(self, image: str) -> None:
        """Refuse: the cluster pulls its images."""
        raise self.refusal(f"load-image {image}")

    def build_image(self, request: images.BuildRequest, *, load: bool) -> None:
        """Build an image with buildah; it cannot be loaded."""
        if load:
            raise self.refusal(f"build-image {request.tag}")
        images.build(request)

    def base_image(self) -> str:
        """Return the name of the base image, made first where it is missing."""
        return images.ensure_base_image()

    @staticmethod
    def refusal(command: str) -> RefusalError:
        """Return the sentence for what is possible on a cluster of our own only."""
        return RefusalError(
            f"{command} works on the local cluster only, and {KUBECONFIG_VARIABLE} names your own: "
            "push images to a registry that it can pull from"
        )


def external_cluster() -> External | None:
    """Return the user's cluster when the environment names one.

    Raises:
        RefusalError: it names a file that does not exist.
    """
    value = os.environ.get(KUBECONFIG_VARIABLE)
    if not value:
        return None
    path = Path(value).expanduser().absolute()
    if not path.is_file():
        raise RefusalError(f"{KUBECONFIG_VARIABLE} names {path}, which is not a file")
    return External(path)
