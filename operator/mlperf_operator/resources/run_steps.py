"""The steps of stage `run`: engines once a pair, the harness once a mode, then the audits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlperf_operator.api.v1alpha1 import AuditTest, ConfigVersion, MLPerfRun, PowerSetting, TestMode
from mlperf_operator.resources.steps import PATHS, Pair, Step, digest, requested_pairs
from mlperf_operator.suites import Suite

_CONFIG_VER = {
    ConfigVersion.DEFAULT: "default",
    ConfigVersion.HIGH_ACCURACY: "high_accuracy",
    ConfigVersion.TRITON: "triton",
    ConfigVersion.HIGH_ACCURACY_TRITON: "high_accuracy_triton",
}

_STAGED = f"{PATHS['work']}/build/submission-staging"


def run_steps(run: MLPerfRun, suite: Suite) -> list[Step]:
    """Return the steps in order: every pair is measured before the first audit, which takes as long again."""
    measured = {pair: _measurement(run, suite, pair) for pair in requested_pairs(run, suite)}
    steps = [step for own in measured.values() for step in own]
    if run.spec.audits:
        steps += [step for pair, own in measured.items() for step in _audits(run, suite, pair, own)]
    return steps


def _measurement(run: MLPerfRun, suite: Suite, pair: Pair) -> list[Step]:
    engines = _engines_step(run, suite, pair)
    return [engines, *(_harness_step(run, suite, pair, mode, engines["id"]) for mode in run.spec.test_modes)]


def _step(identity: str, argv: list[str], more: Mapping[str, Any]) -> Step:
    return {
        "id": identity,
        "action": "exec",
        "argv": argv,
        "scope": "Private",
        "digest": digest(argv),
        "continueOnFailure": True,
        **more,
    }


def _make(suite: Suite, target: str, *run_args: str) -> list[str]:
    # RUN_ARGS goes unquoted into a shell: every part is an enum's value or a suite's own name.
    return ["make", target, *suite.make_arguments, "RUN_ARGS=" + " ".join(run_args)]


def _run_args(run: MLPerfRun, pair: Pair, *more: str) -> list[str]:
    benchmark, scenario = pair
    version, power = _CONFIG_VER[run.spec.config_version], []
    if run.spec.power_setting is PowerSetting.MAX_Q:
        # Where config_ver is given, power_setting alone counts for nothing (code/common/fields.py, code/main.py).
        version = "maxq" if version == "default" else f"maxq_{version}"
        power = [f"--power_setting={run.spec.power_setting.value}"]
    arguments = [f"--benchmarks={benchmark}", f"--scenarios={scenario.value}", f"--config_ver={version}"]
    return [*arguments, *power, *more, *(["--test_run"] if run.spec.test_run else [])]


def _engines_step(run: MLPerfRun, suite: Suite, pair: Pair) -> Step:
    benchmark, scenario = pair
    folder = f"{PATHS['work']}/build/engines/**/{benchmark}/{scenario.value}"
    return _step(
        f"generate_engines-{benchmark}-{scenario.value}",
        _make(suite, "generate_engines", *_run_args(run, pair)),
        {"env": {"LOG_DIR": f"{_logs(pair)}/engines"}, "engineGlobs": [f"{folder}/{suite.engine_files}"]},
    )


def _harness_step(run: MLPerfRun, suite: Suite, pair: Pair, mode: TestMode, engines: str) -> Step:
    benchmark, scenario = pair
    log_dir = f"{_logs(pair)}/{mode.value}"
    max_q = run.spec.power_setting is PowerSetting.MAX_Q
    power = {"powerSetting": PowerSetting.MAX_Q.value} if max_q else {}
    return _step(
        f"run_harness-{benchmark}-{scenario.value}-{mode.value}",
        _make(suite, "run_harness", *_run_args(run, pair, f"--test_mode={mode.value}")),
        {
            "env": {"LOG_DIR": log_dir},
            "requires": [engines],
            "result": {**_subject(run, suite, pair), **power, "mode": mode.value, "logDir": log_dir},
        },
    )


def _logs(pair: Pair) -> str:
    return f"{PATHS['results']}/logs/{pair[0]}/{pair[1].value}"


def _subject(run: MLPerfRun, suite: Suite, pair: Pair) -> dict[str, str]:
    benchmark, scenario = pair
    variant = suite.variant(benchmark, run.spec.config_version)
    return {"benchmark": benchmark, "variant": variant, "scenario": scenario.value}


def _audits(run: MLPerfRun, suite: Suite, pair: Pair, measurement: list[Step]) -> list[Step]:
    """Return the audits of a pair, behind what puts its results where the verification looks for them."""
    measured = [step["id"] for step in measurement]
    staging = _staging_steps(run, suite, pair, measured)
    needed = [*measured, staging[-1]["id"]]
    return [*staging, *(_audit_step(run, suite, pair, test, needed) for test in run.spec.audits)]


def _staging_steps(run: MLPerfRun, suite: Suite, pair: Pair, measured: list[str]) -> list[Step]:
    """Return the steps that stage a pair's results (Makefile.submission): VALID, accurate, and of this run alone."""
    benchmark, scenario = pair
    label = f"{benchmark}-{scenario.value}"
    folder = f"{_STAGED}/closed/NVIDIA/results/*/{suite.variant(benchmark, run.spec.config_version)}/{scenario.value}"
    files = ("performance/run_1/mlperf_log_summary.txt", "accuracy/mlperf_log_accuracy.json")
    wanted = [{"glob": f"{folder}/{file}"} for file in files]
    # An INVALID or inaccurate result is not staged: a verdict, told by the audits that then have nothing to compare.
    advisory = {"always": True, "advisory": True}
    clear = _step(f"clear_staging-{label}", ["rm", "-rf", _STAGED], {"requires": measured, **advisory})
    stage = _step(
        f"stage_results-{label}",
        _make(suite, "stage_results", f"--log_dir={_logs(pair)}", "--ignore_power"),
        {"requires": [*measured, clear["id"]], "postconditions": wanted, **advisory},
    )
    return [clear, stage]


def _audit_step(run: MLPerfRun, suite: Suite, pair: Pair, test: AuditTest, needed: list[str]) -> Step:
    benchmark, scenario = pair
    audit = {
        "test": test.value,
        **_subject(run, suite, pair),
        "logDir": f"{PATHS['results']}/audits/{benchmark}/{scenario.value}/{test.value}",
        # code/actionhandler/run_audit.py writes there whatever LOG_DIR says.
        "from": f"{PATHS['work']}/build/compliance_logs/{test.value}",
    }
    return _step(
        f"audit-{test.value}-{benchmark}-{scenario.value}",
        _make(suite, f"run_audit_{test.value.lower()}", *_run_args(run, pair)),
        {"requires": needed, "audit": audit},
    )
