"""Check what this repository is made of; name checks to make only those.

    python -m supply_chain [--require-databases] [scripts dockerfiles manifests workflows go python sbom]

A check that cannot be made here says SKIPPED and why, and is no pass. Exit code 1 when one failed, or when
--require-databases is given and a database of vulnerabilities could not be asked.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import sys
from collections.abc import Callable
from pathlib import Path

from local_cluster.binaries import ensure_kind, ensure_programs

import fleet.program
import s3_server
from go_programs import ClusterError, RefusalError, module_folder, program
from supply_chain import files, manifests, sbom, vulnerabilities, workflows
from supply_chain.outcome import Outcome, Status, skipped

VULNERABILITY_DATABASE = "golang.org/x/vulndb"


def go() -> Outcome:
    """Audit the Go programs that the tests and checks run; GOVULNDB names another database than that of go.sum."""
    try:
        govulncheck = program(manifests.LINT_TOOLS, "govulncheck", "golang.org/x/vuln/cmd/govulncheck")
        database = (
            os.environ.get("GOVULNDB") or (module_folder(manifests.DATA, VULNERABILITY_DATABASE) / "data/osv").as_uri()
        )
        programs = go_programs(govulncheck)
    except (ClusterError, RefusalError) as error:
        return skipped("govulncheck", f"NOT AUDITED: {error}")
    return vulnerabilities.go_programs(govulncheck, database, programs, dt.datetime.now(dt.UTC).date())


def go_programs(govulncheck: Path) -> dict[str, Path]:
    """Return every Go program of this repository, built where it is missing."""
    cluster = ensure_programs("kube", "helm", "pause")
    lint = {name: program(manifests.LINT_TOOLS, name, package) for name, package in manifests.PROGRAMS.items()}
    found = {name: cluster / name for name in ("kube", "helm", "pause")}
    others = {"kind": ensure_kind(), "kwok": fleet.program.program(), "s3-server": s3_server.program()}
    return {**found, **others, "govulncheck": govulncheck, **lint}


CHECKS: dict[str, Callable[[], Outcome]] = {
    "scripts": files.scripts,
    "dockerfiles": files.dockerfiles,
    "manifests": manifests.check,
    "workflows": workflows.check,
    "go": go,
    "python": vulnerabilities.python_packages,
    "sbom": sbom.check,
}


def main(arguments: list[str]) -> int:
    """Make the named checks, or all, and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checks", nargs="*", metavar="CHECK", help=f"of {', '.join(CHECKS)} (default: all)")
    parser.add_argument("--require-databases", action="store_true", help="fail where an audit could not be made")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.checks if name not in CHECKS]:
        parser.error(f"{', '.join(unknown)}: {', '.join(CHECKS)} are possible")
    bad = 0
    for name in options.checks or CHECKS:
        outcome = CHECKS[name]()
        print(outcome.text(), flush=True)
        unmade = options.require_databases and name in {"go", "python"} and outcome.status is Status.SKIPPED
        bad += outcome.status is Status.FAILED or unmade
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
