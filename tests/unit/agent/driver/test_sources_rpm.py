"""dnf and zypper: what their output means. No real dnf or zypper was run for these."""

from __future__ import annotations

from mlperf_operator.agent.driver.host import Done
from mlperf_operator.agent.driver.sources.base import Change, Planned
from mlperf_operator.agent.driver.sources.dnf import Dnf
from mlperf_operator.agent.driver.sources.zypper import Zypper
from mlperf_operator.catalogue import Package, Repository

DNF = """\
Dependencies resolved.
================================================================================
 Package               Arch    Version                Repository           Size
================================================================================
Installing:
 nvidia-fabric-manager x86_64  550.54.14-1            mlperf-operator-1   5.0 M
 nvidia-driver-with-a-name-that-fills-the-column
                       x86_64  3:550.54.14-1.el9      mlperf-operator-1    37 M
Downgrading:
 kmod-nvidia-latest-dkms
                       x86_64  3:550.54.14-1.el9      mlperf-operator-1    41 M
Removing dependent packages:
 nvidia-settings       x86_64  3:535.161.08-1.el9     @mlperf-operator-1  1.6 M

Transaction Summary
================================================================================
Install    2 Packages

Operation aborted.
"""
ZYPPER = """\
The following 2 NEW packages are going to be installed:
  dkms nvidia-driver-G06

The following package is going to be downgraded:
  nvidia-fabricmanager

The following package is going to be REMOVED:
  nvidia-driver-G05

3 packages to upgrade, 1 to remove.
"""


def test_dnf_tells_what_comes_and_goes() -> None:
    assert Dnf().planned(DNF) == Planned(
        installs={
            "nvidia-fabric-manager": "550.54.14-1",
            "nvidia-driver-with-a-name-that-fills-the-column": "3:550.54.14-1.el9",
            "kmod-nvidia-latest-dkms": "3:550.54.14-1.el9",
        },
        removes=("nvidia-settings",),
    )


def test_dnf_ends_a_simulation_with_1_and_that_is_no_failure() -> None:
    asked = ("dnf", "--assumeno", "install", "x")
    assert Dnf().succeeded(Done(asked, 1, DNF))
    assert not Dnf().succeeded(Done(asked, 1, "Error: Unable to find a match: x"))
    assert not Dnf().succeeded(Done(("dnf", "-y", "install", "x"), 1, "Operation aborted."))


def test_zypper_tells_what_comes_and_goes() -> None:
    assert Zypper().planned(ZYPPER) == Planned(
        installs={"dkms": "", "nvidia-driver-G06": "", "nvidia-fabricmanager": ""}, removes=("nvidia-driver-G05",)
    )


def test_zypper_has_news_in_its_exit_code_that_is_no_failure() -> None:
    codes = {code for code in range(128) if Zypper().succeeded(Done(("zypper",), code, ""))}
    assert codes == {0, 100, 101, 102, 103}


def test_every_package_must_be_signed_by_the_catalogues_key() -> None:
    repository = Repository(url="https://packages.example.com/rpm", key="the key")
    for tool in (Dnf(), Zypper()):
        files = tool.files([repository], (), {})
        [(key, _)] = [(path, text) for path, text in files.items() if text == "the key"]
        [repo] = [text for text in files.values() if text != "the key"]
        assert "gpgcheck=1\n" in repo
        assert f"gpgkey=file://{key}\n" in repo


def test_dnf_plans_the_removal_too_and_what_goes_along_with_it() -> None:
    wanted = Package(name="nvidia-driver", version="3:550.54.14-1.el9")
    install, remove = Dnf().simulate(Change((wanted,), ("cuda-drivers",)))
    assert install.argv[:3] == ("dnf", "--assumeno", "install")
    assert remove.argv[:3] == ("dnf", "--assumeno", "remove")
    table = (
        "Removing:\n cuda-drivers  x86_64  535.161.08-1  @mlperf-operator-1  0\n"
        "Removing dependent packages:\n nvidia-driver  x86_64  3:550.54.14-1.el9  @mlperf-operator-1  130 M\n"
    )
    assert Dnf().planned(table).removes == ("cuda-drivers", "nvidia-driver")
