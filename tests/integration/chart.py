"""The chart as helm renders it."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts/mlperf-operator"
LAUNCHER = ROOT / "hack/local-cluster/launcher.py"
NAMESPACE = "mlperf-system"
REFUSED = 2
"""The launcher's exit code where it cannot work and says why."""

Object = dict[str, Any]

APPLY_DRY = ("apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-")
"""By the server's own apply: kubectl's warns of a CRD that other tests made without its annotation."""


@cache
def tools(*names: str) -> Path:
    """Return the folder with the launcher's own build of these programs; skip the test where it cannot build them."""
    argv = [sys.executable, str(LAUNCHER), "tools", *names]
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    if done.returncode == REFUSED:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip().rpartition("\n")[2])


def helm(*arguments: str, values: Object | None = None) -> subprocess.CompletedProcess[str]:
    """Run helm, with values if given."""
    argv = [str(tools("helm") / "helm"), *arguments, *(["--values", "-"] if values is not None else [])]
    return subprocess.run(argv, check=False, capture_output=True, text=True, input=yaml.safe_dump(values or {}))


def render(values: Object | None = None, *arguments: str, namespace: str = NAMESPACE) -> list[Object]:
    """Return the objects that the chart makes."""
    options = ["--namespace", namespace, "--kube-version", "1.35.0", *arguments]
    done = helm("template", "mlperf-operator", str(CHART), *options, values=values or {})
    assert done.returncode == 0, done.stderr
    return [body for body in yaml.safe_load_all(done.stdout) if body]


def only(objects: list[Object], kind: str, name: str | None = None) -> Object:
    """Return the one object of a kind, or of a kind and name."""
    [found] = [o for o in objects if o["kind"] == kind and name in (None, o["metadata"]["name"])]
    return found


def verbs(role: Object) -> dict[tuple[str, str], set[str]]:
    """Return what a role allows on all objects of a kind, by API group and resource."""
    return {
        (group, resource): set(rule["verbs"])
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        if "resourceNames" not in rule
    }


def container(objects: list[Object]) -> Object:
    """Return the operator's container."""
    [found] = only(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    return dict(found)


def kubectl(*arguments: str, kubeconfig: str = "", stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run kubectl as the administrator of this kubeconfig."""
    argv = [str(tools("kube") / "kubectl"), *arguments]
    environment = {**os.environ, "KUBECONFIG": kubeconfig}
    return subprocess.run(argv, check=False, capture_output=True, text=True, input=stdin, env=environment)


@contextmanager
def namespace_of(kubeconfig: str, pod_security: str) -> Iterator[str]:
    """Make a namespace that enforces a PodSecurity level and warns of what would not pass it."""
    name = f"chart-{uuid.uuid4().hex[:10]}"
    labels = {f"pod-security.kubernetes.io/{mode}": pod_security for mode in ("enforce", "warn")}
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    made = kubectl("apply", "-f", "-", kubeconfig=kubeconfig, stdin=yaml.safe_dump(body))
    assert made.returncode == 0, made.stderr
    # Pods are checked for it even when nothing is stored.
    kubectl("create", "serviceaccount", "mlperf-operator", "-n", name, kubeconfig=kubeconfig)
    try:
        yield name
    finally:
        kubectl("delete", "namespace", name, "--wait=false", kubeconfig=kubeconfig)
