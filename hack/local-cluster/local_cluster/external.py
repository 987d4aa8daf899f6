"""A cluster of the user's own, used instead of the local one."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from local_cluster import binaries
from local_cluster.errors import ClusterError, RefusalError

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
