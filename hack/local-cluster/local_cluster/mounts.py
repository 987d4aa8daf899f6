"""Mounts below a folder."""

import ctypes
import os
import re
from pathlib import Path

from local_cluster.errors import ClusterError

_MNT_DETACH = 2
_MS_BIND, _MS_SHARED = 1 << 12, 1 << 20


def below(mountinfo: str, folder: Path) -> list[str]:
    """Return the mount points in or at `folder`, the last mounted first, from the text of /proc/self/mountinfo."""
    points = [_unescape(line.split()[4]) for line in mountinfo.splitlines()]
    return [point for point in reversed(points) if point == str(folder) or point.startswith(f"{folder}/")]


def unmount_below(folder: Path) -> None:
    """Unmount everything in or at `folder`.

    Raises:
        ClusterError: a mount stays.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    for point in below(Path("/proc/self/mountinfo").read_text(), folder):
        if libc.umount2(os.fsencode(point), 0) != 0 and libc.umount2(os.fsencode(point), _MNT_DETACH) != 0:
            raise ClusterError(f"cannot unmount {point}: {os.strerror(ctypes.get_errno())}")


def share(folder: Path) -> None:
    """Make `folder` a mount of its own whose later mounts appear in every copy of it. Safe to repeat.

    Raises:
        ClusterError: the kernel refuses.
    """
    folder.mkdir(parents=True, exist_ok=True)
    libc = ctypes.CDLL(None, use_errno=True)
    path = os.fsencode(folder)
    mounted = str(folder) in below(Path("/proc/self/mountinfo").read_text(), folder)
    if not mounted and libc.mount(path, path, None, _MS_BIND, None) != 0:
        raise ClusterError(f"cannot mount {folder}: {os.strerror(ctypes.get_errno())}")
    if libc.mount(None, path, None, _MS_SHARED, None) != 0:
        raise ClusterError(f"cannot share the mounts of {folder}: {os.strerror(ctypes.get_errno())}")


def _unescape(point: str) -> str:
    """Undo the kernel's notation, in which a blank is a backslash and its octal number."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found.group(1), 8)), point)
