"""A small HTTPS client for the cluster's own endpoints: client certificates, no proxy."""

import http.client
import json
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from local_cluster.errors import ClusterError

TIMEOUT_SECONDS = 10.0
FIELD_MANAGER = "local-cluster"


@dataclass(frozen=True)
class Identity:
    """Whom to trust and as whom to speak."""

    ca: Path
    cert: Path
    key: Path


def identities(certs: Path) -> dict[str, Identity]:
    """Return who speaks to etcd, and who to everything else."""
    etcd = Identity(certs / "etcd-ca.crt", certs / "apiserver-etcd-client.crt", certs / "apiserver-etcd-client.key")
    return {"etcd": etcd, "admin": Identity(certs / "ca.crt", certs / "admin.crt", certs / "admin.key")}


def request(
    identity: Identity, method: str, url: str, body: bytes | None = None, content_type: str = "application/json"
) -> tuple[int, bytes]:
    """Send one request and return status and body.

    Raises:
        OSError: nobody answers (TLS errors are OSErrors too).
    """
    parts = urlsplit(url)
    host, port = str(parts.hostname), parts.port
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl.create_default_context(cafile=str(identity.ca))
        context.load_cert_chain(identity.cert, identity.key)
        connection = http.client.HTTPSConnection(host, port, timeout=TIMEOUT_SECONDS, context=context)
    else:
        connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_SECONDS)
    target = f"{parts.path}?{parts.query}" if parts.query else parts.path
    try:
        connection.request(method, target, body, {"Content-Type": content_type, "Accept": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()
    except http.client.HTTPException as error:
        raise OSError(f"{url}: {error!r}") from error
    finally:
        connection.close()


def is_healthy(identity: Identity, health: str) -> bool:
    """Say whether a component answers that it is well; see `Component.health`."""
    if health.startswith("unix:"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            return client.connect_ex(health.removeprefix("unix:")) == 0
    try:
        return request(identity, "GET", health)[0] == 200
    except OSError:
        return False


@dataclass(frozen=True)
class Api:
    """The API server, as the administrator."""

    server: str
    identity: Identity

    def get(self, path: str) -> dict[str, Any] | None:
        """Return an object or a list, None when there is none."""
        return self._call("GET", path, None, "application/json")

    def apply(self, path: str, value: dict[str, Any]) -> None:
        """Create or change an object by server-side apply."""
        query = f"?fieldManager={FIELD_MANAGER}&force=true"
        self._call("PATCH", path + query, value, "application/apply-patch+yaml")

    def merge(self, path: str, value: dict[str, Any]) -> None:
        """Change some fields of an object."""
        self._call("PATCH", path, value, "application/merge-patch+json")

    def _call(self, method: str, path: str, value: dict[str, Any] | None, content_type: str) -> dict[str, Any] | None:
        body = None if value is None else json.dumps(value).encode()
        try:
            status, answer = request(self.identity, method, self.server + path, body, content_type)
        except OSError as error:
            raise ClusterError(f"the API server does not answer: {error}") from error
        if status == 404 and method == "GET":
            return None
        if status >= 300:
            raise ClusterError(f"{method} {path}: HTTP {status}: {answer.decode(errors='replace')[:500]}")
        result: dict[str, Any] = json.loads(answer)
        return result
