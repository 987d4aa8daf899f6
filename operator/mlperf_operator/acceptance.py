"""Whether a run can be accepted at all: pure policies, the first that objects decides.

What the API server can check by itself is checked there (CEL in the CRD); this is for what needs the administrator's
settings and for clusters whose CRD is older than the operator.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from decimal import Decimal

from mlperf_operator.api.v1alpha1 import (
    AuditTest,
    DriverPolicy,
    EnvironmentStrategy,
    MLPerfRun,
    PowerSetting,
    Scenario,
    SecurityProfile,
    TestMode,
)
from mlperf_operator.limits import Limits, Policy, Refusal, choices
from mlperf_operator.permissions import PERMISSIONS


def refusal(run: MLPerfRun, limits: Limits, policies: Sequence[Policy] | None = None) -> Refusal | None:
    """Return why the run is refused, by all policies where none are named, or None when it is accepted."""
    for policy in POLICIES if policies is None else policies:
        found = policy(run, limits)
        if found is not None:
            return found
    return None


def _known(what: str, reason: str, value: str, possible: Collection[str], where: str) -> Refusal | None:
    if value in possible:
        return None
    return Refusal(reason, f"{what} {value} is not in {where}; possible: {choices(possible)}")


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
    possible = choices(v.value for v in suite.config_versions)
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
    return choices(f"{benchmark} {scenario.value}" for benchmark, scenario in pairs)


def _audits_exist(run: MLPerfRun, limits: Limits) -> Refusal | None:
    suite, audits = limits.suites[run.spec.suite], run.spec.audits
    for request in run.spec.benchmarks:
        own = suite.benchmarks[request.name].audits
        absent = [audit.value for audit in audits if audit not in own]
        if absent:
            return Refusal(
                "UnsupportedAudit",
                f"{request.name} has no {', '.join(absent)} in suite {suite.name}; possible: "
                f"{choices(_audits_of_all(run, limits))}",
            )
    if audits and set(run.spec.test_modes) != set(TestMode):
        return Refusal(
            "AuditNeedsResults",
            "audits compare with a performance and an accuracy result of the same run; set testModes to "
            f"{', '.join(mode.value for mode in TestMode)}",
        )
    if audits and run.spec.power_setting is PowerSetting.MAX_Q:
        return Refusal(
            "AuditNeedsResults",
            "audits of MaxQ results need a power meter's readings beside them, which a run does not take; possible: "
            f"powerSetting {PowerSetting.MAX_P.value}",
        )
    return None


def _audits_of_all(run: MLPerfRun, limits: Limits) -> list[str]:
    suite = limits.suites[run.spec.suite]
    return [a.value for a in AuditTest if all(a in suite.benchmarks[b.name].audits for b in run.spec.benchmarks)]


def _power_setting_possible(run: MLPerfRun, limits: Limits) -> Refusal | None:
    if run.spec.power_setting is not PowerSetting.MAX_Q:
        return None
    suite = limits.suites[run.spec.suite]
    pairs = {(name, scenario) for name, own in suite.benchmarks.items() for scenario in own.max_q_scenarios}
    absent = _asked_for(run, limits) - pairs
    if absent:
        return Refusal(
            "UnsupportedPowerSetting",
            f"powerSetting MaxQ: suite {suite.name} has no MaxQ values for {_named(absent)}; possible: {_named(pairs)}",
        )
    if run.spec.security_profile is SecurityProfile.HARNESS_PARITY:
        return None
    return Refusal(
        "PowerSettingNeedsProfile",
        "powerSetting MaxQ changes the GPUs' power limit, which only securityProfile HarnessParity may; possible: "
        f"that, or powerSetting {PowerSetting.MAX_P.value}",
    )


def _scratch_lasts(run: MLPerfRun, limits: Limits) -> Refusal | None:
    suite, scratch = limits.suites[run.spec.suite], run.spec.scratch
    if not suite.requires_scratch or (scratch is not None and scratch.empty_dir is None):
        return None
    return Refusal(
        "ScratchRequired",
        f"suite {suite.name} prepares data for hours and needs a scratch volume that outlives the pod; set "
        "spec.scratch.claimName, claimTemplate or hostPath",
    )


def _offline_possible(run: MLPerfRun, limits: Limits) -> Refusal | None:
    environment = run.spec.environment
    installs = limits.suites[run.spec.suite].prebuild is not None
    if not (environment.offline and installs and environment.strategy is EnvironmentStrategy.SNAPSHOT):
        return None
    return Refusal(
        "OfflineNeedsImage",
        "environment.offline: what the tree's prebuild installs comes from the network (apt, git), so a Snapshot "
        "cannot be made; possible: environment.strategy Image, with an image that has it (`mlperf-operator "
        "suite dockerfile`)",
    )


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


CONFIG_POLICIES: tuple[Policy, ...] = (
    _suite_exists,
    _system_exists,
    _pairs_exist,
    _config_version_runs,
    _overrides_match,
)
"""What a run's configuration values need; the other policies are about where and how it may run."""

POLICIES: tuple[Policy, ...] = (
    *CONFIG_POLICIES,
    _expectations_can_be_met,
    _audits_exist,
    _power_setting_possible,
    _scratch_lasts,
    _offline_possible,
    _driver_can_be_had,
    _gpu_count_fits,
    *PERMISSIONS,
)
