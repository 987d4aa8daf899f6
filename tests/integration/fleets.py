"""A fleet of KWOK's nodes for a test."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from local_cluster.errors import ClusterError, RefusalError

from fleet.fleet import Fleet, fleet
from fleet.stages import Delays


@asynccontextmanager
async def played(name: str, nodes: int, delays: Delays) -> AsyncIterator[Fleet]:
    """Start a fleet of this session's own; skip the test where KWOK or a control plane cannot be had."""
    try:
        async with fleet(f"{name}-{os.getpid()}", nodes, delays) as made:
            yield made
    except (ClusterError, RefusalError) as error:
        pytest.skip(str(error).splitlines()[0])
