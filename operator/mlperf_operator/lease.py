"""One leader at a time, by a Lease, without trusting any wall clock but one's own monotonic one."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from datetime import UTC, datetime
from typing import Any

from mlperf_operator.cluster import LEASES, ApiError, Cluster
from mlperf_operator.tasks import first_ended

logger = logging.getLogger(__name__)


class LostLeadershipError(Exception):
    """The Lease could not be renewed in time, or another took it; the process has to end."""


class Lease:
    """Holds a Lease while a task runs, and ends that task when the Lease is lost.

    Durations are in seconds and must satisfy retry period < renew deadline < duration.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        namespace: str,
        name: str,
        identity: str,
        duration: int,
        renew_deadline: float,
        retry_period: float,
    ) -> None:
        if not retry_period < renew_deadline < duration:
            msg = "lease times must satisfy retry period < renew deadline < duration"
            raise ValueError(msg)
        self._cluster = cluster
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._duration = duration
        self._renew_deadline = renew_deadline
        self._retry_period = retry_period
        self._renewed_at: float | None = None
        self._seen: tuple[str, float] | None = None

    @property
    def held(self) -> bool:
        """Whether this process may act: its last renewal is younger than the renew deadline."""
        return self._renewed_at is not None and time.monotonic() - self._renewed_at < self._renew_deadline

    async def run(self, lead: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Wait for the Lease, then run `lead` while it is held; either ending ends both.

        Raises:
            LostLeadershipError: it could not be renewed in time.
        """
        await self._acquire()
        logger.info("leading as %s", self._identity)
        try:
            await first_ended(lead(), self._keep())
        finally:
            await self._release()

    async def _acquire(self) -> None:
        won = await self._attempt()
        while not won:
            await asyncio.sleep(self._retry_period)
            won = await self._attempt()

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(self._retry_period)
            await self._attempt()
            if not self.held:
                logger.error("the Lease was not renewed in time or is another's; this process ends")
                raise LostLeadershipError

    async def _attempt(self) -> bool:
        """Try once to take or renew the Lease.

        An API error is a failed try and says nothing about who holds the Lease; a conflict is one too, as anybody may
        have annotated it.
        """
        started = time.monotonic()
        try:
            async with asyncio.timeout(self._renew_deadline / 2):
                won = await self._take()
        except (ApiError, TimeoutError) as error:
            logger.warning("the Lease was not taken: %r", error)
            return False
        if won:
            # Counted from before the request: others count from when they see it, which is later.
            self._renewed_at = started
        else:
            self._renewed_at = None
        return won

    async def _take(self) -> bool:
        found = await self._cluster.get(LEASES, self._namespace, self._name)
        if found is None:
            await self._cluster.create_lease(
                {
                    "apiVersion": "coordination.k8s.io/v1",
                    "kind": "Lease",
                    "metadata": {"namespace": self._namespace, "name": self._name},
                    "spec": self._spec({}),
                }
            )
            return True
        spec = found.get("spec", {})
        holder = spec.get("holderIdentity") or ""
        if holder not in ("", self._identity) and not self._expired(found):
            return False
        await self._cluster.replace(LEASES, {**found, "spec": self._spec(spec)})
        return True

    def _expired(self, found: dict[str, Any]) -> bool:
        # A renewal is seen as a change of resourceVersion; how long ago is our own clock's business.
        version = str(found["metadata"]["resourceVersion"])
        if self._seen is None or self._seen[0] != version:
            self._seen = (version, time.monotonic())
        duration = int(found.get("spec", {}).get("leaseDurationSeconds") or self._duration)
        return time.monotonic() - self._seen[1] > duration

    async def _release(self) -> None:
        if not self.held:
            return
        self._renewed_at = None
        try:
            async with asyncio.timeout(self._renew_deadline / 2):
                found = await self._cluster.get(LEASES, self._namespace, self._name)
                if found is not None and found.get("spec", {}).get("holderIdentity") == self._identity:
                    found["spec"]["holderIdentity"] = ""
                    await self._cluster.replace(LEASES, found)
        except (ApiError, TimeoutError) as error:
            logger.warning("the Lease was not released and runs out by itself: %r", error)

    def _spec(self, before: Mapping[str, Any]) -> dict[str, Any]:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        mine = before.get("holderIdentity") == self._identity
        return {
            **before,
            "holderIdentity": self._identity,
            "leaseDurationSeconds": self._duration,
            "acquireTime": before.get("acquireTime", now) if mine else now,
            "renewTime": now,
            "leaseTransitions": int(before.get("leaseTransitions") or 0) + (bool(before) and not mine),
        }
