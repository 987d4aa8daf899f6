"""What the fleet asks of the API server that the operator never does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from mlperf_operator.cluster import BY_KIND, PODS, ApiError, Cluster, Resource

CRDS = Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition")
NAMESPACES = Resource("", "v1", "namespaces", "Namespace")
SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount")
_RBAC = "rbac.authorization.k8s.io"
RESOURCES = {
    **BY_KIND,
    **{
        r.kind: r
        for r in (
            PODS,
            SERVICE_ACCOUNTS,
            NAMESPACES,
            CRDS,
            Resource(_RBAC, "v1", "clusterroles", "ClusterRole"),
            Resource(_RBAC, "v1", "clusterrolebindings", "ClusterRoleBinding"),
            Resource(_RBAC, "v1", "roles", "Role"),
            Resource(_RBAC, "v1", "rolebindings", "RoleBinding"),
        )
    },
}

JSON = "application/json"
MERGE = "application/merge-patch+json"
_TOKEN_SECONDS = 24 * 3600


async def ask(
    cluster: Cluster,
    method: str,
    url: str,
    body: Mapping[str, Any] | None = None,
    *,
    kind: str = JSON,
    query: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Send a request of any kind and return the answer."""
    return await cluster._json(method, url, body, query=query, content_type=kind)  # noqa: SLF001 - see above


async def table(cluster: Cluster, resource: Resource, namespace: str, selector: str = "") -> list[dict[str, Any]]:
    """Return what `kubectl get` shows, by column: the cheapest list that says how each object stands.

    Raises:
        ApiError: the API server refused.
    """
    api, headers = cluster._api, {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}  # noqa: SLF001
    url = f"{api.configuration.host}{resource.url(namespace)}?includeObject=None&labelSelector={quote(selector)}"
    response = (await api.call_api("GET", url, headers)).response
    text = await response.read()
    if response.status != 200:
        # As for some seconds after its start, when it has not read what there is.
        raise ApiError(response.status, str(response.reason), text.decode(errors="replace"))
    answer = json.loads(text)
    names = [column["name"] for column in answer["columnDefinitions"]]
    return [dict(zip(names, row["cells"], strict=True)) for row in answer.get("rows") or ()]


async def create(cluster: Cluster, body: dict[str, Any]) -> dict[str, Any]:
    """Create an object of any kind and return it as stored."""
    return await ask(cluster, "POST", RESOURCES[body["kind"]].url(body["metadata"].get("namespace")), body)


async def apply(cluster: Cluster, body: dict[str, Any]) -> None:
    """Apply an object of any kind."""
    meta = body["metadata"]
    url = RESOURCES[body["kind"]].url(meta.get("namespace"), meta["name"])
    query = {"fieldManager": "fleet", "force": "true"}
    await ask(cluster, "PATCH", url, body, kind="application/apply-patch+yaml", query=query)


async def create_all(cluster: Cluster, bodies: Iterable[dict[str, Any]]) -> None:
    """Create objects, several at a time, in the order in which they are given."""
    await several(32, (create(cluster, body) for body in bodies))


async def several(at_once: int, work: Iterable[Awaitable[object]]) -> None:
    """Await all, so many at a time, in the order in which they are given."""
    rest = iter(work)

    async def worker() -> None:
        for each in rest:
            await each

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(worker())


async def account(cluster: Cluster, admin: Path, namespace: str, name: str, folder: Path) -> Path:
    """Return a kubeconfig of a service account, made from the administrator's."""
    url = SERVICE_ACCOUNTS.url(namespace, name, "token")
    answer = await ask(cluster, "POST", url, {"spec": {"expirationSeconds": _TOKEN_SECONDS}})
    return _write(folder / f"{namespace}-{name}.kubeconfig", admin, answer["status"]["token"])


def _write(path: Path, admin: Path, token: str) -> Path:
    config = yaml.safe_load(admin.read_text())
    [user] = config["users"]
    user["user"] = {"token": token}
    path.touch(mode=0o600)
    path.write_text(json.dumps(config))
    return path
