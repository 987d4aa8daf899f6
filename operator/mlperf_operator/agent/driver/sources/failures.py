"""What package managers and NVIDIA's installer say when they fail, and the reason that it means.

The sentences are those of apt 1.6 to 3.0, dpkg, dnf 4, rpm, zypper 1.14 and nvidia-installer.
"""

from __future__ import annotations

import re

from mlperf_operator.driver_report import Reason

_LONGEST = 500

_SENTENCES: tuple[tuple[Reason, str], ...] = (
    (
        Reason.DISK_FULL,
        r"No space left on device|You don't have enough free space|not enough free (disk )?space|"
        r"At least \d+[KMGT]?i?B more space needed|needs \d+[KMGT]?i?B( more space)? on the|Not enough space",
    ),
    (
        # apt repeats `Waiting for cache lock: Could not get lock` while it waits: that alone is no failure.
        Reason.PACKAGE_MANAGER_BUSY,
        r"^E: Could not get lock|^E: Unable to (acquire the dpkg frontend lock|lock)|"
        r"dpkg(-\w+)?: error: .*((is|was) locked by another process|requested operation requires superuser)|"
        r"Failed to obtain the transaction lock|can't create transaction lock|"
        r"System management is locked by the application",
    ),
    (Reason.PACKAGE_HELD, r"Held packages were changed|is locked by (a )?versionlock"),
    (
        Reason.HEADERS_MISSING,
        r"kernel headers for kernel \S+ cannot be found|Unable to find the kernel source tree|"
        r"kernel source (tree|path) .*(not|invalid)|Unable to find the development tool `?make",
    ),
    (
        Reason.SECURE_BOOT,
        r"Required key not available|Key was rejected by service|Loading of unsigned module is rejected",
    ),
    (Reason.NOUVEAU_LOADED, r"Nouveau kernel driver is currently in use"),
    (Reason.CHECKSUM_MISMATCH, r"Error in (MD5|SHA256) checksums?"),
    (
        Reason.REPOSITORY_UNREACHABLE,
        r"Could not resolve|Temporary failure (in name resolution|resolving)|Could not connect|Unable to connect|"
        r"Cannot initiate the connection|Connection (failed|refused|timed out|reset)|Failed to fetch|"
        r"Some index files failed to download|Unable to fetch some archives|is not signed|NO_PUBKEY|"
        r"\b40[134]\s+(Unauthorized|Forbidden|Not Found)|"
        r"signatures? (couldn't|could not) be verified|signatures were invalid|does not have a Release file|"
        r"Hash Sum mismatch|File has unexpected size|Certificate verification failed|is not valid yet|"
        r"Failed to download metadata|Cannot download|Curl error|Status code: [45]\d\d|All mirrors were tried|"
        r"GPG check FAILED|Public key for \S+ is not installed|Valid metadata not found|Signature verification failed|"
        r"Failed to (retrieve|refresh) |Download \(curl\) error",
    ),
    (
        Reason.PACKAGES_NOT_FOUND,
        r"Version '\S+' for '\S+' was not found|Unable to locate package|has no installation candidate|"
        r"couldn't find any package by|No match for argument|Unable to find a match|No provider of '|"
        r"not found in package names|Package '\S+' not found",
    ),
    (
        Reason.PACKAGE_MANAGER_BROKEN,
        r"[Uu]nmet dependencies|held broken packages|dpkg was interrupted|--fix-broken install|"
        r"nothing provides|conflicting requests|needs to be reinstalled|in a very bad inconsistent state|"
        r"rpmdb|(parsing|parse) file '/var/lib/dpkg|Sub-process \S*dpkg\S* exited unexpectedly",
    ),
)

_PATTERNS = tuple((reason, re.compile(pattern, re.MULTILINE)) for reason, pattern in _SENTENCES)

_TELLING = re.compile(
    r"^(E: |Err:|W: Failed|dpkg: error|error:|Error|ERROR|Problem|\s+\S+ : (Depends|Conflicts|Breaks|PreDepends))"
    r"|cannot be found|failed|Failed|No space left"
)


def reason(output: str) -> Reason | None:
    """Return the reason that the words of a failed program mean, or None where they mean none of these."""
    return next((reason for reason, pattern in _PATTERNS if pattern.search(output)), None)


def words(output: str) -> str:
    """Return what tells why a program failed, on one line: its error lines, or its last ones."""
    said = [line.strip() for line in output.splitlines() if line.strip()]
    telling = [line.strip() for line in output.splitlines() if _TELLING.search(line)]
    return " | ".join(dict.fromkeys(telling or said[-3:]))[:_LONGEST]
