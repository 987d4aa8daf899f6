"""Folders of the node, so mounted that no link which a run left there leads the kubelet elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

from mlperf_operator.host_paths import outermost

FOLDER_TYPE = "DirectoryOrCreate"
"""Type of the host paths that runs name; device files of the suite have another one."""


class HostPathError(ValueError):
    """The administrator does not allow a folder of the node; the message names it."""


def confined(pod: Mapping[str, Any], allowed: Iterable[str]) -> dict[str, Any]:
    """Return a pod's spec whose volumes are the outermost allowed folders, and what lies below them a subPath.

    A host path is followed wherever links lead. A subPath is resolved by the kubelet, which refuses one that leads out
    of its volume (kubernetes: pkg/volume/util/subpath); and the outermost folder itself lies where no run can write.

    Raises:
        HostPathError: a folder lies under none that is allowed.
    """
    allowed = tuple(allowed)
    below: dict[str, str] = {}
    volumes = []
    for volume in pod["volumes"]:
        folder = volume.get("hostPath") or {}
        if folder.get("type") != FOLDER_TYPE:
            volumes.append(volume)
            continue
        root = outermost(folder["path"], allowed)
        if root is None:
            raise HostPathError(f"host path {folder['path']} is not allowed (chart value allowedHostPaths)")
        below[volume["name"]] = str(PurePosixPath(folder["path"]).relative_to(root))
        volumes.append({**volume, "hostPath": {**folder, "path": str(PurePosixPath(root))}})
    containers = {
        field: [_with_sub_paths(container, below) for container in pod[field]]
        for field in ("initContainers", "containers")
        if field in pod
    }
    return {**pod, "volumes": volumes, **containers}


def _with_sub_paths(container: Mapping[str, Any], below: Mapping[str, str]) -> dict[str, Any]:
    mounts = [_with_sub_path(mount, below.get(mount["name"], ".")) for mount in container["volumeMounts"]]
    return {**container, "volumeMounts": mounts}


def _with_sub_path(mount: Mapping[str, Any], folder: str) -> dict[str, Any]:
    if folder == ".":
        return dict(mount)
    return {**mount, "subPath": str(PurePosixPath(folder, mount.get("subPath", "")))}
