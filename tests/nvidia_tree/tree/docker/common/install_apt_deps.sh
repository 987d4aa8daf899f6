#!/bin/bash
# Stand-in for tests: really installs a package, and removes one.
set -e

install_core_packages() {
    apt update
    apt install -y --no-install-recommends standin-tools
    apt remove -y standin-old
    apt -y autoremove
}

case ${BUILD_CONTEXT} in
x86_64)
    install_core_packages
    ;;
*)
    echo "BUILD_CONTEXT must be x86_64"
    exit 1
    ;;
esac
