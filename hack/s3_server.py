"""A real S3 server on this machine, Versity's gateway over a folder, for the tests of uploads.

`python hack/s3_server.py` builds it (half a minute, once) and prints where it is; its programs are kept beside those of
the local cluster, which the same Go builds. Exit code 2 where it cannot be built, with the reason.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import go_programs
from go_programs import ClusterError, RefusalError

SOURCE = Path(__file__).resolve().parent / "s3-server"
START_SECONDS = 20.0


def program() -> Path:
    """Build the server where it is missing, and return its path.

    Raises:
        RefusalError: no usable Go toolchain.
        ClusterError: the build failed, such as for want of its modules.
    """
    return go_programs.program(SOURCE, "s3-server")


class S3Server:
    """A server with one user, whose buckets are the folders of `folder`."""

    def __init__(
        self, path: Path, folder: Path, port: int, access_key: str, secret_key: str, *, address: str = "127.0.0.1"
    ) -> None:
        self._path, self._folder, self._address = path, folder, f"{address}:{port}"
        self._keys = {"AWS_ACCESS_KEY_ID": access_key, "AWS_SECRET_ACCESS_KEY": secret_key}
        self._process: subprocess.Popen[bytes] | None = None
        self.endpoint = f"http://{self._address}"
        for name in ("buckets", "metadata"):
            (folder / name).mkdir(parents=True, exist_ok=True)

    @property
    def buckets(self) -> Path:
        """The folder whose folders are the buckets; an object's content is the file of its key's name."""
        return self._folder / "buckets"

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            RuntimeError: it ended, or does not answer in time.
        """
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._path, self._address, self.buckets, self._folder / "metadata"],
                env={**os.environ, **self._keys},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        end = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end:
                text = (self._folder / "server.log").read_text(errors="replace")[-500:]
                raise RuntimeError(f"the S3 server does not answer: {text}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.endpoint}/health", timeout=2) as answer:  # noqa: S310 - our own
                return bool(answer.status == 200)
        except OSError:
            return False

    def stop(self) -> None:
        """End it; its buckets stay."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)
            self._process = None


if __name__ == "__main__":
    try:
        print(program())
    except (ClusterError, RefusalError) as error:
        print(f"s3-server: {error}", file=sys.stderr)
        sys.exit(2)
