"""The log endpoint of the fleet's nodes: collect's log of any run, by HTTPS, as a kubelet serves it.

KWOK's own serves the same file for every pod; a report names its run's uid. That is asked of the API server, once a
pod. Usage: python -m fleet.node_logs PORT CERT KEY, with KUBECONFIG.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiohttp import web

from fleet.reported import lines, log
from mlperf_operator.cluster import PODS, ApiError, Cluster
from mlperf_operator.naming import RUN_UID_LABEL
from mlperf_operator.resources.containers import COLLECT
from mlperf_operator.site import site


class NodeLogs:
    """Answers GET /containerLogs/NAMESPACE/POD/CONTAINER."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def answer(self, request: web.Request) -> web.Response:
        """Return collect's log of the pod's run; of another container one line."""
        namespace, pod, container = (request.match_info[key] for key in ("namespace", "pod", "container"))
        if container != COLLECT:
            return web.Response(text=f"log of {container}\n")
        try:
            found = await self._cluster.get(PODS, namespace, pod)
        except ApiError as error:
            return web.Response(status=500, text=str(error))
        if found is None:
            return web.Response(status=404, text=f"no pod {pod}")
        if not _has_started(found, container):
            return web.Response(status=400, text=f'container "{container}" in pod "{pod}" is waiting to start')
        uid = found["metadata"].get("labels", {}).get(RUN_UID_LABEL, "")
        sha256 = hashlib.sha256(lines(uid).encode()).hexdigest()
        return web.Response(text=log(uid, sha256))


def _has_started(pod: Mapping[str, Any], container: str) -> bool:
    status = pod.get("status", {})
    found = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
    return any(each["name"] == container and "waiting" not in each["state"] for each in found)


async def serve(port: int, cert: Path, key: Path) -> None:
    """Serve until cancelled."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    async with Cluster.from_environment() as cluster:
        routes = [web.get("/containerLogs/{namespace}/{pod}/{container}", NodeLogs(cluster).answer)]
        async with site(port, routes, host="127.0.0.1", tls=context):
            await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])))
