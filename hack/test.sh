#!/usr/bin/env bash
# `make test`: each step with its time, then the clusters are taken down, whatever happened.
set -euo pipefail
cd "$(dirname "$0")/.."

had_cluster=no
if python3 hack/local-cluster/launcher.py status >/dev/null 2>&1; then had_cluster=yes; fi

cleanup() {
  status=$?
  python3 hack/local-cluster/launcher.py down --control-plane-only >/dev/null 2>&1 || true
  # A cluster that was there before, of `make demo` for example, is left as it was.
  if [ "$had_cluster" = no ]; then python3 hack/local-cluster/launcher.py down >/dev/null 2>&1 || true; fi
  exit "$status"
}
trap cleanup EXIT

for step in lint types unit integration e2e; do
  echo "=== $step"
  started=$SECONDS
  make --no-print-directory "$step"
  echo "=== $step: $((SECONDS - started)) s"
done
