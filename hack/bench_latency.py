"""`make bench-latency`: the time from an MLPerfRun to its Job, and the API requests that the operator makes for a run.

The requests are the API server's own count: with a FlowSchema of its own for the operator's account,
apiserver_flowcontrol_dispatched_requests_total has a line that counts nothing else.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import yaml

import bench
from installation import (
    NAMESPACE,
    RELEASE,
    REPOSITORY,
    Cluster,
    build_images,
    condition,
    install,
    say,
    start_cluster,
    wait_until_finished,
)
from mlperf_operator.cluster import JOBS
from mlperf_operator.cluster import Cluster as Client
from mlperf_operator.naming import SELECTOR

BENCH = "mlperf-bench-latency"
LATENCY_RUNS = 21
WHOLE_RUNS = 3
IDLE_SECONDS = 60.0
PATIENCE_SECONDS = 60.0
GOALS = {"cr_to_job_ms_median": {"max": 300.0}}

_DISPATCHED = re.compile(
    rf"^apiserver_flowcontrol_dispatched_requests_total\{{flow_schema=\"{BENCH}\"[^}}]*\}} ([0-9.e+]+)$", re.MULTILINE
)


def main() -> None:
    """Measure and report."""
    cluster = start_cluster()
    install(cluster, *build_images())
    cluster.ensure_namespace(BENCH)
    os.environ["KUBECONFIG"] = cluster.kubeconfig
    try:
        with flow_schema(cluster):
            say(f"{LATENCY_RUNS} suspended runs, one after the other")
            latencies = asyncio.run(measure_latencies())
            say(f"the operator's requests while nothing happens, {IDLE_SECONDS:g} s")
            idle = idle_requests_per_second(cluster)
            say(f"{WHOLE_RUNS} whole runs, one after the other")
            requests = [requests_of_a_run(cluster, f"whole-{index}", idle) for index in range(WHOLE_RUNS)]
    finally:
        cluster.kubectl("delete", "namespace", BENCH, "--wait=false")
    figures = {
        "cr_to_job_ms_median": round(statistics.median(latencies), 1),
        "cr_to_job_ms_p90": round(statistics.quantiles(latencies, n=10)[-1], 1),
        "cr_to_job_ms_max": round(max(latencies), 1),
        "requests_per_run": round(statistics.median(requests), 1),
        "requests_per_minute_idle": round(idle * 60, 1),
    }
    bench.close("latency", figures, GOALS)


def manifest(name: str, **spec: object) -> dict[str, Any]:
    """Return a run of the example's kind, on an emptyDir."""
    example = yaml.safe_load((REPOSITORY / "examples" / "reference-cpu.yaml").read_text())
    kept = {key: value for key, value in example["spec"].items() if key != "scratch"}
    return {**example, "metadata": {"name": name, "namespace": BENCH}, "spec": {**kept, **spec}}


async def measure_latencies() -> list[float]:
    """Return, for each run, the milliseconds from sending it to seeing its Job in a watch."""
    query = {"labelSelector": SELECTOR}
    async with Client.from_environment() as client, client.watch(JOBS, query, PATIENCE_SECONDS) as jobs:
        return [await measure_latency(client, jobs, f"latency-{index}") for index in range(LATENCY_RUNS)]


async def measure_latency(client: Client, jobs: AsyncIterator[dict[str, Any]], name: str) -> float:
    """Return the milliseconds of one run, which is suspended, so that no pod disturbs the next."""
    body = manifest(name, suspend=True)
    started = time.perf_counter()
    await client.create(body)
    while (await anext(jobs))["object"]["metadata"]["name"] != name:
        pass
    return (time.perf_counter() - started) * 1000


@contextmanager
def flow_schema(cluster: Cluster) -> Iterator[None]:
    """Let the API server count the operator's requests by themselves."""
    account = {"kind": "ServiceAccount", "serviceAccount": {"name": RELEASE, "namespace": NAMESPACE}}
    everything = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": True, "namespaces": ["*"]}
    cluster.apply(
        {
            "apiVersion": "flowcontrol.apiserver.k8s.io/v1",
            "kind": "FlowSchema",
            "metadata": {"name": BENCH},
            "spec": {
                "priorityLevelConfiguration": {"name": "workload-low"},
                "matchingPrecedence": 1000,
                "distinguisherMethod": {"type": "ByUser"},
                "rules": [{"subjects": [account], "resourceRules": [everything]}],
            },
        }
    )
    try:
        yield
    finally:
        cluster.kubectl("delete", "flowschema", BENCH)


def dispatched(cluster: Cluster) -> float:
    """Return how many requests of the operator the API server has dispatched."""
    found = _DISPATCHED.findall(cluster.kubectl("get", "--raw", "/metrics"))
    return sum(float(value) for value in found)


def idle_requests_per_second(cluster: Cluster) -> float:
    """Return the rate of the operator's requests while no run is under way: the Lease, and watches that end.

    Raises:
        RuntimeError: the API server counted none, so that its figures say nothing.
    """
    before, started = dispatched(cluster), time.monotonic()
    time.sleep(IDLE_SECONDS)
    found = dispatched(cluster) - before
    if not found:
        raise RuntimeError(f"the API server counted no request of the operator in {IDLE_SECONDS:g} s")
    return found / (time.monotonic() - started)


def requests_of_a_run(cluster: Cluster, name: str, idle: float) -> float:
    """Return the requests that the operator made for one run from beginning to end, without those of idleness.

    Raises:
        RuntimeError: the run has not succeeded.
    """
    before, started = dispatched(cluster), time.monotonic()
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(manifest(name)))
    run = wait_until_finished(cluster, BENCH, name, 300)
    if condition(run, "Succeeded")[0] != "True":
        raise RuntimeError(f"{name} has not succeeded: {json.dumps(run['status'])}")
    return dispatched(cluster) - before - idle * (time.monotonic() - started)


if __name__ == "__main__":
    main()
