"""The stand-in tree on the cluster: its images, a node that advertises GPUs, and runs that take seconds.

GPUs are advertised by hand, more of them than a run asks for, so that several runs go on at a time.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from e2e.driver_lab import advertise_gpus
from e2e.suites import NVIDIA_TREE, PREBUILT_IMAGE, TREE_IMAGE, nvidia_tree
from installation import BUILD, Cluster, launcher, only_caller
from mlperf_operator import cli_suite
from mlperf_operator.suites import Suite
from nvidia_tree import parts

SYSTEM = "A100_SXM4_40GBx8"
GPUS = 8
ADVERTISED = 64
FINISH_SECONDS = 420.0

_SHORT: dict[tuple[str, str], dict[str, int]] = {
    ("bert", "Offline"): {"min_duration": 1000},
    ("bert", "Server"): {"min_duration": 1000, "server_target_qps": 2000},
    ("bert", "SingleStream"): {"min_duration": 1000},
    ("3d-unet", "Offline"): {"min_duration": 1500},
    ("3d-unet", "SingleStream"): {"min_duration": 1000, "single_stream_expected_latency_ns": 5_000_000},
}
"""Config values with which a measurement takes about a second."""

_KITS = "data/KiTS19/kits19/data"

Pairs = dict[str, list[str]]
EVERYTHING: Pairs = {"bert": ["Offline", "Server", "SingleStream"], "3d-unet": ["Offline", "SingleStream"]}
UNET_OFFLINE: Pairs = {"3d-unet": ["Offline"]}


def build_tree_image(base: str) -> str:
    """Build the stand-in's image on the harness's, which has LoadGen, and return its name."""
    with only_caller(BUILD):
        context = parts.make_context(BUILD / "standin-tree")
        launcher(
            "build-image",
            *("--file", str(context / "Dockerfile"), "--context", str(context)),
            *("--tag", TREE_IMAGE, "--build-arg", f"BASE_IMAGE={base}"),
        )
    return TREE_IMAGE


def build_prebuilt_image() -> str:
    """Build, as `mlperf-operator suite dockerfile` says, the image that needs no prebuild, and return its name."""
    suite = Suite.model_validate(nvidia_tree(NVIDIA_TREE))
    with only_caller(BUILD):
        file = BUILD / "standin-tree.Dockerfile"
        file.write_text(cli_suite.render(suite, "."))
        context = parts.TREE / "docker" / "common"
        launcher("build-image", *("--file", str(file), "--context", str(context), "--tag", PREBUILT_IMAGE))
    return PREBUILT_IMAGE


@contextmanager
def many_gpus(cluster: Cluster) -> Iterator[None]:
    """Advertise GPUs on the cluster's only node."""
    [node] = cluster.get("nodes")["items"]
    name = node["metadata"]["name"]
    advertise_gpus(cluster, name, ADVERTISED)
    try:
        yield
    finally:
        advertise_gpus(cluster, name, None)


def overrides(pairs: Pairs) -> list[dict[str, Any]]:
    """Config overrides that make the measurements short."""
    return [
        {"benchmark": benchmark, "scenario": scenario, "field": field, "value": value}
        for benchmark, scenarios in pairs.items()
        for scenario in scenarios
        for field, value in _SHORT[benchmark, scenario].items()
    ]


def manifest(name: str, scratch: str, pairs: Pairs, suite: str = NVIDIA_TREE, **spec: Any) -> dict[str, Any]:
    """An MLPerfRun of the stand-in on an existing claim, both modes unless the spec says otherwise."""
    base: dict[str, Any] = {
        "suite": suite,
        "system": SYSTEM,
        "benchmarks": [{"name": name, "scenarios": scenarios} for name, scenarios in pairs.items()],
        "gpuConfig": {"overrides": overrides(pairs)},
        "scratch": {"claimName": scratch},
        "runTimeoutSeconds": 600,
    }
    return {"apiVersion": "mlperf.dev/v1alpha1", "kind": "MLPerfRun", "metadata": {"name": name}, "spec": base | spec}


def result(run: dict[str, Any], pair: str, mode: str) -> dict[str, Any]:
    """The result of a pair such as bert/Offline, in a mode such as Performance."""
    benchmark, scenario = pair.split("/")
    wanted = (benchmark, scenario, f"{mode}Only")
    [found] = [r for r in run["status"]["results"] if (r["benchmark"], r["scenario"], r["mode"]) == wanted]
    return dict(found)


def volume(cluster: Cluster, namespace: str, claim: str) -> Path:
    """Where a bound claim's files lie on this machine, which is the cluster's node."""
    name = cluster.get("pvc", claim, "-n", namespace)["spec"]["volumeName"]
    return Path(cluster.get("pv", name)["spec"]["hostPath"]["path"])


def seed_code(folder: Path) -> None:
    """Put a checkout of the repository that holds the tree on a claim."""
    parts.copy_tree(folder / parts.SUBMISSION_FOLDER)


def seed_offline(scratch: Path) -> None:
    """Put on a scratch what a run without a network needs: data, models, git repositories and wheels."""
    parts.add_downloads(scratch)
    shutil.copytree(scratch / f"{_KITS}/case_00185", scratch / f"{_KITS}/case_00400")
    parts.add_git(scratch / "offline/git")
    parts.add_wheels(scratch / "offline/wheels")
