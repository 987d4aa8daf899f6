"""Storage: a fixed number of folders on this machine as PersistentVolumes of the default StorageClass `local`."""

import shutil
from pathlib import Path
from typing import Any

from local_cluster.api import Api

STORAGE_CLASS = "local"
COUNT = 50
CAPACITY = "10Gi"


def storage_class() -> dict[str, Any]:
    """Return the StorageClass that claims get when they name none. It binds at once: there is only one node."""
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": STORAGE_CLASS, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "Immediate",
        "reclaimPolicy": "Retain",
    }


def volume_name(index: int) -> str:
    """Return the name of a volume and of its folder."""
    return f"local-{index:02}"


def persistent_volume(index: int, folder: Path) -> dict[str, Any]:
    """Return one PersistentVolume. Its capacity is a promise that nothing enforces."""
    name = volume_name(index)
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": CAPACITY},
            "accessModes": ["ReadWriteOnce", "ReadWriteMany", "ReadOnlyMany"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": STORAGE_CLASS,
            "hostPath": {"path": str(folder / name), "type": "DirectoryOrCreate"},
        },
    }


def released(volumes: dict[str, Any]) -> list[str]:
    """Return the names of our volumes whose claim is gone, from a list of PersistentVolumes."""
    ours = {volume_name(index) for index in range(COUNT)}
    return [
        item["metadata"]["name"]
        for item in volumes["items"]
        if item["metadata"]["name"] in ours and item.get("status", {}).get("phase") == "Released"
    ]


def ensure(api: Api, folder: Path) -> int:
    """Create what is missing; empty and offer again each volume whose claim is gone, and return how many those were."""
    class_path = f"/apis/storage.k8s.io/v1/storageclasses/{STORAGE_CLASS}"
    if api.get(class_path) is None:
        api.apply(class_path, storage_class())
    existing = api.get("/api/v1/persistentvolumes") or {"items": []}
    names = {item["metadata"]["name"] for item in existing["items"]}
    for index in range(COUNT):
        name = volume_name(index)
        _ensure_folder(folder / name)
        if name not in names:
            api.apply(f"/api/v1/persistentvolumes/{name}", persistent_volume(index, folder))
    free_again = released(existing)
    for name in free_again:
        shutil.rmtree(folder / name)
        _ensure_folder(folder / name)
        api.merge(f"/api/v1/persistentvolumes/{name}", {"spec": {"claimRef": None}})
    return len(free_again)


def _ensure_folder(folder: Path) -> None:
    if not folder.exists():
        folder.mkdir(parents=True)
        # A hostPath volume gets no fsGroup, and pods run under many user ids.
        folder.chmod(0o777)
