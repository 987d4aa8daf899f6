"""The administrator's driver catalogue: which exact driver a branch means, and from where a node gets it.

A run names a branch or an exact version and nothing else; sources, checksums and keys come from here alone.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from mlperf_operator.api.v1alpha1 import Toleration
from mlperf_operator.models import Strict

ExactVersion = Annotated[str, StringConstraints(pattern=r"^[0-9]+\.[0-9]+(\.[0-9]+)?$", max_length=32)]
Branch = Annotated[str, StringConstraints(pattern=r"^[0-9]+$", max_length=8)]
PackageName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9+._-]*$", max_length=128)]
PackageVersion = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+:~_-]*$", max_length=128)]
Url = Annotated[str, StringConstraints(pattern=r"^(https?|file)://[-A-Za-z0-9._~:/%+@\[\]]+$", max_length=512)]
HostPath = Annotated[str, StringConstraints(pattern=r"^/[-A-Za-z0-9_./+]*$", max_length=255)]
Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9./][A-Za-z0-9._/-]*$", max_length=128)]
OsName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]*( [0-9][0-9.]*)?$", max_length=64)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Package(Strict):
    """A package by its full version: branches roll over and metapackages depend with >=, so no name pins anything."""

    name: PackageName = Field(description="Package name.")
    version: PackageVersion = Field(description="Full version with revision, such as 550.54.14-1.")


class Repository(Strict):
    """Where packages come from. It must keep old versions: distribution archives have only the current one."""

    url: Url = Field(description="Base URL.")
    suite: Word = Field(default="./", description="apt only: the suite; ./ for a flat repository.")
    components: tuple[Word, ...] = Field(default=(), description="apt only: components; none for a flat repository.")
    key: str = Field(min_length=1, max_length=20000, description="Armored OpenPGP public key that signs it.")


class PackageSource(Strict):
    """Driver and fabric manager as packages of the node's own package manager."""

    type: Literal["Packages"] = "Packages"
    os: tuple[OsName, ...] = Field(
        min_length=1, description="Nodes it is for: ID of /etc/os-release, with or without VERSION_ID: `ubuntu 22.04`."
    )
    manager: Literal["apt", "dnf", "zypper"] = Field(default="apt", description="Package manager.")
    repository: Repository = Field(description="The one repository that all of these come from.")
    driver: tuple[Package, ...] = Field(min_length=1, description="Driver packages, every one that must be exact.")
    fabric_manager: tuple[Package, ...] = Field(
        default=(), description="Fabric manager packages, installed only where NVSwitch is present."
    )
    builds_module: bool = Field(
        default=True, description="Whether the kernel module is built on the node (DKMS), which needs kernel headers."
    )
    signed_module: bool = Field(
        default=False, description="Whether the module is signed by a key that the node's Secure Boot trusts."
    )


class RunFileSource(Strict):
    """Driver from NVIDIA's run file, and the fabric manager of the same version as a package."""

    type: Literal["RunFile"] = "RunFile"
    os: tuple[OsName, ...] = Field(min_length=1, description="Nodes it is for, as in Packages.")
    url: Url | None = Field(default=None, description="Where the file is fetched from.")
    host_path: HostPath | None = Field(default=None, description="Where the file lies on the node.")
    sha256: Sha256 = Field(description="Checksum of the file.")
    toolkit: bool = Field(default=True, description="Install the CUDA toolkit that the file has, too.")
    manager: Literal["apt", "dnf", "zypper"] = Field(default="apt", description="Package manager.")
    repository: Repository | None = Field(default=None, description="Repository of the fabric manager's package.")
    fabric_manager: tuple[Package, ...] = Field(default=(), description="Fabric manager packages.")

    @model_validator(mode="after")
    def _one_place(self) -> RunFileSource:
        if (self.url is None) == (self.host_path is None):
            msg = "set exactly one of url and hostPath"
            raise ValueError(msg)
        if self.fabric_manager and self.repository is None:
            msg = "fabricManager packages need a repository"
            raise ValueError(msg)
        return self


Source = Annotated[PackageSource | RunFileSource, Field(discriminator="type")]


class Driver(Strict):
    """One exact driver."""

    branch: Branch = Field(description="What spec.driver.version may say instead of the exact version, such as 550.")
    version: ExactVersion = Field(description="Exact version, such as 550.54.14.")
    min_free_bytes: int = Field(
        default=3 * 1024**3, ge=0, description="Space that must be free under /usr, /var and /lib/modules, in bytes."
    )
    sources: tuple[Source, ...] = Field(min_length=1, description="The first that fits the node's system is used.")

    @model_validator(mode="after")
    def _versions_agree(self) -> Driver:
        if self.version.split(".")[0] != self.branch:
            msg = f"version {self.version} is not of branch {self.branch}"
            raise ValueError(msg)
        for source in self.sources:
            for package in source.fabric_manager:
                if upstream(package.version) != self.version:
                    msg = (
                        f"fabric manager package {package.name} has version {package.version}; it must be exactly the "
                        f"driver's, {self.version}, or it does not start"
                    )
                    raise ValueError(msg)
        return self


class ToolkitSource(Strict):
    """NVIDIA Container Toolkit as packages."""

    os: tuple[OsName, ...] = Field(min_length=1, description="Nodes it is for.")
    manager: Literal["apt", "dnf", "zypper"] = Field(default="apt", description="Package manager.")
    repository: Repository = Field(description="Where its packages come from.")
    packages: tuple[Package, ...] = Field(min_length=1, description="Its packages, each by full version.")


class ContainerToolkit(Strict):
    """NVIDIA Container Toolkit on the node, and containerd configured for it."""

    sources: tuple[ToolkitSource, ...] = Field(min_length=1, description="The first that fits the node is used.")
    set_as_default: bool = Field(default=False, description="Make `nvidia` containerd's default runtime.")
    containerd_config: HostPath = Field(default="/etc/containerd/config.toml", description="containerd's file.")


class Mirror(Strict):
    """A prefix of URLs and what replaces it, for nodes without the internet."""

    prefix: Url = Field(description="What a URL begins with.")
    replacement: Url = Field(description="What it begins with instead.")


class Catalogue(Strict):
    """Everything that a node may get."""

    drivers: tuple[Driver, ...] = Field(default=(), description="Of several drivers of one branch the first counts.")
    toolkit: ContainerToolkit | None = Field(default=None, description="Unset: nodes have it already.")
    mirrors: tuple[Mirror, ...] = Field(default=(), description="The first whose prefix fits is used.")

    @model_validator(mode="after")
    def _versions_differ(self) -> Catalogue:
        versions = [driver.version for driver in self.drivers]
        twice = sorted({version for version in versions if versions.count(version) > 1})
        if twice:
            msg = f"more than one driver has the version {', '.join(twice)}"
            raise ValueError(msg)
        return self

    def find(self, version: str) -> Driver | None:
        """Return the driver that a branch or an exact version means, or None."""
        return next((driver for driver in self.drivers if version in (driver.version, driver.branch)), None)

    def names(self) -> str:
        """Return what spec.driver.version may say, for messages."""
        return ", ".join(f"{driver.branch} ({driver.version})" for driver in self.drivers) or "none"

    def mirrored(self, url: str) -> str:
        """Return the URL as the nodes reach it."""
        for mirror in self.mirrors:
            rest = url.removeprefix(mirror.prefix)
            # https://a is no prefix of https://a.example.
            if url.startswith(mirror.prefix) and (mirror.prefix.endswith("/") or rest[:1] in ("", "/")):
                return mirror.replacement + rest
        return url


Mode = Literal["Install", "Adopt", "Verify"]
"""What is permitted on a node: Adopt also replaces a driver that somebody else put there; Verify only looks."""


class Target(Strict):
    """What one driver pod brings about: the whole of its configuration. URLs are mirrored already."""

    mode: Mode = Field(description="What is permitted on the node.")
    driver: Driver | None = Field(default=None, description="What the node shall have; unset in mode Verify.")
    toolkit: ContainerToolkit | None = Field(default=None, description="The container toolkit, if it is ours to bring.")


class DriverSettings(Catalogue):
    """Everything that the administrator sets about drivers: the catalogue, and how a node may be changed."""

    evict_gpu_pods: bool = Field(
        default=False, description="Evict pods that request nvidia.com/gpu from a node before its driver is changed."
    )
    host_root: HostPath = Field(default="/", description="Folder of the node that is its root; another one for tests.")
    retry_seconds: int = Field(
        default=30, ge=1, le=3600, description="Pause before a node that failed is tried again; doubled up to 10 min."
    )
    verify_port: int = Field(
        default=10399, ge=1024, le=65535, description="Port on the node's 127.0.0.1 where the driver pod says ready."
    )
    tolerations: tuple[Toleration, ...] = Field(
        default=(Toleration(operator="Exists"),), description="Tolerations of the driver pods."
    )


def upstream(version: str) -> str:
    """Return a package version without epoch and revision: 550.54.14 for 1:550.54.14-0ubuntu0.22.04.1."""
    return version.rpartition(":")[2].partition("-")[0]


def target(catalogue: Catalogue, mode: Mode, driver: Driver | None) -> Target:
    """Return what a driver pod is told, with every URL as the nodes reach it."""
    document = Target(mode=mode, driver=driver, toolkit=catalogue.toolkit if driver else None)
    return Target.model_validate(_mirrored(document.model_dump(mode="json"), catalogue))


def _mirrored(value: object, catalogue: Catalogue) -> object:
    if isinstance(value, dict):
        return {
            key: catalogue.mirrored(item) if key == "url" and isinstance(item, str) else _mirrored(item, catalogue)
            for key, item in value.items()
        }
    return [_mirrored(item, catalogue) for item in value] if isinstance(value, list) else value
