"""Cluster, images and chart, as `make demo`, the end-to-end tests and the benchmarks need them. Safe to repeat."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
LAUNCHER = REPOSITORY / "hack" / "local-cluster" / "launcher.py"
BUILD = REPOSITORY / "build"
NAMESPACE = "mlperf-system"
RELEASE = "mlperf-operator"
OPERATOR_IMAGE = "localhost/mlperf-operator:dev"
HARNESS_IMAGE = "localhost/mlperf-reference-harness:dev"
CHART = REPOSITORY / "charts" / "mlperf-operator"


def say(text: str) -> None:
    """Print a line of progress."""
    print(f"==> {text}", flush=True)


def launcher(*arguments: str) -> str:
    """Run a command of the local cluster's launcher and return the last line that it printed.

    Raises:
        SystemExit: it failed or refused, and has said why on standard error; the exit code is its own.
    """
    argv = [sys.executable, str(LAUNCHER), *arguments]
    done = subprocess.run(argv, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(done.returncode)
    return done.stdout.strip().rpartition("\n")[2]


@dataclass(frozen=True)
class Cluster:
    """A cluster that answers, and the programs to talk to it."""

    kubeconfig: str
    tools: Path

    def environment(self) -> dict[str, str]:
        """Return the environment for programs that talk to the cluster."""
        return {**os.environ, "KUBECONFIG": self.kubeconfig}

    def run(self, program: str, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl or helm and return what it printed.

        Raises:
            RuntimeError: it failed; the message is its own.
        """
        argv = [str(self.tools / program), *arguments]
        done = subprocess.run(
            argv, env=self.environment(), input=stdin, capture_output=True, text=True, check=False, timeout=600
        )
        if done.returncode:
            raise RuntimeError(f"{program} {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl."""
        return self.run("kubectl", *arguments, stdin=stdin)

    def get(self, *arguments: str) -> dict[str, Any]:
        """Return what `kubectl get -o json` says."""
        return dict(json.loads(self.kubectl("get", *arguments, "-o", "json")))

    def apply(self, manifest: dict[str, Any]) -> None:
        """Apply an object."""
        self.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))

    def ensure_namespace(self, name: str, *, pod_security: str = "restricted") -> None:
        """Make a namespace that enforces a PodSecurity level."""
        labels = {"pod-security.kubernetes.io/enforce": pod_security}
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})

    def ensure_claim(self, namespace: str, name: str) -> None:
        """Make a claim that several runs may share as their scratch."""
        spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
        metadata = {"name": name, "namespace": namespace}
        self.apply({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec})


def start_cluster() -> Cluster:
    """Start the local cluster, or take the one that MLPERF_KUBECONFIG names."""
    kubeconfig = launcher("up")
    return Cluster(kubeconfig, Path(launcher("tools", "kube", "helm")))


def build_images() -> tuple[str, str]:
    """Build the operator's and the harness's image into the local cluster and return their names.

    A cluster of the user's own pulls images instead, those that MLPERF_DEMO_OPERATOR_IMAGE and
    MLPERF_DEMO_HARNESS_IMAGE name.
    """
    if os.environ.get("MLPERF_KUBECONFIG"):
        names = ("MLPERF_DEMO_OPERATOR_IMAGE", "MLPERF_DEMO_HARNESS_IMAGE")
        missing = [name for name in names if not os.environ.get(name)]
        if missing:
            raise SystemExit(f"your own cluster has to pull the images: push them and set {' and '.join(missing)}")
        return os.environ[names[0]], os.environ[names[1]]
    base = launcher("base-image")
    with only_caller(BUILD):
        for name, script, image in (
            ("operator", REPOSITORY / "hack" / "operator_context.py", OPERATOR_IMAGE),
            ("reference-harness", REPOSITORY / "reference_harness" / "make_context.py", HARNESS_IMAGE),
        ):
            context = BUILD / name
            subprocess.run([sys.executable, str(script), str(context)], check=True, stdout=subprocess.DEVNULL)
            launcher(
                "build-image",
                *("--file", str(context / "Dockerfile"), "--context", str(context)),
                *("--tag", image, "--build-arg", f"BASE_IMAGE={base}"),
            )
    return OPERATOR_IMAGE, HARNESS_IMAGE


@contextmanager
def only_caller(folder: Path) -> Iterator[None]:
    """Wait until no other process fills this folder: each replaces what an image is just being built from."""
    folder.mkdir(exist_ok=True)
    with (folder / ".lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another caller that builds the images")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def repository_and_tag(image: str) -> tuple[str, str]:
    """Split an image's name; one without a tag has the tag `latest`, and a registry's port is no tag."""
    repository, _, tag = image.rpartition(":")
    return (image, "latest") if not repository or "/" in tag else (repository, tag)


def image_id(image: str) -> str:
    """Return what changes when an image does, so that its pods are replaced; its name where no program knows it."""
    programs = (
        ["buildah", "inspect", "--type", "image", "--format", "{{.FromImageID}}", image],
        ["docker", "image", "inspect", "--format", "{{.Id}}", image],
    )
    for argv in programs:
        if shutil.which(argv[0]):
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                return done.stdout.strip()
    return image


def mend_release(cluster: Cluster) -> None:
    """End what an interrupted helm left behind, which would block every later one."""
    releases = cluster.run("helm", "list", "--namespace", NAMESPACE, "--filter", f"^{RELEASE}$", "-o", "json")
    for release in json.loads(releases):
        if release["status"] == "pending-install":
            cluster.run("helm", "uninstall", RELEASE, "--namespace", NAMESPACE, "--wait")
        elif release["status"].startswith("pending-"):
            cluster.run("helm", "rollback", RELEASE, "--namespace", NAMESPACE)


def install(
    cluster: Cluster,
    operator_image: str,
    harness_image: str,
    values: Mapping[str, Any] | None = None,
    chart: Path = CHART,
) -> None:
    """Install or upgrade the chart, with further values if given, and wait until the operator is ready.

    Raises:
        RuntimeError: helm failed, or the operator did not become ready; the message says what its pods say.
    """
    repository, tag = repository_and_tag(operator_image)
    settings = [
        f"image.repository={repository}",
        f"image.tag={tag}",
        f"suiteImages.reference-cpu={harness_image}",
        f"podAnnotations.image-id={image_id(operator_image)}",
    ]
    # Driver pods are privileged.
    level = "privileged" if (values or {}).get("driver", {}).get("enabled") else "restricted"
    cluster.ensure_namespace(NAMESPACE, pod_security=level)
    mend_release(cluster)
    try:
        cluster.run(
            "helm",
            "upgrade",
            "--install",
            RELEASE,
            str(chart),
            *("--namespace", NAMESPACE, "--wait", "--timeout", "2m", "--take-ownership"),
            *(part for setting in settings for part in ("--set-string", setting)),
            *("--values", "-"),
            stdin=json.dumps(values or {}),
        )
    except RuntimeError as error:
        pods = cluster.kubectl("get", "pods", "-n", NAMESPACE, "-o", "wide")
        logs = cluster.kubectl("logs", "-n", NAMESPACE, f"deployment/{RELEASE}", "--all-pods", "--tail=5")
        raise RuntimeError(f"{error}\n{pods}\n{logs}") from error
    wait_for_old_operators(cluster)


def operator_pods(cluster: Cluster) -> list[dict[str, Any]]:
    """Return the pods of the operator's Deployment; that of `helm test` is none."""
    selector = f"app.kubernetes.io/name=mlperf-operator,app.kubernetes.io/instance={RELEASE}"
    return list(cluster.get("pods", "-n", NAMESPACE, "-l", selector)["items"])


def wait_for_old_operators(cluster: Cluster, seconds: float = 60.0) -> None:
    """Wait until no operator of an earlier installation is left, which would answer with its own settings.

    Raises:
        TimeoutError: one is still there.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not any("deletionTimestamp" in pod["metadata"] for pod in operator_pods(cluster)):
            return
        time.sleep(0.2)
    raise TimeoutError(f"an operator of an earlier installation has not ended within {seconds:g} s")


def condition(run: dict[str, Any], kind: str) -> tuple[str, str, str]:
    """Return a condition's status, reason and message; Unknown before it is there."""
    for found in run.get("status", {}).get("conditions", []):
        if found["type"] == kind:
            return found["status"], found["reason"], found.get("message", "")
    return "Unknown", "", ""


def wait_until_finished(cluster: Cluster, namespace: str, name: str, seconds: float) -> dict[str, Any]:
    """Return the run once it has finished.

    Raises:
        TimeoutError: it did not finish in time.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        run = cluster.get("mlperfrun", name, "-n", namespace)
        if condition(run, "Finished")[0] == "True":
            return run
        time.sleep(0.5)
    raise TimeoutError(f"{name} has not finished within {seconds:g} s: {json.dumps(run.get('status', {}))[:2000]}")
