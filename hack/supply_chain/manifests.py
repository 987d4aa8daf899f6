"""Every manifest that this repository ships or renders, held against Kubernetes' schemas by kubeconform."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from local_cluster.binaries import SOURCE as LOCAL_CLUSTER
from local_cluster.binaries import ensure_programs

from go_programs import ClusterError, RefusalError, module_folder, program
from supply_chain import schemas
from supply_chain.outcome import REPOSITORY, Outcome, judged, run, said, skipped

LINT_TOOLS = REPOSITORY / "hack/lint-tools"
DATA = LINT_TOOLS / "data"
PROGRAMS = {
    "kubeconform": "github.com/yannh/kubeconform/cmd/kubeconform",
    "actionlint": "github.com/rhysd/actionlint/cmd/actionlint",
}
CHART = REPOSITORY / "charts/mlperf-operator"
PROMETHEUS_OPERATOR = "github.com/prometheus-operator/prometheus-operator"
PROMETHEUS_CRDS = "example/prometheus-operator-crd/monitoring.coreos.com_{}.yaml"


def check() -> Outcome:
    """Check the chart under every set of values, manifests/, crds/ and examples/."""
    name = "kubeconform"
    try:
        kubeconform = program(LINT_TOOLS, name, PROGRAMS[name])
        helm = ensure_programs("helm") / "helm"
        files = all_schemas()
    except (ClusterError, RefusalError) as error:
        return skipped(name, str(error))
    with tempfile.TemporaryDirectory(prefix="kubeconform-") as folder:
        work = Path(folder)
        write(work / "schemas", files)
        (work / "objects").mkdir()
        problems = []
        for values in value_sets():
            rendered = run(helm, "template", "r", CHART, "--namespace=mlperf-system", *_options(values))
            if rendered.returncode:
                problems += said(rendered)
            (work / "objects" / f"chart-with-{values.stem if values else 'defaults'}.yaml").write_text(rendered.stdout)
        argv = (kubeconform, "-strict", "-summary", "-schema-location", f"{work}/schemas/{schemas.LOCATION}")
        done = run(*argv, work / "objects", *shipped())
        summary, lines = _summary(said(done), work)
        return judged(name, summary, [*problems, *lines] if done.returncode or problems else [])


def all_schemas() -> dict[str, schemas.Schema]:
    """Return the schemas of the Kubernetes that hack/local-cluster builds, of our CRD and of prometheus-operator's.

    Raises:
        RefusalError: there is no Go to fetch them with.
        ClusterError: they cannot be fetched.
    """
    source = module_folder(LOCAL_CLUSTER, "k8s.io/kubernetes")
    files = schemas.of_kubernetes(json.loads((source / "api/openapi-spec/swagger.json").read_text()))
    prometheus = module_folder(DATA, PROMETHEUS_OPERATOR)
    crds = [*sorted((REPOSITORY / "crds").glob("*_*.yaml"))]
    crds += [prometheus / PROMETHEUS_CRDS.format(kind) for kind in ("servicemonitors", "prometheusrules")]
    for crd in crds:
        files |= schemas.of_crd(yaml.load(crd.read_text(), yaml.CSafeLoader))
    return files


def write(folder: Path, files: Mapping[str, Any]) -> None:
    """Write the schema files."""
    for name, schema in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(schema))


def value_sets() -> list[Path | None]:
    """Return the sets of values that the chart is rendered with: its defaults, and those that are kept in files."""
    return [None, *sorted((CHART / "ci").glob("*-values.yaml")), REPOSITORY / "examples/driver-values.yaml"]


def shipped() -> list[Path]:
    """Return the manifests that a user applies as they are."""
    folders = [REPOSITORY / name for name in ("manifests", "crds", "examples")]
    found = [path for folder in folders for path in sorted(folder.glob("*.yaml"))]
    return [path for path in found if path.name != "kustomization.yaml" and not path.name.endswith("-values.yaml")]


def _options(values: Path | None) -> list[str]:
    if values is None:
        return ["--kube-version=1.35.0"]
    # An example may leave a file of the user's own to --set-file; its first lines say where.
    places = re.findall(r"--set-file '([^=']+)=", values.read_text())
    return ["--kube-version=1.35.0", f"--values={values}", *(f"--set-string={place}=-" for place in places)]


def _summary(lines: list[str], work: Path) -> tuple[str, list[str]]:
    """Return what kubeconform counted, and its complaints."""
    counted = [line for line in lines if line.startswith("Summary:")]
    complaints = [line.replace(f"{work}/objects/", "").replace(f"{REPOSITORY}/", "") for line in lines]
    return (counted[-1].removeprefix("Summary: ") if counted else "nothing was counted"), complaints
