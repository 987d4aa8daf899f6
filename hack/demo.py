"""`make demo`: from nothing to a VALID result on a real cluster, with what happens on the way."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

from installation import NAMESPACE as OPERATOR_NAMESPACE
from installation import (
    RELEASE,
    REPOSITORY,
    Cluster,
    build_images,
    condition,
    install,
    say,
    start_cluster,
)

NAMESPACE = "mlperf-demo"
NAME = "reference-cpu"
EXAMPLE = REPOSITORY / "examples" / "reference-cpu.yaml"
PATIENCE_SECONDS = 600.0
ANSWER_SECONDS = 60.0
"""An operator that has written no status for this long does not work."""


def main() -> int:
    """Run the demo and return the exit code."""
    started = time.monotonic()
    say("starting the cluster (the first time builds Kubernetes from source, some minutes)")
    cluster = start_cluster()
    say("building the images")
    operator, harness = build_images()
    say("installing the chart with helm")
    install(cluster, operator, harness)
    cluster.ensure_namespace(NAMESPACE)
    remove_earlier_run(cluster)
    say(f"kubectl apply -f {EXAMPLE.relative_to(REPOSITORY)}")
    cluster.kubectl("apply", "-n", NAMESPACE, "-f", str(EXAMPLE))
    run = follow(cluster)
    show(cluster, time.monotonic() - started)
    return verdict(run)


def remove_earlier_run(cluster: Cluster) -> None:
    """Delete the run of an earlier demo and what it owned, and wait until all of it is gone.

    The garbage collector alone is not enough: while it renews its watch, as it does after an upgrade of the CRD, it can
    miss that a run was replaced by another of its name.
    """
    cluster.kubectl("delete", "mlperfrun", NAME, "-n", NAMESPACE, "--ignore-not-found", "--wait")
    owned = ("jobs,configmaps,persistentvolumeclaims", "-l", f"mlperf.dev/run={NAME}")
    cluster.kubectl("delete", *owned, "-n", NAMESPACE, "--ignore-not-found", "--wait", "--timeout=120s")


def follow(cluster: Cluster) -> dict[str, Any]:
    """Print each stage as it begins and ends, until the run has finished."""
    started = time.monotonic()
    told: dict[str, str] = {}
    while time.monotonic() - started < PATIENCE_SECONDS:
        run = cluster.get("mlperfrun", NAME, "-n", NAMESPACE)
        for stage in run.get("status", {}).get("stages", []):
            if stage["state"] != "Pending" and told.get(stage["name"]) != stage["state"]:
                told[stage["name"]] = stage["state"]
                print(f"    {time.monotonic() - started:5.0f} s  {stage['name']:<16} {stage['state']}", flush=True)
        if condition(run, "Finished")[0] == "True":
            return run
        if "status" not in run and time.monotonic() - started > ANSWER_SECONDS:
            log = cluster.kubectl("logs", "-n", OPERATOR_NAMESPACE, f"deployment/{RELEASE}", "--tail=5")
            raise RuntimeError(f"the operator has not answered within {ANSWER_SECONDS:g} s; it says:\n{log}")
        time.sleep(0.5)
    told_last = cluster.kubectl("describe", "mlperfrun", NAME, "-n", NAMESPACE)
    raise RuntimeError(f"the run has not finished within {PATIENCE_SECONDS:g} s:\n{told_last}")


def show(cluster: Cluster, seconds: float) -> None:
    """Print what the user would look at, and how to look further."""
    print(f"\n$ kubectl get mlperfruns -n {NAMESPACE} -o wide")
    print(cluster.kubectl("get", "mlperfruns", "-n", NAMESPACE, "-o", "wide"))
    tools, kubeconfig = cluster.tools, cluster.kubeconfig
    print(f"""VALID is LoadGen's own verdict on each measurement. This was a short run (testRun: true): it was not
configured for the ten minutes that MLPerf asks for, so `minDurationMet` is false in each result, and none of them is a
submission.

Look further ({seconds:.0f} s so far):
  export KUBECONFIG={kubeconfig} PATH={tools}:$PATH
  kubectl describe mlr {NAME} -n {NAMESPACE}                        # the story in Events
  kubectl get mlr {NAME} -n {NAMESPACE} -o jsonpath='{{.status.results}}'
  kubectl logs -n {NAMESPACE} job/{NAME} -c run                     # LoadGen and the harness
  kubectl logs -n mlperf-system deployment/mlperf-operator
  make clean-cluster                                                # remove it all""")


def verdict(run: dict[str, Any]) -> int:
    """Return 0 when the run is all that the demo promises, else say what is not."""
    wrong = []
    for kind in ("Succeeded", "ResultsValid", "AccuracyMet"):
        status, reason, message = condition(run, kind)
        if status != "True":
            wrong.append(f"{kind} is {status} ({reason}): {message}")
    for text in wrong:
        print(f"FAILED: {text}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (RuntimeError, subprocess.SubprocessError) as error:
        sys.exit(f"FAILED: {error}")
    except KeyboardInterrupt:
        print("interrupted: `make demo` goes on from here, `make clean-cluster` removes the cluster", file=sys.stderr)
        sys.exit(130)
