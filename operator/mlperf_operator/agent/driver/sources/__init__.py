"""Where a driver comes from: packages of apt, dnf or zypper, or NVIDIA's run file."""

from __future__ import annotations

from typing import Literal

from mlperf_operator.agent.driver.sources.apt import Apt
from mlperf_operator.agent.driver.sources.base import PackageManager
from mlperf_operator.agent.driver.sources.dnf import Dnf
from mlperf_operator.agent.driver.sources.zypper import Zypper


def manager(name: Literal["apt", "dnf", "zypper"]) -> PackageManager:
    """Return the package manager of this name."""
    managers: dict[str, PackageManager] = {"apt": Apt(), "dnf": Dnf(), "zypper": Zypper()}
    return managers[name]
