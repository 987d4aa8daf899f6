"""Which runs are refused, and what they are told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mlperf_operator.acceptance import Limits, refusal
from mlperf_operator.api.v1alpha1 import MLPerfRun
from mlperf_operator.suites import BUILT_IN
from unit.core.builders import a100, run
from unit.nodes.builders import SETTINGS

LIMITS = Limits(suites=BUILT_IN, host_paths=("/mnt/scratch",), images=("mirror.example/", "registry.example"))


def expecting(scenario: str, **bounds: str) -> dict[str, str]:
    return {"benchmark": "bert", "scenario": scenario, "metric": "result_samples_per_second", **bounds}


REFUSED: list[tuple[str, MLPerfRun, str, list[str]]] = [
    ("an unknown suite", run({"suite": "nvidia-v9"}), "UnknownSuite", ["nvidia-v9", "nvidia-v4.1", "reference-cpu"]),
    ("an unknown system", run({"system": "TOASTER"}), "UnknownSystem", ["TOASTER", "CPU_REFERENCE"]),
    ("an unknown benchmark", run({"benchmarks": [{"name": "bert"}]}), "UnsupportedBenchmark", ["bert", "digits"]),
    (
        "3d-unet with Server",
        a100(benchmarks=[{"name": "3d-unet", "scenarios": ["Server"]}]),
        "UnsupportedScenario",
        ["3d-unet", "Server", "Offline, SingleStream"],
    ),
    ("Triton", a100(configVersion="Triton"), "UnsupportedConfigVersion", ["BUILD_TRITON", "Default, HighAccuracy"]),
    ("NVIDIA's suite without scratch", a100(scratch=None), "ScratchRequired", ["claimName", "claimTemplate"]),
    ("NVIDIA's suite on an emptyDir", a100(scratch={"emptyDir": {}}), "ScratchRequired", ["outlives the pod"]),
    (
        "a host path that nobody allowed",
        run({"scratch": {"hostPath": {"path": "/etc"}}}),
        "HostPathNotAllowed",
        ["/etc", "/mnt/scratch"],
    ),
    (
        "a host path that climbs out",
        run({"results": {"hostPath": {"path": "/mnt/scratch/../../etc"}}}),
        "HostPathNotAllowed",
        ["results.hostPath"],
    ),
    (
        "a host path that only begins alike",
        run({"scratch": {"hostPath": {"path": "/mnt/scratchy"}}}),
        "HostPathNotAllowed",
        ["/mnt/scratchy"],
    ),
    ("a foreign image", run({"image": "evil.example/x:1"}), "ImageNotAllowed", ["evil.example", "mirror.example/"]),
    (
        "an image of another registry on the same host",
        run({"image": "registry.example:5000/x:1"}),
        "ImageNotAllowed",
        ["registry.example:5000/x:1"],
    ),
    (
        "an image of a registry that only begins alike",
        run({"image": "registry.example.evil/x:1"}),
        "ImageNotAllowed",
        ["registry.example.evil", "registry.example"],
    ),
    (
        "an expectation of a pair that is not run",
        a100(benchmarks=[{"name": "bert", "scenarios": ["Offline"]}], expectations=[expecting("Server", min="1")]),
        "UnusedExpectation",
        ["bert Server result_samples_per_second", "requested: bert Offline"],
    ),
    (
        "an expectation of a run that measures accuracy only",
        a100(testModes=["AccuracyOnly"], expectations=[expecting("Offline", min="1")]),
        "UnusedExpectation",
        ["needs test mode PerformanceOnly"],
    ),
    (
        "an expectation that nothing meets",
        a100(expectations=[expecting("Offline", min="10", max="9.5")]),
        "UnusedExpectation",
        ["a min of 10 above its max of 9.5"],
    ),
    ("fewer GPUs than the system has", a100(gpu={"count": 4}), "GPUCountMismatch", ["4", "A100_SXM4_40GBx8", "8"]),
    (
        "a driver to install",
        a100(driver={"policy": "Ensure"}),
        "DriverManagementOff",
        ["driver.enabled", "Verify"],
    ),
    ("a driver for a suite without", run({"driver": {"policy": "Ensure"}}), "NoDriverNeeded", ["reference-cpu"]),
    ("a resource claim", a100(gpu={"access": "ResourceClaim"}), "GPUAccessNotPossible", ["DevicePlugin"]),
    ("uncounted GPUs", a100(gpu={"access": "RuntimeClass"}), "GPUAccessNotAllowed", ["allowRuntimeClassAccess"]),
    (
        "an override of a pair that is not run",
        run(
            {
                "benchmarks": [{"name": "digits", "scenarios": ["Offline"]}],
                "gpuConfig": {
                    "overrides": [
                        {"benchmark": "digits", "scenario": "Server", "field": "server_target_qps", "value": 1}
                    ]
                },
            }
        ),
        "UnusedOverride",
        ["digits Server", "digits Offline"],
    ),
]


@pytest.mark.parametrize(("case", "refused", "reason", "words"), REFUSED, ids=[case[0] for case in REFUSED])
def test_a_run_that_cannot_be_is_refused_and_told_what_is_possible(
    case: str, refused: MLPerfRun, reason: str, words: list[str]
) -> None:
    found = refusal(refused, LIMITS)
    assert found is not None, case
    assert found.reason == reason
    for word in words:
        assert word in found.message


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"scratch": {"hostPath": {"path": "/mnt/scratch/team"}}},
        {"scratch": {"hostPath": {"path": "/mnt/scratch"}}},
        {"image": "mirror.example/harness:2"},
        {"image": "registry.example/harness:2"},
        {"gpu": {"count": 2}},
        {"image": BUILT_IN["reference-cpu"].image},
        {"driver": {"policy": "Verify"}},
        {"gpu": {"access": "ResourceClaim"}},
    ],
)
def test_a_run_within_the_limits_is_accepted(spec: dict[str, Any]) -> None:
    assert refusal(run(spec), LIMITS) is None


def test_every_pair_of_a_built_in_suite_is_accepted() -> None:
    for suite in BUILT_IN.values():
        for system in suite.systems:
            for name, benchmark in suite.benchmarks.items():
                spec = {
                    "suite": suite.name,
                    "system": system,
                    "benchmarks": [{"name": name, "scenarios": [s.value for s in benchmark.scenarios]}],
                    "scratch": {"claimName": "scratch"},
                }
                assert refusal(run(spec), LIMITS) is None


@pytest.mark.parametrize("image", ["r.example/a", "r.example/a:1", "r.example/a@sha256:0", "r.example/a/b:1"])
def test_an_allowed_repository_may_have_any_tag_digest_or_folder(image: str) -> None:
    assert refusal(run({"image": image}), Limits(suites=BUILT_IN, images=("r.example/a",))) is None


def test_uncounted_gpus_are_possible_where_the_administrator_allows_them() -> None:
    allowed = replace(LIMITS, runtime_class_access=True)
    assert refusal(a100(gpu={"access": "RuntimeClass"}), allowed) is None


MANAGED = replace(LIMITS, drivers=SETTINGS)


@pytest.mark.parametrize("version", ["550", "550.54.14", "535", "535.183.01"])
def test_a_driver_of_the_catalogue_is_accepted_by_its_branch_or_its_version(version: str) -> None:
    assert refusal(a100(driver={"policy": "Ensure", "version": version}), MANAGED) is None


@pytest.mark.parametrize("version", ["470", "550.54", "550.54.15"])
def test_a_driver_that_the_catalogue_has_not_is_refused_and_the_possible_ones_are_named(version: str) -> None:
    found = refusal(a100(driver={"policy": "Ensure", "version": version}), MANAGED)
    assert found is not None
    assert found.reason == "DriverNotInCatalogue"
    for word in (version, "550 (550.54.14), 535 (535.183.01)", "driver.drivers", "Verify"):
        assert word in found.message


@pytest.mark.parametrize("policy", ["Auto", "Verify", "Ignore"])
def test_a_run_that_does_not_insist_may_name_any_driver(policy: str) -> None:
    for limits in (LIMITS, MANAGED):
        assert refusal(a100(driver={"policy": policy, "version": "470"}), limits) is None


def test_a_suite_without_a_driver_is_refused_one_although_the_catalogue_has_it() -> None:
    found = refusal(run({"driver": {"policy": "Ensure"}}), MANAGED)
    assert found is not None
    assert found.reason == "NoDriverNeeded"
