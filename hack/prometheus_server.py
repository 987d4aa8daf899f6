"""A real Prometheus on this machine, and its promtool, for the tests of metrics and alert rules.

`python hack/prometheus_server.py` gets them where they are missing and prints their folder: from the PATH, else out of
Debian's package, which is unpacked and not installed, so that its service never starts. Exit code 2 where that is not
possible, with the reason.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "local-cluster"))

from local_cluster import host  # noqa: E402 - this may be run as a script
from local_cluster.errors import ClusterError, RefusalError  # noqa: E402
from local_cluster.layout import cache_dir  # noqa: E402
from local_cluster.locks import locked  # noqa: E402
from local_cluster.progress import run_long  # noqa: E402

from server_process import ServerProcess  # noqa: E402

PROGRAMS = ("prometheus", "promtool")
START_SECONDS = 60.0


def programs() -> Path:
    """Return the folder with prometheus and promtool.

    Raises:
        RefusalError: they are not here, and this system has no Debian package of them.
        ClusterError: the package could not be fetched.
    """
    found = [shutil.which(program) for program in PROGRAMS]
    if all(found) and len({Path(str(path)).parent for path in found}) == 1:
        return Path(str(found[0])).parent
    folder = cache_dir() / "prometheus"
    with locked("get-prometheus", "it unpacks Prometheus"):
        if not folder.exists():
            _unpack(folder)
    return folder


def _unpack(folder: Path) -> None:
    if not host.is_debian_like():
        raise RefusalError(
            "prometheus and promtool are missing, and this is neither Debian nor Ubuntu to get them from"
        )
    log, partial = cache_dir() / "apt.log", folder.with_name(".prometheus.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    if os.geteuid() == 0:
        run_long("reading the package lists", ["apt-get", "-o", "DPkg::Lock::Timeout=300", "update"], log, env=env)
    run_long("fetching the package prometheus", ["apt-get", "download", "prometheus"], log, env=env, cwd=partial)
    [package] = partial.glob("prometheus_*.deb")
    run_long("unpacking prometheus", ["dpkg-deb", "--extract", str(package), str(partial / "root")], log, env=env)
    (partial / "bin").mkdir()
    for program in PROGRAMS:
        (partial / "root/usr/bin" / program).rename(partial / "bin" / program)
    (partial / "bin").rename(folder)
    shutil.rmtree(partial)


class PrometheusServer(ServerProcess):
    """A server with its data in `folder`, which reads the configuration that lies there as prometheus.yml."""

    def __init__(self, bin_folder: Path, folder: Path, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        argv: list[str | Path] = [
            bin_folder / "prometheus",
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        super().__init__(argv, folder / "prometheus.log", f"{self.url}/-/ready", START_SECONDS)

    def get(self, path: str, **query: str) -> Any:  # noqa: ANN401 - JSON
        """Return the data of an answer of its API.

        Raises:
            RuntimeError: it refused, such as a query that it cannot parse; the message is its own.
        """
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310 - our own
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(error.read().decode(errors="replace")) from error

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the samples that an expression gives now."""
        return list(self.get("query", query=expression)["result"])


if __name__ == "__main__":
    try:
        print(programs())
    except (ClusterError, RefusalError) as error:
        print(f"prometheus: {error}", file=sys.stderr)
        sys.exit(2)
