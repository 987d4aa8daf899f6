"""What the tools really say when they fail, and what that means."""

from __future__ import annotations

import pytest

from mlperf_operator.agent.driver.host import TIMED_OUT, Done
from mlperf_operator.agent.driver.sources import base, failures
from mlperf_operator.driver_report import Reason

SENTENCES = [
    (Reason.DISK_FULL, "E: You don't have enough free space in /var/cache/apt/archives/."),
    (
        Reason.DISK_FULL,
        "dpkg: error processing archive /x.deb (--unpack):\n cannot copy extracted data for './usr/x' to"
        " '/usr/x.dpkg-new': failed to write (No space left on device)\n"
        "E: Sub-process /usr/bin/dpkg returned an error code (1)",
    ),
    (
        Reason.DISK_FULL,
        "Error: Transaction test error:\n  package x needs 52MB more space on the / filesystem",
    ),
    (
        Reason.PACKAGE_MANAGER_BUSY,
        "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 4321 (unattended-upgr)\n"
        "E: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend), is another process using it?",
    ),
    (Reason.PACKAGE_MANAGER_BUSY, "dpkg: error: dpkg frontend lock was locked by another process with pid 4321"),
    (
        Reason.PACKAGE_MANAGER_BUSY,
        "System management is locked by the application with pid 4321 (zypper).\nClose this application first.",
    ),
    (Reason.PACKAGE_HELD, "E: Held packages were changed and -y was used without --allow-change-held-packages."),
    (
        Reason.HEADERS_MISSING,
        "Error! Your kernel headers for kernel 6.1.0-18-amd64 cannot be found at /lib/modules/6.1.0-18-amd64/build or "
        "/lib/modules/6.1.0-18-amd64/source.",
    ),
    (
        Reason.HEADERS_MISSING,
        "ERROR: Unable to find the kernel source tree for the currently running kernel.  Please make sure you have "
        "installed the kernel source files for your kernel",
    ),
    (Reason.SECURE_BOOT, "modprobe: ERROR: could not insert 'nvidia': Required key not available"),
    (Reason.CHECKSUM_MISMATCH, "Error in MD5 checksums: 1234 is different from 5678"),
    (
        Reason.REPOSITORY_UNREACHABLE,
        "Err:1 https://packages.example.com ./ InRelease\n  Could not resolve 'packages.example.com'\n"
        "E: Failed to fetch https://packages.example.com/./InRelease  Could not resolve 'packages.example.com'",
    ),
    (
        Reason.REPOSITORY_UNREACHABLE,
        "E: Failed to fetch https://packages.example.com/./x_1_all.deb  404  Not Found [IP: 192.0.2.1 443]\n"
        "E: Unable to fetch some archives, maybe run apt-get update or try with --fix-missing?",
    ),
    (
        Reason.REPOSITORY_UNREACHABLE,
        "W: GPG error: https://packages.example.com ./ InRelease: The following signatures couldn't be verified "
        "because the public key is not available: NO_PUBKEY A4B469963BF863CC\n"
        "E: The repository 'https://packages.example.com ./ InRelease' is not signed.",
    ),
    (
        Reason.REPOSITORY_UNREACHABLE,
        "Errors during downloading metadata for 'mlperf-operator-1':\n"
        "  - Status code: 404 for https://x/repomd.xml\n"
        "Error: Failed to download metadata for repo 'mlperf-operator-1': Cannot download repomd.xml",
    ),
    (Reason.REPOSITORY_UNREACHABLE, "Error: GPG check FAILED"),
    (Reason.PACKAGES_NOT_FOUND, "E: Version '550.54.14-1' for 'nvidia-driver-550' was not found"),
    (Reason.PACKAGES_NOT_FOUND, "E: Unable to locate package nvidia-driver-550"),
    (
        Reason.PACKAGES_NOT_FOUND,
        "No match for argument: kmod-nvidia-550.54.14-1.el9\nError: Unable to find a match: kmod-nvidia",
    ),
    (Reason.PACKAGES_NOT_FOUND, "No provider of 'nvidia-driver-G06 = 550.54.14' found."),
    (
        Reason.PACKAGE_MANAGER_BROKEN,
        "The following packages have unmet dependencies:\n nvidia-dkms-550 : Depends: dkms but it is not installable\n"
        "E: Unable to correct problems, you have held broken packages.",
    ),
    (
        Reason.PACKAGE_MANAGER_BROKEN,
        "E: dpkg was interrupted, you must manually run 'dpkg --configure -a' to correct the problem. ",
    ),
    (Reason.PACKAGE_MANAGER_BROKEN, "Problem: nothing provides dkms needed by nvidia-driver-550.54.14.x86_64"),
    (
        None,
        "Need to get 404 MB of archives.\nAfter this operation, 1,403 MB of additional disk space will be used.\n"
        "E: Sub-process /usr/bin/dpkg returned an error code (1)",
    ),
    (None, "E: Sub-process /usr/bin/dpkg returned an error code (1)"),
    (None, ""),
]


@pytest.mark.parametrize(("reason", "output"), SENTENCES)
def test_a_sentence_means_its_reason(reason: Reason | None, output: str) -> None:
    assert failures.reason(output) == reason


def test_waiting_for_a_lock_is_not_the_failure_that_comes_later() -> None:
    waited = (
        "Waiting for cache lock: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 1 (apt)...\n"
    )
    assert failures.reason(f"{waited}E: Unable to locate package x") == Reason.PACKAGES_NOT_FOUND


def test_the_lines_that_tell_are_told_and_not_the_chatter() -> None:
    output = "Reading package lists...\nBuilding dependency tree...\n" + 2 * "E: Unable to locate package x\n"
    assert failures.words(output) == "E: Unable to locate package x"
    assert failures.words("one\ntwo\nthree\nfour\n") == "two | three | four"


def test_a_command_that_did_not_end_says_so() -> None:
    error = base.failed(Done(("apt-get",), TIMED_OUT, ""), "installing")
    assert (error.reason, error.detail) == (
        Reason.INSTALL_FAILED,
        "installing failed: it did not end in time: it ended with 124",
    )
