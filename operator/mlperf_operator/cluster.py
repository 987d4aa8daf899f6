"""The API server: the only module that writes to it.

kubernetes.aio brings configuration, credentials and TLS; bodies stay plain JSON, because our objects are built as such.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlencode, urlsplit
from urllib.request import getproxies

import aiohttp
import msgspec
from kubernetes.aio import client, config

from mlperf_operator import naming
from mlperf_operator.api.v1alpha1 import API_VERSION, GROUP, KIND, PLURAL, VERSION
from mlperf_operator.clock import ServerClock
from mlperf_operator.metrics import UNSEEN, Metrics
from mlperf_operator.shapes import WHOLE, Shape

REQUEST_TIMEOUT_SECONDS = 30.0
MAX_CONNECTIONS = 300
"""Bound on open connections: more than all workers (256 at most) and watches use, or the Lease would wait for one."""

LOG_LIMIT_BYTES = 4 * 1024**2

_JSON = "application/json"
METADATA_ALONE = f"{_JSON};as=PartialObjectMetadata;g=meta.k8s.io;v=v1,{_JSON}"
"""Value of Accept for an object's metadata and no more."""

_APPLY = "application/apply-patch+yaml; charset=utf-8"
"""Server-side apply reads YAML. With a charset the client sends the text that it is given."""

_ESCAPED = re.compile(r"[^\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
"""What cannot stand in YAML as it is."""

Json = dict[str, Any]


class ApiError(Exception):
    """The API server refused a request, or did not answer it (status 0)."""

    def __init__(self, status: int, reason: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(f"{status} {reason}: {message}" if status else message)
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after


class NotLeaderError(ApiError):
    """This process lost its Lease and must not write any more."""

    def __init__(self) -> None:
        super().__init__(0, "NotLeader", "this process no longer holds the Lease")


@dataclass(frozen=True)
class Resource:
    """A kind of object and where it is served."""

    group: str
    version: str
    plural: str
    kind: str
    namespace: str | None = None
    """The one namespace that a list or watch is of; None for all."""
    shape: Shape = field(default=WHOLE, compare=False)
    """What a list or watch reads of each object."""

    def within(self, namespace: str) -> Resource:
        """Return the objects of this kind in one namespace."""
        return replace(self, namespace=namespace)

    def read_as(self, shape: Shape) -> Resource:
        """Return the objects of this kind, of which a list or watch reads only a part."""
        return replace(self, shape=shape)

    def url(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """Return the path of the collection, the object or its subresource."""
        prefix = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        scope = f"/namespaces/{namespace or self.namespace}" if namespace or self.namespace else ""
        return "/".join([f"{prefix}{scope}/{self.plural}", *(part for part in (name, subresource) if part)])


MLPERF_RUNS = Resource(GROUP, VERSION, PLURAL, KIND)
JOBS = Resource("batch", "v1", "jobs", "Job")
PODS = Resource("", "v1", "pods", "Pod")
CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap")
CLAIMS = Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
EVENTS = Resource("", "v1", "events", "Event")
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
NODES = Resource("", "v1", "nodes", "Node")
DAEMON_SETS = Resource("apps", "v1", "daemonsets", "DaemonSet")
POLICY_BINDINGS = Resource(
    "admissionregistration.k8s.io", "v1", "validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding"
)

BY_KIND: Mapping[str, Resource] = {
    r.kind: r for r in (MLPERF_RUNS, JOBS, PODS, CONFIG_MAPS, CLAIMS, EVENTS, LEASES, NODES, DAEMON_SETS)
}


async def _configuration() -> client.Configuration:
    configuration = client.Configuration()
    try:
        if "KUBERNETES_SERVICE_HOST" in os.environ and "KUBECONFIG" not in os.environ:
            config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        else:
            file = os.environ.get("KUBECONFIG") or None
            await config.load_kube_config(file, client_configuration=configuration)  # type: ignore[no-untyped-call]
    except config.ConfigException as error:
        raise ApiError(0, "NoConfiguration", f"no cluster to talk to: {error}") from error
    configuration.connection_pool_maxsize = MAX_CONNECTIONS
    # Where the environment names no proxy it is not to be trusted: aiohttp would read ~/.netrc at each request.
    configuration.client_session_kwargs = {"trust_env": bool(getproxies())}
    return configuration


_WRITES: ContextVar[bool] = ContextVar("writes", default=False)
"""Whether what is being sent needs the Lease."""


class Cluster:
    """A client of one API server."""

    def __init__(self, api: client.ApiClient) -> None:
        self._api = api
        api.configuration.trace_configs = [self._tracing()]
        self._host = urlsplit(api.configuration.host).netloc
        self.guard: Callable[[], bool] = lambda: True
        """Asked before each write; False refuses it, so that a leader that was replaced cannot act."""
        self.metrics: Metrics = UNSEEN
        """Where requests are counted."""
        self.clock = ServerClock()

    @classmethod
    @asynccontextmanager
    async def from_environment(cls) -> AsyncIterator[Cluster]:
        """Connect by KUBECONFIG, by the pod's service account, or by the user's kubeconfig, in this order."""
        async with client.ApiClient(await _configuration()) as api:
            yield cls(api)

    async def create(self, body: Mapping[str, Any]) -> Json:
        """Create an object and return it as stored; of a ConfigMap or claim, which may be large, its metadata."""
        resource = BY_KIND[body["kind"]]
        accept = METADATA_ALONE if resource in (CONFIG_MAPS, CLAIMS) else _JSON
        return await self._write("POST", resource.url(body["metadata"]["namespace"]), body, accept=accept)

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Json | None:
        """Return an object, or None when there is none."""
        try:
            return await self._json("GET", resource.url(namespace, name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def replace(self, resource: Resource, body: Mapping[str, Any]) -> Json:
        """Replace an object at its resourceVersion; a conflict is an ApiError 409.

        Only the Lease is written this way, which is how leadership is won, so the guard is not asked.
        """
        meta = body["metadata"]
        return await self._json("PUT", resource.url(meta["namespace"], meta["name"]), body)

    async def create_lease(self, body: Mapping[str, Any]) -> Json:
        """Create the Lease, which is how leadership is won, so the guard is not asked."""
        return await self._json("POST", LEASES.url(body["metadata"]["namespace"]), body)

    async def delete(
        self, resource: Resource, namespace: str, name: str, uid: str, *, foreground: bool = False
    ) -> None:
        """Delete exactly this object; one that is gone or was made anew is left alone.

        In the foreground it stays, marked, until the garbage collector has deleted what it owns.
        """
        policy = "Foreground" if foreground else "Background"
        options = {"preconditions": {"uid": uid}, "propagationPolicy": policy}
        try:
            await self._write("DELETE", resource.url(namespace, name), options)
        except ApiError as error:
            if error.status not in (404, 409):
                raise

    async def set_job_suspend(self, namespace: str, name: str, uid: str, *, suspend: bool) -> None:
        """Set suspend of exactly this Job."""
        body = {"metadata": {"uid": uid}, "spec": {"suspend": suspend}}
        await self._write("PATCH", JOBS.url(namespace, name), body, content_type="application/merge-patch+json")

    async def apply_run_status(
        self, namespace: str, name: str, uid: str, resource_version: str, status: Mapping[str, Any]
    ) -> Json:
        """Apply the whole status of exactly this run, as it was read, and return the object's metadata.

        Raises:
            ApiError: among others 404 when the run is gone and 409 when it was made anew or changed meanwhile.
        """
        # The API server ignores a uid in what is applied to /status of a custom resource, but not a resourceVersion.
        body = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"name": name, "namespace": namespace, "uid": uid, "resourceVersion": resource_version},
            "status": status,
        }
        query = {"fieldManager": naming.MANAGER, "force": "true"}
        url = MLPERF_RUNS.url(namespace, name, "status")
        return await self._write("PATCH", url, body, query=query, content_type=_APPLY, accept=METADATA_ALONE)

    async def patch_node(self, name: str, resource_version: str, patch: Mapping[str, Any]) -> Json:
        """Merge a patch into a node as it was read, and return it as stored.

        Raises:
            ApiError: among others 409 when the node changed meanwhile.
        """
        metadata = {**patch.get("metadata", {}), "resourceVersion": resource_version}
        body = {**patch, "metadata": metadata}
        return await self._write("PATCH", NODES.url(None, name), body, content_type="application/merge-patch+json")

    async def apply(self, body: Mapping[str, Any]) -> Json:
        """Apply an object that is wholly ours, and return it as stored."""
        meta = body["metadata"]
        query = {"fieldManager": naming.MANAGER, "force": "true"}
        url = BY_KIND[body["kind"]].url(meta["namespace"], meta["name"])
        return await self._write("PATCH", url, body, query=query, content_type=_APPLY)

    async def evict(self, namespace: str, name: str, uid: str) -> None:
        """Evict exactly this pod; one that is gone is fine.

        Raises:
            ApiError: among others 429 when a disruption budget forbids it.
        """
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": name, "namespace": namespace},
            "deleteOptions": {"preconditions": {"uid": uid}},
        }
        try:
            await self._write("POST", PODS.url(namespace, name, "eviction"), body)
        except ApiError as error:
            if error.status not in (404, 409):
                raise

    async def pods_on(self, node: str) -> list[Json]:
        """Return the pods on a node that have not ended, of all namespaces."""
        selector = f"spec.nodeName={node},status.phase!=Succeeded,status.phase!=Failed"
        return list((await self._json("GET", PODS.url(), query={"fieldSelector": selector})).get("items", []))

    async def list_in(self, resource: Resource, namespace: str, label_selector: str) -> list[Json]:
        """Return the objects of one namespace that carry these labels."""
        query = {"labelSelector": label_selector}
        return list((await self._json("GET", resource.url(namespace), query=query)).get("items", []))

    async def emit_event(self, body: Mapping[str, Any]) -> None:
        """Create an Event; one that was told already is left as it is."""
        try:
            await self._write("POST", EVENTS.url(body["metadata"]["namespace"]), body, accept=METADATA_ALONE)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise

    async def read_log(self, namespace: str, pod: str, container: str, *, last_lines: int | None = None) -> str:
        """Return a container's log, or its last lines: at most LOG_LIMIT_BYTES of it."""
        query = {"container": container, "limitBytes": str(LOG_LIMIT_BYTES)}
        if last_lines is not None:
            query["tailLines"] = str(last_lines)
        data = await self._request("GET", PODS.url(namespace, pod, "log"), query=query)
        return data.decode(errors="replace")

    async def warnings_about_jobs(self, namespace: str) -> list[Json]:
        """Return the warnings about Jobs of a namespace."""
        query = {"fieldSelector": "involvedObject.kind=Job,type=Warning"}
        return list((await self._json("GET", EVENTS.url(namespace), query=query)).get("items", []))

    async def list_page(self, resource: Resource, query: Mapping[str, str]) -> Json:
        """Return one page of a list over all namespaces, or over the resource's own."""
        return _parsed(await self._request("GET", resource.url(), query=query), resource.shape.page)

    @asynccontextmanager
    async def watch(
        self, resource: Resource, query: Mapping[str, str], silence_seconds: float
    ) -> AsyncIterator[AsyncIterator[Json]]:
        """Open a watch over all namespaces, or over the resource's own, as its events.

        Raises:
            ApiError: it was refused, broke off within an event, or nothing came for `silence_seconds`.
        """
        timeout = aiohttp.ClientTimeout(total=None, connect=REQUEST_TIMEOUT_SECONDS, sock_read=silence_seconds)
        with _translated():
            response = await self._send("GET", resource.url(), None, {**query, "watch": "true"}, timeout=timeout)
            try:
                yield _events(response.content, resource.shape)
            finally:
                response.close()

    async def _write(
        self,
        method: str,
        url: str,
        body: Mapping[str, Any],
        *,
        query: Mapping[str, str] | None = None,
        content_type: str = _JSON,
        accept: str = _JSON,
    ) -> Json:
        if not self.guard():
            raise NotLeaderError
        token = _WRITES.set(True)
        try:
            return await self._json(method, url, body, query=query, content_type=content_type, accept=accept)
        finally:
            _WRITES.reset(token)

    def _tracing(self) -> aiohttp.TraceConfig:
        """Have the guard asked once more when a write has its connection: a process may hang while it waits for one."""

        async def ask(_session: object, _context: object, _params: object) -> None:
            if _WRITES.get() and not self.guard():
                raise NotLeaderError

        trace = aiohttp.TraceConfig()
        trace.on_connection_create_end.append(ask)
        trace.on_connection_reuseconn.append(ask)
        return trace

    async def _json(
        self,
        method: str,
        url: str,
        body: Mapping[str, Any] | None = None,
        *,
        query: Mapping[str, str] | None = None,
        content_type: str = _JSON,
        accept: str = _JSON,
    ) -> Json:
        return _parsed(await self._request(method, url, body, query=query, content_type=content_type, accept=accept))

    async def _request(
        self,
        method: str,
        url: str,
        body: Mapping[str, Any] | None = None,
        *,
        query: Mapping[str, str] | None = None,
        content_type: str = _JSON,
        accept: str = _JSON,
    ) -> bytes:
        with _translated():
            response = await self._send(method, url, body, query or {}, content_type=content_type, accept=accept)
            return await response.read()

    async def _send(
        self,
        method: str,
        url: str,
        body: Mapping[str, Any] | None,
        query: Mapping[str, str],
        *,
        content_type: str = _JSON,
        accept: str = _JSON,
        timeout: aiohttp.ClientTimeout | None = None,  # noqa: ASYNC109 - aiohttp's own kind of timeout
    ) -> aiohttp.ClientResponse:
        headers = {
            "Content-Type": content_type,
            "Accept": accept,
            # To pack and unpack answers costs both sides more than a cluster's network.
            "Accept-Encoding": "identity",
            "User-Agent": naming.MANAGER,
        }
        await self._api.update_params_for_auth(headers, [], ["BearerToken"], url, method, body)
        full = self._api.configuration.host + url + (f"?{urlencode(query)}" if query else "")
        limit = timeout or aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_SECONDS)
        started, code = time.perf_counter(), "<error>"
        try:
            sent = _yaml(body) if content_type == _APPLY else body
            answer = await self._api.call_api(method, full, headers, sent, _request_timeout=limit)
            response: aiohttp.ClientResponse = answer.response
            code = str(response.status)
        finally:
            self.metrics.request(method, self._host, code, time.perf_counter() - started)
        if response.status >= 400:
            raise _error(response, await response.read())
        # Not of an error, which may be the word and the clock of a proxy in between.
        self.clock.note(response.headers.get("Date"), time.perf_counter() - started)
        return response


def _yaml(body: Mapping[str, Any] | None) -> str:
    """Return a body as JSON that is YAML too, which does not know JSON's pairs of escapes for an emoji."""
    return _ESCAPED.sub(_escape, json.dumps(body, ensure_ascii=False))


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    # Half of a pair is no character.
    return "\\ufffd" if 0xD800 <= code <= 0xDFFF else f"\\u{code:04x}"


class _translated:  # noqa: N801 - used as a `with` statement
    """Turns transport errors into ApiError of status 0."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, (aiohttp.ClientError, OSError)):
            raise ApiError(0, type(error).__name__, f"no answer from the API server: {error!r}") from error


def _error(response: aiohttp.ClientResponse, body: bytes) -> ApiError:
    try:
        status = json.loads(body)
    except ValueError:
        status = {}
    text = status.get("message") if isinstance(status, dict) else None
    reason = str(status.get("reason", "")) if isinstance(status, dict) else ""
    after = response.headers.get("Retry-After", "")
    message = text or body.decode(errors="replace")[:500] or str(response.reason)
    return ApiError(response.status, reason, message, float(after) if after.isdecimal() else None)


def _parsed(text: bytes, decoder: msgspec.json.Decoder[Any] = WHOLE.page) -> Json:
    try:
        return dict(decoder.decode(text))
    except (TypeError, ValueError, msgspec.DecodeError) as error:
        # A proxy in between answers with pages of its own.
        raise ApiError(0, "NotJSON", f"the answer is not a JSON object: {text[:200]!r}") from error


async def _events(stream: aiohttp.StreamReader, shape: Shape) -> AsyncIterator[Json]:
    # Lines are put together by hand: an object may be longer than the reader's limit for one line.
    rest = b""
    async for chunk in stream.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.strip():
                yield _parsed(line, shape.event)
    if rest.strip():
        raise ApiError(0, "Truncated", "the watch broke off within an event")
