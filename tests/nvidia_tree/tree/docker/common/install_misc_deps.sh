#!/bin/bash
# Stand-in for tests: a library outside of the packages, and a function that nobody but mixtral needs, and that fails.
set -e

install_library() {
    cd /tmp
    cp /opt/standin/libstandin.so.1 /usr/local/lib/libglog.so.0
    cp /opt/standin/libstandin.so.1 /usr/local/lib/libgflags.so.2
    mkdir -p /usr/include/boost
    echo '// stand-in' >/usr/include/boost/version.hpp
    ldconfig
    # Time for a test to kill it half-way, the first time that a scratch sees it.
    if [ -n "${STANDIN_PAUSE_ONCE:-}" ] && mkdir "$MLPERF_SCRATCH_PATH/standin-paused" 2>/dev/null; then
        sleep 60
    fi
}

install_mxeval_deps() {
    echo "a repository that is gone" >&2
    exit 3
}

case ${BUILD_CONTEXT} in
x86_64)
    install_library
    install_mxeval_deps
    ;;
esac
