"""Programs that come from the distribution: found on the machine, else installed as packages."""

import os
import shutil
from pathlib import Path

from local_cluster import host
from local_cluster.errors import RefusalError
from local_cluster.layout import cache_dir
from local_cluster.progress import run_long
from local_cluster.render import CNI_PLUGINS

_ADMIN_PATHS = ("/usr/local/sbin", "/usr/sbin", "/sbin")

# The program (or file) that shows a package is there, and the package. A program that is there already, from whatever
# package, is used: installing Debian's containerd would remove Docker's.
CONTROL_PLANE = {"openssl": "openssl"}
NODE = {
    **CONTROL_PLANE,
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "ptp": "containernetworking-plugins",
    "nft": "nftables",
    "ip": "iproute2",
    "sysctl": "procps",
    "mount": "mount",
}
IMAGES = {"buildah": "buildah", "mmdebstrap": "mmdebstrap"}
# Debian starts this service with its package. A cluster runs the program itself, and `down` leaves nothing running.
_SERVICES = {"containerd": "containerd.service"}
_SYSTEMD = Path("/run/systemd/system")


def search_path(path: str) -> str:
    """Return a PATH with the folders of administrators' programs, which Debian leaves out of other users' PATH."""
    folders = [folder for folder in path.split(":") if folder]
    return ":".join([*folders, *(folder for folder in _ADMIN_PATHS if folder not in folders)])


def missing(needed: dict[str, str]) -> list[str]:
    """Return the packages to install, each once, by name."""
    path = f"{os.environ.get('PATH', '')}:{CNI_PLUGINS}"
    return sorted({package for program, package in needed.items() if shutil.which(program, path=path) is None})


def ensure(needed: dict[str, str]) -> None:
    """Install the packages of programs that this machine lacks.

    Raises:
        RefusalError: they cannot be installed here.
        ClusterError: the installation failed.
    """
    lacking = missing(needed)
    if not lacking:
        return
    names = " ".join(lacking)
    if not host.is_debian_like():
        raise RefusalError(
            f"these programs are missing, and this is neither Debian nor Ubuntu to install them: {names}"
        )
    if os.geteuid() != 0:
        raise RefusalError(f"these packages are missing, and only root may install them: {names}")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    wait = ("-o", "DPkg::Lock::Timeout=300")
    log = cache_dir() / "apt.log"
    run_long("reading the package lists", ["apt-get", *wait, "update"], log, env=env)
    install = ["apt-get", *wait, "install", "--yes", "--no-install-recommends", *lacking]
    run_long(f"installing packages ({names})", install, log, env=env)
    _stop_services(lacking)


def _stop_services(installed: list[str]) -> None:
    """Stop what only our installation of packages has started; where systemd does not run, nothing has."""
    for service in [_SERVICES[package] for package in installed if package in _SERVICES and _SYSTEMD.is_dir()]:
        argv = ["systemctl", "disable", "--now", service]
        run_long(f"stopping {service}, which its package has started", argv, cache_dir() / "systemctl.log")
