"""Whether a run can be accepted at all: pure policies, the first that objects decides.

What the API server can check by itself is checked there (CEL in the CRD); this is for what needs the administrator's
settings and for clusters whose CRD is older than the operator.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import PurePosixPath

from mlperf_operator.api.v1alpha1 import DriverPolicy, GpuAccess, MLPerfRun, Scenario, TestMode, VolumeSpec
from mlperf_operator.catalogue import Catalogue
from mlperf_operator.suites import Suite


@dataclass(frozen=True)
class Refusal:
    """Why a run is not accepted."""

    reason: str
    message: str


@dataclass(frozen=True)
class Limits:
    """What the administrator allows."""

    suites: Mapping[str, Suite]
    host_paths: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    drivers: Catalogue | None = None
    """The driver catalogue; None where driver management is off."""
    runtime_class_access: bool = False
    """Whether a run may have every GPU of its node without requesting them."""


Policy = Callable[[MLPerfRun, Limits], Refusal | None]


def refusal(run: MLPerfRun, limits: Limits) -> Refusal | None:
    """Return why the run is refused, or None when it is accepted."""
    for policy in POLICIES:
        found = policy(run, limits)
        if found is not None:
            return found
    return None


def _choices(values: Iterable[str]) -> str:
    return ", ".join(sorted(values)) or "none"


def _known(what: str, reason: str, value: str, possible: Collection[str], where: str) -> Refusal | None:
    if value in possible:
        return None
    return Refusal(reason, f"{what} {value} is not in {where}; possible: {_choices(possible)}")


def _suite_exists(run: MLPerfRun, limits: Limits) -> Refusal | None:
    return _known("suite", "UnknownSuite", run.spec.suite, limits.suites, "this operator's suites")


def _system_exists(run: MLPerfRun, limits: Limits) -> Refusal | None:
    suite = limits.suites[run.spec.suite]
    return _known("system", "UnknownSystem", run.spec.system, suite.systems, f"suite {suite.name}")


def _pairs_exist(run: MLPerfRun, limits: Limits) -> Refusal | None:
    suite = limits.suites[run.spec.suite]
    for request in run.spec.benchmarks:
        found = _known("benchmark", "UnsupportedBenchmark", request.name, suite.benchmarks, f"suite {suite.name}")
        if found is not None:
            return found
        own = [scenario.value for scenario in suite.benchmarks[request.name].scenarios]
        for scenario in request.scenarios or ():
            if scenario.value not in own:
                return Refusal(
                    "UnsupportedScenario",
                    f"{request.name} has no {scenario.value} in suite {suite.name}; possible: {', '.join(own)}",
                )
    return None


def _config_version_runs(run: MLPerfRun, limits: Limits) -> Refusal | None:
    suite, version = limits.suites[run.spec.suite], run.spec.config_version
    if version in suite.config_versions:
        return None
    why = suite.refused_config_versions.get(version, f"suite {suite.name} does not have it")
    possible = _choices(v.value for v in suite.config_versions)
    return Refusal("UnsupportedConfigVersion", f"configVersion {version.value}: {why}; possible: {possible}")


def _asked_for(run: MLPerfRun, limits: Limits) -> set[tuple[str, Scenario]]:
    suite = limits.suites[run.spec.suite]
    return {
        (request.name, scenario)
        for request in run.spec.benchmarks
        for scenario in request.scenarios or suite.benchmarks[request.name].scenarios
    }


def _overrides_match(run: MLPerfRun, limits: Limits) -> Refusal | None:
    pairs = _asked_for(run, limits)
    for override in run.spec.gpu_config.overrides if run.spec.gpu_config else ():
        if (override.benchmark, override.scenario) not in pairs:
            return Refusal(
                "UnusedOverride",
                f"gpuConfig.overrides sets {override.field} for {override.benchmark} {override.scenario.value}, which "
                f"the run does not ask for; requested: {_named(pairs)}",
            )
    return None


def _expectations_can_be_met(run: MLPerfRun, limits: Limits) -> Refusal | None:
    pairs, modes = _asked_for(run, limits), run.spec.test_modes
    for expected in run.spec.expectations:
        label = f"expectations: {expected.benchmark} {expected.scenario.value} {expected.metric}"
        if (expected.benchmark, expected.scenario) not in pairs:
            return Refusal(
                "UnusedExpectation", f"{label} is of a pair that the run does not ask for; requested: {_named(pairs)}"
            )
        if TestMode.PERFORMANCE not in modes:
            return Refusal("UnusedExpectation", f"{label} needs test mode {TestMode.PERFORMANCE.value}")
        if expected.min is not None and expected.max is not None and Decimal(expected.min) > Decimal(expected.max):
            return Refusal("UnusedExpectation", f"{label} has a min of {expected.min} above its max of {expected.max}")
    return None


def _named(pairs: Iterable[tuple[str, Scenario]]) -> str:
    return _choices(f"{benchmark} {scenario.value}" for benchmark, scenario in pairs)


def _scratch_lasts(run: MLPerfRun, limits: Limits) -> Refusal | None:
    suite, scratch = limits.suites[run.spec.suite], run.spec.scratch
    if not suite.requires_scratch or (scratch is not None and scratch.empty_dir is None):
        return None
    return Refusal(
        "ScratchRequired",
        f"suite {suite.name} prepares data for hours and needs a scratch volume that outlives the pod; set "
        "spec.scratch.claimName, claimTemplate or hostPath",
    )


def _host_paths_allowed(run: MLPerfRun, limits: Limits) -> Refusal | None:
    for field, volume in (("scratch", run.spec.scratch), ("results", run.spec.results)):
        path = _host_path(volume)
        if path is not None and not any(_lies_under(path, prefix) for prefix in limits.host_paths):
            return Refusal(
                "HostPathNotAllowed",
                f"{field}.hostPath {path} is not allowed; the administrator allows: {_choices(limits.host_paths)} "
                "(chart value allowedHostPaths)",
            )
    return None


def _host_path(volume: VolumeSpec | None) -> str | None:
    return volume.host_path.path if volume is not None and volume.host_path is not None else None


def _lies_under(path: str, prefix: str) -> bool:
    parts = PurePosixPath(path).parts
    return ".." not in parts and parts[: len(PurePosixPath(prefix).parts)] == PurePosixPath(prefix).parts


def _image_allowed(run: MLPerfRun, limits: Limits) -> Refusal | None:
    image, own = run.spec.image, limits.suites[run.spec.suite].image
    if image is None or image == own or any(_begins_with(image, prefix) for prefix in limits.images):
        return None
    return Refusal(
        "ImageNotAllowed",
        f"image {image} is not allowed; possible: {own}, or what starts with one of: {_choices(limits.images)} "
        "(chart value allowedImages)",
    )


def _begins_with(image: str, prefix: str) -> bool:
    # "registry.example" must allow neither registry.example.evil nor, on another port, registry.example:5000/evil.
    rest = image.removeprefix(prefix)
    is_tag = rest.startswith(":") and "/" not in rest
    return image.startswith(prefix) and (not rest or prefix[-1] in "/:@" or rest[0] in "/@" or is_tag)


def _driver_can_be_had(run: MLPerfRun, limits: Limits) -> Refusal | None:
    if run.spec.driver.policy is not DriverPolicy.ENSURE:
        return None
    if not limits.suites[run.spec.suite].uses_gpu:
        return Refusal(
            "NoDriverNeeded", f"suite {run.spec.suite} uses no GPU driver; set driver.policy to Auto or Ignore"
        )
    if limits.drivers is None:
        return Refusal(
            "DriverManagementOff",
            "driver.policy Ensure needs driver management, which is off (chart value driver.enabled); install the "
            "driver on the node and set driver.policy to Verify",
        )
    if limits.drivers.find(run.spec.driver.version) is not None:
        return None
    return Refusal(
        "DriverNotInCatalogue",
        f"driver {run.spec.driver.version} is not in the administrator's catalogue (chart value driver.drivers); "
        f"possible: {limits.drivers.names()}; or install it on the node and set driver.policy to Verify",
    )


def _gpu_count_fits(run: MLPerfRun, limits: Limits) -> Refusal | None:
    own, count = limits.suites[run.spec.suite].systems[run.spec.system].gpu_count, run.spec.gpu.count
    if count is None or not own or count == own:
        return None
    return Refusal(
        "GPUCountMismatch",
        f"gpu.count {count} does not fit system {run.spec.system}, which has {own}; leave it out or change system",
    )


def _gpu_access_possible(run: MLPerfRun, limits: Limits) -> Refusal | None:
    access = run.spec.gpu.access
    if not limits.suites[run.spec.suite].uses_gpu or access is GpuAccess.DEVICE_PLUGIN:
        return None
    if access is GpuAccess.RESOURCE_CLAIM:
        return Refusal("GPUAccessNotPossible", "gpu.access ResourceClaim is not built yet; possible: DevicePlugin")
    if limits.runtime_class_access:
        return None
    return Refusal(
        "GPUAccessNotAllowed",
        "gpu.access RuntimeClass gives a pod every GPU of its node, past quota and scheduler, and the administrator "
        "has not allowed that (chart value allowRuntimeClassAccess); possible: DevicePlugin",
    )


POLICIES: tuple[Policy, ...] = (
    _suite_exists,
    _system_exists,
    _pairs_exist,
    _config_version_runs,
    _overrides_match,
    _expectations_can_be_met,
    _scratch_lasts,
    _host_paths_allowed,
    _image_allowed,
    _driver_can_be_had,
    _gpu_count_fits,
    _gpu_access_possible,
)
