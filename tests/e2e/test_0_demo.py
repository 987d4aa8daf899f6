"""The demo, as a new user runs it, and what the chart promises beside it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from installation import BUILD, NAMESPACE, RELEASE, REPOSITORY, Cluster, operator_pods

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def demo(images: tuple[str, str]) -> str:
    """What the demo prints. The images are built before it, so that the time is that of a second demo."""
    argv = [sys.executable, str(REPOSITORY / "hack" / "demo.py")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_demo_ends_with_valid_results_for_three_scenarios_and_accuracy_passed(demo: str, cluster: Cluster) -> None:
    run = cluster.get("mlperfrun", "reference-cpu", "-n", "mlperf-demo")
    results = run["status"]["results"]
    measured = {r["scenario"]: r["validity"] for r in results if r["mode"] == "PerformanceOnly"}
    assert measured == dict.fromkeys(("Offline", "Server", "SingleStream"), "VALID")
    scores = [item["passed"] for r in results if r["mode"] == "AccuracyOnly" for item in r["accuracy"]]
    assert scores == [True, True, True]


def test_the_demo_shows_the_table_and_says_what_a_short_run_means(demo: str, cluster: Cluster) -> None:
    assert "SUCCEEDED   VALID" in demo
    assert "minDurationMet" in demo
    run = cluster.get("mlperfrun", "reference-cpu", "-n", "mlperf-demo")
    assert all(r["minDurationMet"] is False for r in run["status"]["results"] if r["mode"] == "PerformanceOnly")


def test_helm_test_finds_the_installed_chart_working(demo: str, cluster: Cluster) -> None:
    said = cluster.run("helm", "test", RELEASE, "--namespace", NAMESPACE)
    assert "Succeeded" in said


def test_the_operator_runs_without_root_and_without_privilege(demo: str, cluster: Cluster) -> None:
    pod = operator_pods(cluster)[0]
    container = pod["spec"]["containers"][0]["securityContext"]
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
    assert container["readOnlyRootFilesystem"] is True
    assert container["allowPrivilegeEscalation"] is False
    assert container["capabilities"] == {"drop": ["ALL"]}


def test_a_second_demo_takes_less_than_two_minutes(demo: str) -> None:
    argv = [sys.executable, str(REPOSITORY / "hack" / "demo.py")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120, env=dict(os.environ))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_reference_harness_fits_in_500_megabytes_without_torch_or_cuda(images: tuple[str, str]) -> None:
    argv = ["buildah", "images", "--format", "{{.Size}}", images[1]]
    size, unit = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
    assert unit == "MB"
    assert float(size) < 500
    packages = {path.name.partition("-")[0] for path in (BUILD / "reference-harness" / "site-packages").iterdir()}
    assert "mlcommons_loadgen" in packages
    assert not {name for name in packages if name.startswith(("torch", "nvidia", "cuda"))}
