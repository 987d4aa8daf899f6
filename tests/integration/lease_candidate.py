"""A process that leads until it is killed: `python -m integration.lease_candidate NAMESPACE IDENTITY DURATION`."""

from __future__ import annotations

import asyncio
import sys

from mlperf_operator.cluster import Cluster
from mlperf_operator.lease import Lease


async def _lead() -> None:
    print("leading", flush=True)
    await asyncio.sleep(3600)


async def _main(namespace: str, identity: str, duration: int) -> None:
    async with Cluster.from_environment() as cluster:
        lease = Lease(
            cluster,
            namespace=namespace,
            name="test",
            identity=identity,
            duration=duration,
            renew_deadline=duration * 0.6,
            retry_period=0.2,
        )
        await lease.run(_lead)


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
