#!/usr/bin/env bash
# Makes the development environment in .venv from uv.lock, on a machine that has nothing but Python 3.11 or newer.
# Prints the path of uv. Safe to repeat.
set -euo pipefail

cd "$(dirname "$0")/.."
cache="${XDG_CACHE_HOME:-$HOME/.cache}/mlperf-operator"

say() { echo "bootstrap: $*" >&2; }

python_of_the_machine() {
  for name in python3 python3.11 python3.12 python3.13; do
    if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$name"
      return
    fi
  done
  return 1
}

if ! python_of_the_machine >/dev/null || ! "$(python_of_the_machine)" -c 'import ensurepip, venv' 2>/dev/null; then
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    say "Python 3.11 or newer with venv is needed: install the packages python3 and python3-venv"
    exit 2
  fi
  say "installing python3 and python3-venv"
  apt-get update -qq >&2
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3 python3-venv >&2
fi
python="$(python_of_the_machine)" || { say "this machine has no Python 3.11 or newer"; exit 2; }

if ! [ -x "$cache/uv/bin/uv" ]; then
  say "installing uv"
  "$python" -m venv "$cache/uv"
  "$cache/uv/bin/python" -m pip install --quiet --disable-pip-version-check uv
fi

# The index that pip is told to use holds for uv too.
if [ -n "${PIP_INDEX_URL:-}" ]; then
  export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$PIP_INDEX_URL}"
fi
PATH="$cache/uv/bin:$PATH" uv sync --quiet --frozen --python "$python" >&2
echo "$cache/uv/bin"
