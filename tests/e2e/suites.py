"""Suites that an administrator could add: the reference suite with one thing wrong each."""

from __future__ import annotations

import hashlib
from typing import Any

from local_cluster.network import NODE_IP

from mlperf_operator.suites import NVIDIA_V4_1, REFERENCE_CPU
from nvidia_tree import parts

ALLOWED_IMAGES = ["localhost/"]
HOST_PATH = "/var/tmp/mlperf-operator-e2e"
UPLOAD_PORT = 27070
UPLOAD_ENDPOINT = f"http://{NODE_IP}:{UPLOAD_PORT}"
"""Where runs may copy their artifacts to: an S3 server on this machine, by the address that pods reach."""


def _reference(name: str, **changes: Any) -> dict[str, Any]:
    # Without its image the suite would name one that is not on the node; suiteImages holds for the built-in name only.
    data = REFERENCE_CPU.model_dump(mode="json", by_alias=True, exclude_none=True)
    return data | {"name": name, "image": "localhost/mlperf-reference-harness:dev"} | changes


def _stages(**steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The reference suite's stages, some with other steps."""
    stages = _reference("any")["stages"]
    return [{**stage, "steps": steps.get(stage["name"].replace("-", "_"), stage["steps"])} for stage in stages]


def _without_postconditions() -> list[dict[str, Any]]:
    stages = _reference("any")["stages"]
    return [{**stage, "steps": [{**step, "postconditions": {}} for step in stage["steps"]]} for stage in stages]


NO_PYTHON = {"PYTHON": "true"}
"""With this in the environment every make target of the tree does nothing and ends with 0."""

BROKEN_STAGE = "broken-stage"
"""Its download-model asks make for a target that the tree does not have."""

LYING_DOWNLOAD = "lying-download"
"""Its downloads bring nothing and end with 0, as NVIDIA's do without a network."""

NO_RESULT = "no-result"
"""Nothing of it does anything, and all ends with 0, as NVIDIA's harness does on a system that it does not know."""

SMALL_SCRATCH = "small-scratch"
"""Its preflight asks for no free space."""

MIB = 1024**2
TREE_IMAGE = "localhost/mlperf-standin-tree:dev"
"""What NVIDIA's image is for the stand-in tree: prebuild has not run in it."""

PREBUILT_IMAGE = "localhost/mlperf-standin-tree-prebuilt:dev"
"""The same, made as `mlperf-operator suite dockerfile` says."""

CHECKOUT = "/opt/standin/checkout"
NETWORK = {"GIT_CONFIG_SYSTEM": "/opt/standin/gitconfig"}
"""With this, git finds in the image what the real build clones from the network."""

NVIDIA_NAMESPACE, NVIDIA_SCRATCH = "e2e-nvidia", "scratch"
"""Where runs may have securityProfile HarnessParity, and the claim that they share."""

PARITY_NODES = {"kubernetes.io/os": "linux"}
"""Where the administrator puts such runs."""

NVIDIA_TREE = "nvidia-tree"
"""nvidia-v4.1 with the stand-in tree and its downloads; everything else is as built in."""

NVIDIA_OFFLINE = "nvidia-tree-offline"
"""The same without a network."""


GIT_CODE = {"gitUrl": parts.SUBMISSION_URL, "gitCommit": parts.submission_commit(), "subPath": parts.SUBMISSION_FOLDER}
"""The tree as a folder of one commit of a repository."""

NVIDIA_CODE = "code"
"""A claim with a checkout of the tree, from which the administrator lets runs take it."""


def nvidia_tree(name: str, faults: str = "", **environment: str) -> dict[str, Any]:
    """NVIDIA's suite in the stand-in's image, with faults of the tree (tests/nvidia_tree/tree/standin/faults.py)."""
    data = NVIDIA_V4_1.model_dump(mode="json", by_alias=True, exclude_none=True)
    own = {"EXTERNAL_USER": "1", **NETWORK, "STANDIN_FAULTS": faults, **environment}
    changes = {
        "name": name,
        "image": TREE_IMAGE,
        "code": {"path": f"{CHECKOUT}/closed/NVIDIA", "subPath": "closed/NVIDIA"},
        # A node of these tests has neither 800 GiB of disk nor 32 GiB of memory.
        "scratchMinFreeBytes": 0,
        "shmBytes": 64 * MIB,
        "environment": {key: value for key, value in own.items() if value},
    }
    _set_checksums(data)
    return data | changes


def _set_checksums(suite: dict[str, Any]) -> None:
    """Put in the checksums of the stand-in's downloads."""
    steps = [step for stage in suite["stages"] for step in stage["steps"]]
    for condition in (c for step in steps for found in step["postconditions"].values() for c in found):
        for kind in ("md5", "sha256"):
            if kind in condition:
                content = parts.downloads()[condition["glob"].removeprefix("/scratch/")]
                condition[kind] = hashlib.new(kind, content, usedforsecurity=False).hexdigest()


MEASURED_BADLY = "nvidia-tree-measured-badly"
"""Its harness measures, and what comes out of it is not good."""

NOT_MEASURED = "nvidia-tree-not-measured"
"""Its harness leaves no result, or none of this measurement, mostly with exit code 0."""

NO_NETWORK = "nvidia-tree-no-network"
"""Its first download of bert's data fails, and every one of bert's models; make says 0 for the models."""

SLOW_TREE = "nvidia-tree-slow"
"""Its harness is three times slower than its config expects, and VALID."""

PAUSED_PREBUILD = "nvidia-tree-paused"
"""Its first prebuild of a scratch stands still before its end."""

_DOWNLOADS = "download/data/squad/*=unreachable-once download/models/bert/*.onnx=unreachable"
_MEASURED_BADLY = (
    *("bert/Offline/PerformanceOnly=too-fast", "bert/Offline/AccuracyOnly=low-accuracy"),
    *("bert/Server/PerformanceOnly=overloaded", "bert/Server/AccuracyOnly=accuracy-crash"),
    *("bert/SingleStream/PerformanceOnly=partial-summary", "bert/SingleStream/AccuracyOnly=accuracy-silent"),
    *("3d-unet/Offline/PerformanceOnly=partial-logs", "3d-unet/Offline/AccuracyOnly=other-variant"),
    "3d-unet/SingleStream/AccuracyOnly=rebuilt-engine",
)
_NOT_MEASURED = (
    *("bert/Offline/PerformanceOnly=old-logs", "bert/Offline/AccuracyOnly=no-metadata"),
    *("bert/Server/system=capped", "bert/SingleStream/config=no-config", "3d-unet/Offline/engine=out-of-memory"),
    *("3d-unet/SingleStream/PerformanceOnly=killed", "3d-unet/SingleStream/AccuracyOnly=old-logs"),
)
_NEVER_BUILT = (
    *("bert/Offline/engine=fails", "bert/SingleStream/config=no-custom-file"),
    *("audit/TEST01=fails-quietly", "audit/TEST05=fails"),
)

NEVER_BUILT = "nvidia-tree-never-built"
"""Its engine of bert Offline cannot be built, it passes bert SingleStream over without a word; its audits fail."""

HUNGRY_TREE = "nvidia-tree-hungry"
"""Its harness takes memory until the kernel ends it."""

NO_TOOLS = "nvidia-tree-no-tools"
"""Its preflight looks for no programs, so that prebuild says what an image lacks."""

NVIDIA_SUITES: list[dict[str, Any]] = [
    nvidia_tree(NVIDIA_TREE),
    nvidia_tree(NVIDIA_OFFLINE, "download/*=unreachable", **dict.fromkeys(NETWORK, "")) | {"code": GIT_CODE},
    nvidia_tree(MEASURED_BADLY, " ".join(_MEASURED_BADLY)),
    nvidia_tree(NOT_MEASURED, " ".join(_NOT_MEASURED)),
    nvidia_tree(NEVER_BUILT, " ".join(_NEVER_BUILT)) | {"code": GIT_CODE},
    nvidia_tree(NO_NETWORK, _DOWNLOADS),
    nvidia_tree(SLOW_TREE, "3d-unet/Offline/*=slow"),
    nvidia_tree(PAUSED_PREBUILD, STANDIN_PAUSE_ONCE="1"),
    nvidia_tree(HUNGRY_TREE, "3d-unet/Offline/PerformanceOnly=hungry"),
    nvidia_tree(NO_TOOLS) | {"tools": []},
]

SUITES: list[dict[str, Any]] = [
    _reference(BROKEN_STAGE, stages=_stages(download_model=[{"target": "no_such_target"}])),
    _reference(LYING_DOWNLOAD, environment=NO_PYTHON),
    _reference(NO_RESULT, environment=NO_PYTHON, stages=_without_postconditions()),
    _reference(SMALL_SCRATCH, scratchMinFreeBytes=0),
]

OPERATOR_VALUES: dict[str, Any] = {
    "suites": [*SUITES, *NVIDIA_SUITES],
    "allowedImages": ALLOWED_IMAGES,
    "allowedHostPaths": [HOST_PATH],
    "allowedUploadEndpoints": [UPLOAD_ENDPOINT],
    "allowedCodeClaims": [f"{NVIDIA_NAMESPACE}/{NVIDIA_CODE}"],
    "harnessParity": {
        NVIDIA_NAMESPACE: {
            "volumes": [NVIDIA_SCRATCH, NVIDIA_CODE],
            "images": ALLOWED_IMAGES,
            "nodeSelector": PARITY_NODES,
        }
    },
}
"""What these tests need of the chart."""
