#!/usr/bin/env bash
# `make test`: each step with its time, then the cluster that it made is taken down, whatever happened.
set -euo pipefail
cd "$(dirname "$0")/.."

# Exit code 2: there is none. One that is there, even if it is ill, is somebody's, with what is in it.
found=0
python3 hack/local-cluster/launcher.py status >/dev/null 2>&1 || found=$?

cleanup() {
  status=$?
  if [ "$found" = 2 ]; then
    python3 hack/local-cluster/launcher.py down || echo "=== the cluster could not be taken down: make clean-cluster" >&2
  else
    echo "=== the cluster that was there before is left as it is (make clean-cluster removes it)"
  fi
  exit "$status"
}
trap cleanup EXIT

for step in lint types unit supply-chain integration e2e; do
  echo "=== $step"
  started=$SECONDS
  make --no-print-directory "$step"
  echo "=== $step: $((SECONDS - started)) s"
done
