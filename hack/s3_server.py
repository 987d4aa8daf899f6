"""A real S3 server on this machine, Versity's gateway over a folder, for the tests of uploads.

`python hack/s3_server.py` builds it (half a minute, once) and prints where it is; its programs are kept beside those of
the local cluster, which the same Go builds. Exit code 2 where it cannot be built, with the reason.
"""

from __future__ import annotations

import sys
from pathlib import Path

import go_programs
from go_programs import ClusterError, RefusalError
from server_process import ServerProcess

SOURCE = Path(__file__).resolve().parent / "s3-server"
START_SECONDS = 20.0


def program() -> Path:
    """Build the server where it is missing, and return its path.

    Raises:
        RefusalError: no usable Go toolchain.
        ClusterError: the build failed, such as for want of its modules.
    """
    return go_programs.program(SOURCE, "s3-server")


class S3Server(ServerProcess):
    """A server with one user, whose buckets are the folders of `folder`."""

    def __init__(
        self, path: Path, folder: Path, port: int, access_key: str, secret_key: str, *, address: str = "127.0.0.1"
    ) -> None:
        self.endpoint = f"http://{address}:{port}"
        self.buckets = folder / "buckets"
        """The folder whose folders are the buckets; an object's content is the file of its key's name."""
        metadata = folder / "metadata"
        for each in (self.buckets, metadata):
            each.mkdir(parents=True, exist_ok=True)
        argv: list[str | Path] = [path, f"{address}:{port}", self.buckets, metadata]
        keys = {"AWS_ACCESS_KEY_ID": access_key, "AWS_SECRET_ACCESS_KEY": secret_key}
        super().__init__(argv, folder / "server.log", f"{self.endpoint}/health", START_SECONDS, keys)


if __name__ == "__main__":
    try:
        print(program())
    except (ClusterError, RefusalError) as error:
        print(f"s3-server: {error}", file=sys.stderr)
        sys.exit(2)
