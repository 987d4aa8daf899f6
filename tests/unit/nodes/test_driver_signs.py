"""Who else manages a node's driver, by every sign of it."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from mlperf_operator.driver_signs import FOREIGN_SELECTOR, manager_of

OWNER = "nvidia.com/gpu-operator.driver.owner"
DEPLOY = "nvidia.com/gpu.deploy.driver"
STATE = "nvidia.com/gpu-driver-upgrade-state"
UPGRADE = "nvidia.com/gpu-driver-upgrade-enabled"
GKE = "cloud.google.com/gke-gpu-driver-version"

MANAGED: list[tuple[str, dict[str, str], dict[str, str], tuple[str, ...], str]] = [
    ("an owner", {OWNER: "demo"}, {}, (), f"NVIDIA's GPU operator (label {OWNER}=demo)"),
    ("a deployed driver", {DEPLOY: "true"}, {}, (), f"label {DEPLOY}=true"),
    ("a driver of the host", {DEPLOY: "pre-installed"}, {}, (), f"label {DEPLOY}=pre-installed"),
    ("a paused one", {DEPLOY: "paused-for-driver-upgrade"}, {}, (), "paused-for-driver-upgrade"),
    ("an upgrade under way", {STATE: "pod-restart-required"}, {}, (), f"label {STATE}=pod-restart-required"),
    ("an upgrade that is done", {STATE: "upgrade-done"}, {}, (), f"label {STATE}=upgrade-done"),
    ("an upgrade of no state", {STATE: ""}, {}, (), f"label {STATE}="),
    ("upgrades that are on", {}, {UPGRADE: "true"}, (), f"annotation {UPGRADE}=true"),
    ("a cloud", {GKE: "latest"}, {}, (), f"the cloud (label {GKE}=latest)"),
    ("a cloud that says no version", {GKE: ""}, {}, (), "the cloud"),
    (
        "a driver pod",
        {},
        {},
        ("gpu-operator/driver-x", "gpu-operator/driver-y"),
        "container (pod gpu-operator/driver-x)",
    ),
]


@pytest.mark.parametrize(("case", "labels", "annotations", "pods", "word"), MANAGED, ids=[case[0] for case in MANAGED])
def test_every_sign_of_a_foreign_manager_counts_and_is_named(
    case: str, labels: Mapping[str, str], annotations: Mapping[str, str], pods: tuple[str, ...], word: str
) -> None:
    assert word in manager_of(labels, annotations, pods), case


@pytest.mark.parametrize(
    ("labels", "annotations"),
    [
        ({}, {}),
        ({OWNER: ""}, {}),
        ({DEPLOY: "false"}, {}),
        ({}, {UPGRADE: "false"}),
        ({"nvidia.com/gpu.present": "true", "nvidia.com/gpu.product": "A100"}, {}),
        ({"nvidia.com/cuda.driver.major": "535"}, {}),
    ],
)
def test_what_only_says_that_there_is_a_gpu_is_no_manager(
    labels: Mapping[str, str], annotations: Mapping[str, str]
) -> None:
    assert manager_of(labels, annotations, ()) == ""


def test_the_pods_of_others_are_watched_by_the_label_that_nvidias_operator_gives_them() -> None:
    assert FOREIGN_SELECTOR == "app.kubernetes.io/component=nvidia-driver"
