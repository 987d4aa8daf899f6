"""Writes manifests/, a kustomize base with the chart's objects, by the chart's own templates; `--check` compares."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from installation import NAMESPACE, RELEASE, REPOSITORY, launcher

MANIFESTS = REPOSITORY / "manifests"
HEADER = "# Rendered from charts/mlperf-operator by `make generate`; do not edit.\n"
NAMESPACE_MANIFEST = f"""{HEADER}apiVersion: v1
kind: Namespace
metadata:
  name: {NAMESPACE}
  labels:
    pod-security.kubernetes.io/enforce: restricted
"""
KUSTOMIZATION = f"""{HEADER}apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources:
  - namespace.yaml
  - ../crds
  - operator.yaml
"""
CRDS_KUSTOMIZATION = f"""{HEADER}apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources:
  - mlperf.dev_mlperfruns.yaml
"""


LIMITS = ("policies/runs.yaml", "policies/jobs.yaml")
"""Templates that repeat the administrator's values: here those are edited in the Deployment, and nobody tells these."""


def _without_limits(objects: str) -> str:
    documents = objects.split("---\n")
    return "---\n".join(text for text in documents if not text.partition("\n")[0].endswith(LIMITS))


def render() -> dict[Path, str]:
    """Return the files with the content that they should have."""
    helm = Path(launcher("tools", "helm")) / "helm"
    argv = [str(helm), "template", RELEASE, str(REPOSITORY / "charts" / "mlperf-operator"), "--namespace", NAMESPACE]
    options = ["--set", "crds.install=false", "--no-hooks", "--kube-version", "1.35.0"]
    objects = _without_limits(subprocess.run([*argv, *options], check=True, stdout=subprocess.PIPE, text=True).stdout)
    return {
        MANIFESTS / "namespace.yaml": NAMESPACE_MANIFEST,
        MANIFESTS / "operator.yaml": HEADER + objects,
        MANIFESTS / "kustomization.yaml": KUSTOMIZATION,
        REPOSITORY / "crds" / "kustomization.yaml": CRDS_KUSTOMIZATION,
    }


def main(argv: list[str]) -> int:
    """Write the files, or say which are stale."""
    files = render()
    if "--check" in argv:
        stale = [path for path, text in files.items() if not path.is_file() or path.read_text() != text]
        for path in stale:
            sys.stderr.write(f"{path.relative_to(REPOSITORY)} is stale; run make generate\n")
        return 1 if stale else 0
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
