"""`make bench-overhead`: the reference harness on the bare host against the same inside a run's pod.

The two alternate in one go. The host gets the same tree, the same versions of the libraries (uv.lock) and the very
override files that the run's ConfigMap holds; what differs is the container and the pod around it.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import bench
from installation import (
    REPOSITORY,
    Cluster,
    build_images,
    condition,
    install,
    say,
    start_cluster,
    wait_until_finished,
)

BENCH = "mlperf-bench-overhead"
ROUNDS = 5
MIN_DURATION_MS = 8000
PREPARATION = ("prebuild", "link_dirs", "download_data", "download_model", "preprocess_data", "build")
GOALS = {"samples_per_second_ratio": {"min": 0.98}}


def main() -> None:
    """Measure and report."""
    cluster = start_cluster()
    install(cluster, *build_images())
    cluster.ensure_namespace(BENCH)
    try:
        with tempfile.TemporaryDirectory() as folder:
            host, pod = measure(cluster, Path(folder))
    finally:
        cluster.kubectl("delete", "namespace", BENCH, "--wait=false")
    figures = {
        "samples_per_second_ratio": round(statistics.median(p / h for h, p in zip(host, pod, strict=True)), 4),
        "host_samples_per_second": round(statistics.median(host), 1),
        "pod_samples_per_second": round(statistics.median(pod), 1),
        "host_spread": round(max(host) / min(host) - 1, 4),
        "pod_spread": round(max(pod) / min(pod) - 1, 4),
        "rounds": float(ROUNDS),
    }
    bench.close("overhead", figures, GOALS)


def measure(cluster: Cluster, folder: Path) -> tuple[list[float], list[float]]:
    """Return the samples/s of each round on the host and in the pod; who goes first changes from round to round."""
    cluster.ensure_claim(BENCH, "scratch")
    say("a first run prepares the scratch and warms up; it is not counted")
    in_pod(cluster, "warm-up")
    host = Host(folder, cluster)
    host.measure()
    results: dict[str, list[float]] = {"host": [], "pod": []}
    for index in range(ROUNDS):
        for where in ("host", "pod") if index % 2 == 0 else ("pod", "host"):
            found = host.measure() if where == "host" else in_pod(cluster, f"round-{index}")
            say(f"round {index + 1} of {ROUNDS}, {where}: {found:.1f} samples/s")
            results[where].append(found)
    return results["host"], results["pod"]


def in_pod(cluster: Cluster, name: str) -> float:
    """Return the samples/s that an MLPerfRun reports.

    Raises:
        RuntimeError: it has no valid result.
    """
    override = {"benchmark": "digits", "scenario": "Offline", "field": "min_duration", "value": MIN_DURATION_MS}
    spec: dict[str, Any] = {
        "suite": "reference-cpu",
        "system": "CPU_REFERENCE",
        "benchmarks": [{"name": "digits", "scenarios": ["Offline"]}],
        "testModes": ["PerformanceOnly"],
        "gpuConfig": {"overrides": [override]},
        "scratch": {"claimName": "scratch"},
    }
    cluster.apply(
        {
            "apiVersion": "mlperf.dev/v1alpha1",
            "kind": "MLPerfRun",
            "metadata": {"name": name, "namespace": BENCH},
            "spec": spec,
        }
    )
    # Asked rarely, because every question takes the processor from what is measured.
    cluster.kubectl("wait", "--for=condition=Finished", f"mlperfrun/{name}", "-n", BENCH, "--timeout=300s")
    run = wait_until_finished(cluster, BENCH, name, 10)
    if condition(run, "ResultsValid")[0] != "True":
        raise RuntimeError(f"{name} has no valid result: {json.dumps(run['status'])}")
    return float(run["status"]["results"][0]["metric"]["value"])


class Host:
    """The reference harness as a process of this machine."""

    def __init__(self, folder: Path, cluster: Cluster) -> None:
        self._tree, self._logs = folder / "work", folder / "logs"
        shutil.copytree(REPOSITORY / "reference_harness", self._tree, ignore=shutil.ignore_patterns("__pycache__"))
        overrides = folder / "overrides"
        write_overrides(cluster, overrides)
        scratch = folder / "scratch"
        scratch.mkdir()
        self._environment = {
            **os.environ,
            "PYTHON": sys.executable,
            "MLPERF_SCRATCH_PATH": str(scratch),
            "MLPINF_CUSTOM_DEFINITION_PATH": str(overrides),
            "LOG_DIR": str(self._logs),
        }
        for target in PREPARATION:
            self._make(target)

    def _make(self, target: str, *arguments: str) -> None:
        argv = ["make", "--no-print-directory", target, *arguments]
        done = subprocess.run(
            argv, cwd=self._tree, env=self._environment, capture_output=True, text=True, check=False, timeout=600
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(argv)} ended with {done.returncode}: {done.stdout}{done.stderr}")

    def measure(self) -> float:
        """Return the samples/s of one measurement.

        Raises:
            RuntimeError: it failed, or LoadGen says INVALID.
        """
        shutil.rmtree(self._logs, ignore_errors=True)
        arguments = "--benchmarks=digits --scenarios=Offline --config_ver=default"
        self._make("generate_engines", f"RUN_ARGS={arguments}")
        self._make("run_harness", f"RUN_ARGS={arguments} --test_mode=PerformanceOnly")
        (file,) = self._logs.rglob("metadata.json")
        metadata = json.loads(file.read_text())
        if metadata["result_validity"] != "VALID":
            raise RuntimeError(f"LoadGen says {metadata['result_validity']} on the host")
        return float(metadata[metadata["scenario_key"]])


def write_overrides(cluster: Cluster, folder: Path) -> None:
    """Write the override files of the first run, as its pod sees them."""
    pod = cluster.get("job", "warm-up", "-n", BENCH)["spec"]["template"]["spec"]
    items = next(v["configMap"]["items"] for v in pod["volumes"] if v["name"] == "overrides")
    data = cluster.get("configmap", "warm-up-gpu-config", "-n", BENCH)["data"]
    for item in items:
        path = folder / item["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(data[item["key"]])


if __name__ == "__main__":
    main()
