"""`mlperf-operator check`: whether an installed operator works; what `helm test` runs."""

from __future__ import annotations

import asyncio

import typer

from mlperf_operator import naming
from mlperf_operator.cli_common import failure
from mlperf_operator.cluster import LEASES, MLPERF_RUNS, ApiError, Cluster
from mlperf_operator.settings import Settings, SettingsError


def check() -> None:
    """Say whether the API serves MLPerfRuns and an operator leads. Exit code 1 when not, 2 on wrong settings."""
    try:
        namespace = Settings.from_environment().namespace
    except SettingsError as error:
        raise failure(*str(error).splitlines()) from error
    problem = asyncio.run(_problem(namespace))
    if problem:
        raise failure(problem, code=1)
    typer.echo("the API serves MLPerfRuns and an operator leads")


async def _problem(namespace: str) -> str:
    try:
        async with Cluster.from_environment() as cluster:
            await cluster.list_page(MLPERF_RUNS, {"limit": "1"})
            lease = await cluster.get(LEASES, namespace, naming.MANAGER)
    except ApiError as error:
        if error.status == 404:
            return f"the API does not serve MLPerfRuns; install the CRD ({error.message})"
        return str(error)
    if lease is None or not lease.get("spec", {}).get("holderIdentity"):
        return f"no operator holds the Lease {naming.MANAGER} in namespace {namespace}; is its pod running?"
    return ""
