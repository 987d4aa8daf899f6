"""What the tests ask of the API server and of etcd that the operator never does."""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
from typing import Any

from local_cluster.layout import Layout

from mlperf_operator.cluster import Cluster, Resource

_NAMESPACES = "/api/v1/namespaces"
_CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_APPLY = "application/apply-patch+yaml"


async def create_namespace(cluster: Cluster, name: str) -> None:
    await cluster._json("POST", _NAMESPACES, {"metadata": {"name": name}})


async def delete_namespace(cluster: Cluster, name: str) -> None:
    await cluster._json("DELETE", f"{_NAMESPACES}/{name}", {})


async def serve_custom_resource(cluster: Cluster, definition: dict[str, Any]) -> None:
    """Apply a CRD and wait until its objects are served."""
    url = f"{_CRDS}/{definition['metadata']['name']}"
    query = {"fieldManager": "integration-test", "force": "true"}
    await cluster._json("PATCH", url, definition, query=query, content_type=_APPLY)
    async with asyncio.timeout(30):
        while not _established(await cluster._json("GET", url)):  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.1)


def _established(definition: dict[str, Any]) -> bool:
    conditions = definition.get("status", {}).get("conditions") or ()
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)


async def merge(cluster: Cluster, resource: Resource, namespace: str, name: str, patch: dict[str, Any]) -> None:
    """Change an object as a user with kubectl would."""
    url = resource.url(namespace, name)
    query = {"fieldManager": "somebody-else"}
    await cluster._json("PATCH", url, patch, query=query, content_type="application/merge-patch+json")


async def apply_status(cluster: Cluster, resource: Resource, body: dict[str, Any], manager: str) -> None:
    """Apply a part of an object's status as another field manager."""
    url = resource.url(body["metadata"]["namespace"], body["metadata"]["name"], "status")
    await cluster._json("PATCH", url, body, query={"fieldManager": manager}, content_type=_APPLY)


def compact(control_plane: Layout, revision: int) -> None:
    """Make etcd forget everything before a revision, through its JSON gateway."""
    spec = control_plane.read_spec()
    assert spec is not None
    trust = ssl.create_default_context(cafile=control_plane.certs / "etcd-ca.crt")
    trust.load_cert_chain(
        control_plane.certs / "apiserver-etcd-client.crt", control_plane.certs / "apiserver-etcd-client.key"
    )
    body = json.dumps({"revision": str(revision), "physical": True})
    connection = http.client.HTTPSConnection("127.0.0.1", spec.ports.etcd, context=trust, timeout=30)
    connection.request("POST", "/v3/kv/compaction", body, {"Content-Type": "application/json"})
    assert connection.getresponse().status == 200
    connection.close()
