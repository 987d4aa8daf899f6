#!/usr/bin/env bash
# Makes the development environment in .venv from uv.lock, on a machine that has nothing but Python 3.11 or newer.
# Prints the path of uv. Safe to repeat, also by two callers at once.
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

can_install() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

# A new machine updates itself right after its first start; apt waits for that to end.
install_packages() {
  say "installing $*"
  apt-get -o DPkg::Lock::Timeout=300 update -qq >&2
  DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends "$@" >&2
}

mkdir -p "$cache"
exec 9>"$cache/bootstrap.lock"
flock -n 9 || { say "waiting for another caller to finish"; flock 9; }

if ! python_of_the_machine >/dev/null || ! "$(python_of_the_machine)" -c 'import ensurepip, venv' 2>/dev/null; then
  if ! can_install; then
    say "Python 3.11 or newer with venv is needed: install the packages python3 and python3-venv"
    exit 2
  fi
  install_packages python3 python3-venv
fi
python="$(python_of_the_machine)" || { say "this machine has no Python 3.11 or newer"; exit 2; }

# Go, which fetches Kubernetes, takes the machine's certificates. So does uv then: a company's own may be among them.
certificates=/etc/ssl/certs/ca-certificates.crt
if can_install && ! [ -e "$certificates" ]; then install_packages ca-certificates; fi
if [ -e "$certificates" ]; then export UV_SYSTEM_CERTS="${UV_SYSTEM_CERTS:-true}"; fi

if ! [ -x "$cache/uv/bin/uv" ]; then
  say "installing uv"
  "$python" -m venv "$cache/uv"
  "$cache/uv/bin/python" -m pip install --quiet --disable-pip-version-check uv
fi

# The index that pip is told to use holds for uv too.
if [ -n "${PIP_INDEX_URL:-}" ]; then
  export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$PIP_INDEX_URL}"
fi
[ -d .venv ] || say "making .venv from uv.lock (the first time fetches every library)"
PATH="$cache/uv/bin:$PATH" uv sync --quiet --frozen --python "$python" >&2
echo "$cache/uv/bin"
