"""`make bench-driver`: the driver pod against the bare package manager, and what a second run on a ready node pays.

There is no GPU: the node's root is the Debian root of tests/node, and the packages are its stand-ins. Here they carry
as much program code as a real driver does, compressed as packages are; that no module is compiled spares both the same
minute or more. Both get a new copy of the same root, whose dpkg writes as safely as ever, and the same repository.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import bench
from e2e.driver_lab import GPU_SUITE, GpuNode, driver_values, gpu_node, gpu_suite
from e2e.lab import manifest, wait_for
from installation import Cluster, build_images, install, say, start_cluster
from mlperf_operator.cluster import JOBS, NODES
from mlperf_operator.cluster import Cluster as Client
from mlperf_operator.naming import DRIVER_READY_LABEL, DRIVER_WANTED_LABEL, SELECTOR
from node import debian_root, packages, repository
from node.node import Node

BENCH = "mlperf-bench-driver"
VERSION = packages.FIRST
PAYLOAD = 1_200_000_000
"""Bytes, unpacked: driver 550 with its libraries and its module's source; as .deb files they are 300 to 400 MB."""
ROUNDS = 3
SECOND_RUNS = 9
PATIENCE_SECONDS = 300.0
GOALS = {"driver_ready_ratio": {"max": 1.5}, "second_run_adds_s": {"max": 2.0}}


def main() -> None:
    """Measure and report."""
    archive = debian_root.base_archive()
    cluster = start_cluster()
    images = build_images()
    os.environ["KUBECONFIG"] = cluster.kubeconfig
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        folder.chmod(0o755)
        roots = Roots(archive, folder)
        stack.callback(roots.clear)
        roots.renew(roots.host)
        server = stack.enter_context(serving(folder / "repository", program_code(roots.host)))
        values = {
            "suites": [gpu_suite()],
            "allowedImages": ["localhost/"],
            "driver": driver_values(roots.host, server.repository(), toolkit=None),
        }
        # Called in the opposite order: the node is left alone before the chart is as it was, and the roots go last.
        stack.callback(install, cluster, *images)
        install(cluster, *images, values=values)
        stack.callback(cluster.kubectl, "delete", "namespace", BENCH, "--wait=false")
        cluster.ensure_namespace(BENCH, pod_security="privileged")
        node = stack.enter_context(gpu_node(cluster, Node(roots.host, folder)))
        figures = asyncio.run(measure(cluster, node, roots, server))
    bench.close("driver", figures, GOALS)


async def measure(cluster: Cluster, node: GpuNode, roots: Roots, server: repository.Server) -> dict[str, float]:
    """Return the figures; who goes first changes from round to round."""
    results: dict[str, list[float]] = {"bare": [], "pod": []}
    async with Client.from_environment() as client:
        for index in range(ROUNDS):
            for way in ("bare", "pod") if index % 2 == 0 else ("pod", "bare"):
                seconds = bare(roots, server) if way == "bare" else await by_pod(cluster, client, node, roots, index)
                say(f"round {index + 1} of {ROUNDS}, {way}: {seconds:.2f} s")
                results[way].append(seconds)
        say(f"{SECOND_RUNS} runs on the ready node, and as many that do not look at the driver")
        ensured = [await second_run(cluster, client, f"ensure-{i}", "Ensure") for i in range(SECOND_RUNS)]
        ignored = [await second_run(cluster, client, f"ignore-{i}", "Ignore") for i in range(SECOND_RUNS)]
    ratios = [pod / alone for pod, alone in zip(results["pod"], results["bare"], strict=True)]
    return {
        "driver_ready_ratio": round(statistics.median(ratios), 3),
        "label_to_ready_s": round(statistics.median(results["pod"]), 2),
        "bare_install_s": round(statistics.median(results["bare"]), 2),
        "label_to_ready_spread": round(max(results["pod"]) / min(results["pod"]) - 1, 3),
        "bare_install_spread": round(max(results["bare"]) / min(results["bare"]) - 1, 3),
        "second_run_adds_s": round(statistics.median(ensured) - statistics.median(ignored), 3),
        "second_run_to_job_s": round(statistics.median(ensured), 3),
        "run_without_driver_to_job_s": round(statistics.median(ignored), 3),
        "payload_megabytes": PAYLOAD / 1e6,
        "rounds": float(ROUNDS),
    }


class Roots:
    """The roots that are changed: the node's, always under the same path, and one for the bare package manager."""

    def __init__(self, archive: Path, folder: Path) -> None:
        self._archive = archive
        self.host = folder / "host"
        self.bare = folder / "bare"

    def renew(self, root: Path) -> None:
        """Put a new root in the place of one that was changed."""
        self.clear(root)
        debian_root.unpack(self._archive, root)
        debian_root.furnish(root)
        debian_root.write_safely(root)
        # Nobody pays for what the copy left in memory only.
        os.sync()

    def clear(self, *roots: Path) -> None:
        """Remove roots; both where none is named."""
        for root in roots or (self.host, self.bare):
            if root.exists():
                debian_root.remove(root)


def program_code(root: Path) -> bytes:
    """Return the shared libraries of a root, one after the other: more than the compressor remembers at a time."""
    files = sorted(file for file in (root / "usr/lib").rglob("*.so*") if file.is_file() and not file.is_symlink())
    return b"".join(file.read_bytes() for file in files)


@contextmanager
def serving(folder: Path, code: bytes) -> Iterator[repository.Server]:
    """Serve a repository of stand-in packages of a real driver's size."""
    folder.mkdir()
    say(f"building stand-in packages with {PAYLOAD / 1e6:.0f} MB")
    with repository.signing_key() as key:
        debs = [packages.build(deb, folder, code) for deb in packages.driver_debs(VERSION, PAYLOAD)]
        say(f"they are {sum(deb.stat().st_size for deb in debs) / 1e6:.0f} MB compressed")
        repository.index(folder, key, debs)
        server = repository.Server(folder, key)
        server.start()
        try:
            yield server
        finally:
            server.stop()


def bare(roots: Roots, server: repository.Server) -> float:
    """Return the seconds of apt-get update and install in a new root, and nothing around them."""
    roots.renew(roots.bare)
    node = Node(roots.bare, roots.bare.parent)
    started = time.perf_counter()
    node.apt(server, "install", *(f"{name}={VERSION}-1" for name in package_names()))
    return time.perf_counter() - started


def package_names() -> tuple[str, ...]:
    """Return what the catalogue's entry installs on a node with NVSwitch."""
    return (*packages.driver_packages(VERSION), *packages.fabric_packages(VERSION))


async def by_pod(cluster: Cluster, client: Client, node: GpuNode, roots: Roots, index: int) -> float:
    """Return the seconds from the label driver-wanted to the label driver-ready on a node with a new root.

    Raises:
        RuntimeError: the node did not get ready.
    """
    node.reset()
    roots.renew(roots.host)
    name = f"first-{index}"
    async with client.watch(NODES, {"fieldSelector": f"metadata.name={node.name}"}, PATIENCE_SECONDS) as events:
        node.label(driver_opt_in="install")
        cluster.kubectl("apply", "-n", BENCH, "-f", "-", stdin=as_json(name, "Ensure"))
        wanted = await label_seen(events, DRIVER_WANTED_LABEL)
        ready = await label_seen(events, DRIVER_READY_LABEL)
    await delete_run(cluster, name)
    if missing := set(package_names()) - set(node.host.installed()):
        raise RuntimeError(f"the node says ready without {', '.join(sorted(missing))}")
    return ready - wanted


async def label_seen(events: AsyncIterator[dict[str, Any]], label: str) -> float:
    """Return when the node has this label with the version.

    Raises:
        RuntimeError: the watch ended before, or took too long.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    async for event in events:
        if event["object"]["metadata"].get("labels", {}).get(label) == VERSION:
            return time.perf_counter()
        if time.monotonic() > deadline:
            raise RuntimeError(f"the node did not get {label}: {event['object']['metadata'].get('annotations')}")
    raise RuntimeError(f"the watch of the node ended before it had {label}")


async def second_run(cluster: Cluster, client: Client, name: str, policy: str) -> float:
    """Return the seconds from kubectl apply of a run to its Job."""
    async with client.watch(JOBS, {"labelSelector": SELECTOR}, PATIENCE_SECONDS) as jobs:
        started = time.perf_counter()
        apply = asyncio.create_task(asyncio.to_thread(apply_run, cluster, name, policy))
        async for event in jobs:
            if event["type"] == "ADDED" and event["object"]["metadata"]["name"] == name:
                break
        seconds = time.perf_counter() - started
        await apply
    await delete_run(cluster, name)
    return seconds


def apply_run(cluster: Cluster, name: str, policy: str) -> None:
    """Apply a run as a user does."""
    cluster.kubectl("apply", "-n", BENCH, "-f", "-", stdin=as_json(name, policy))


def as_json(name: str, policy: str) -> str:
    """Return a run of the stand-in's GPU suite; its Job is what counts, so nobody needs its image."""
    body = manifest(name, suite=GPU_SUITE, driver={"policy": policy, "version": packages.branch_of(VERSION)})
    return json.dumps(body)


async def delete_run(cluster: Cluster, name: str) -> None:
    """Delete a run, and wait until its pods no longer use the node's GPUs."""
    await asyncio.to_thread(cluster.kubectl, "delete", "mlperfrun", name, "-n", BENCH, "--wait=true")
    await asyncio.to_thread(
        wait_for, "the end of the run's pods", lambda: not cluster.get("pods", "-n", BENCH)["items"], 60.0
    )


if __name__ == "__main__":
    main()
