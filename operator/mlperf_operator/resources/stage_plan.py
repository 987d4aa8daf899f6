"""plan.json: what the stage wrapper and `collect` do in the run's pod, as data."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from mlperf_operator.api.v1alpha1 import BenchmarkRequest, ConfigVersion, DriverPolicy, MLPerfRun, Scenario, TestMode
from mlperf_operator.suites import MakeStep, Suite

PATHS = {"scratch": "/scratch", "work": "/work", "state": "/state", "results": "/results"}
"""Mount points, the same in every container: NVIDIA's tree bakes absolute paths into what it builds."""

OVERRIDES_PATH = "/overrides"
AGENT_PATH = "/agent"

_CONFIG_VER = {
    ConfigVersion.DEFAULT: "default",
    ConfigVersion.HIGH_ACCURACY: "high_accuracy",
    ConfigVersion.TRITON: "triton",
    ConfigVersion.HIGH_ACCURACY_TRITON: "high_accuracy_triton",
}

Pair = tuple[str, Scenario]


def requested_pairs(run: MLPerfRun, suite: Suite) -> list[Pair]:
    """Return the requested benchmark and scenario pairs in running order; no scenarios means all of the suite's."""
    return [(request.name, scenario) for request in run.spec.benchmarks for scenario in _scenarios(request, suite)]


def _scenarios(request: BenchmarkRequest, suite: Suite) -> tuple[Scenario, ...]:
    own = suite.benchmarks[request.name].scenarios
    return tuple(s for s in own if request.scenarios is None or s in request.scenarios)


def build_plan(run: MLPerfRun, suite: Suite, image: str) -> dict[str, Any]:
    """Return plan.json's content for a run that was accepted."""
    timeout = run.spec.stage_timeout_seconds
    stages: dict[str, Any] = {
        "code": {"timeoutSeconds": timeout, "steps": [_code_step(suite, image)]},
        "preflight": {"timeoutSeconds": timeout, "steps": [_preflight_step(run, suite)]},
    }
    # What a stage may read of what runs share: its lock is held, so that no other run writes there meanwhile.
    reads: list[str] = []
    for stage in suite.stages:
        steps = [step for make in stage.steps for step in _make_steps(run, suite, make, image)]
        stages[stage.name] = {"timeoutSeconds": timeout, "reads": list(reads), "steps": steps}
        reads += [step["id"] for step in steps if step["scope"] == "Shared" and not step["publishTree"]]
    stages["run"] = {"timeoutSeconds": run.spec.run_timeout_seconds, "reads": reads, "steps": _run_steps(run, suite)}
    return {
        "version": 1,
        "run": {"namespace": run.metadata.namespace, "name": run.metadata.name, "uid": run.metadata.uid},
        "paths": PATHS,
        "stages": stages,
        "expected": [
            {**step["result"], "step": step["id"]} for step in stages["run"]["steps"] if step.get("result") is not None
        ],
    }


def digest(value: object) -> str:
    """Return the sha256, in hex, of a value's canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _code_step(suite: Suite, image: str) -> dict[str, Any]:
    code = suite.code
    source = (
        {"type": "Path", "path": code.path}
        if code.path
        else {"type": "Git", "url": code.git_url, "commit": code.git_commit, "subPath": code.sub_path}
    )
    return {
        "id": "code",
        "action": "copyTree",
        "scope": "Private",
        "source": source,
        "files": {f"{OVERRIDES_PATH}/Makefile.docker": "Makefile.docker"},
        "digest": digest([suite.name, image, source]),
    }


def _preflight_step(run: MLPerfRun, suite: Suite) -> dict[str, Any]:
    volumes = [
        {"path": PATHS["scratch"], "minFreeBytes": suite.scratch_min_free_bytes},
        {"path": PATHS["work"], "minFreeBytes": 0},
        {"path": PATHS["results"], "minFreeBytes": 0},
    ]
    system = suite.systems[run.spec.system]
    gpu = None
    if suite.uses_gpu:
        driver = None if run.spec.driver.policy is DriverPolicy.IGNORE else run.spec.driver.version
        count = run.spec.gpu.count or system.gpu_count
        gpu = {"product": system.gpu_product, "count": count, "driver": driver}
    checks = {"tools": list(suite.tools), "volumes": volumes, "shmBytes": suite.shm_bytes, "gpu": gpu}
    return {"id": "preflight", "action": "preflight", "scope": "Private", "checks": checks, "digest": digest(checks)}


def _make_steps(run: MLPerfRun, suite: Suite, make: MakeStep, image: str) -> list[dict[str, Any]]:
    names = [request.name for request in run.spec.benchmarks] if make.per_benchmark else [None]
    return [_make_step(run, suite, make, image, name) for name in names]


def _make_step(run: MLPerfRun, suite: Suite, make: MakeStep, image: str, benchmark: str | None) -> dict[str, Any]:
    argv = ["make", make.target]
    if benchmark is not None:
        argv.append(f"BENCHMARKS={benchmark}")
    argv += [*suite.make_arguments, *suite.systems[run.spec.system].make_arguments]
    conditions = make.postconditions.get("*", ()) + make.postconditions.get(benchmark or "", ())
    wanted = [condition.model_dump(by_alias=True, exclude_none=True) for condition in conditions]
    return {
        "id": f"{make.target}-{benchmark}" if benchmark else make.target,
        "action": "exec",
        "argv": argv,
        "scope": make.scope,
        "digest": digest([suite.name, image, argv, wanted]),
        "postconditions": wanted,
        "removeOnFailure": [c["glob"] for c in wanted],
        "retries": make.retries,
        "publishTree": make.publish_tree,
    }


def _run_steps(run: MLPerfRun, suite: Suite) -> list[dict[str, Any]]:
    steps = []
    for benchmark, scenario in requested_pairs(run, suite):
        engines = _engines_step(run, suite, benchmark, scenario)
        steps.append(engines)
        steps += [_harness_step(run, suite, (benchmark, scenario), mode, engines["id"]) for mode in run.spec.test_modes]
    return steps


def _run_args(run: MLPerfRun, benchmark: str, scenario: Scenario, *more: str) -> str:
    # RUN_ARGS goes unquoted into a shell: every part is an enum's value or a suite's own benchmark name.
    arguments = [
        f"--benchmarks={benchmark}",
        f"--scenarios={scenario.value}",
        f"--config_ver={_CONFIG_VER[run.spec.config_version]}",
        *more,
    ]
    if run.spec.test_run:
        arguments.append("--test_run")
    return "RUN_ARGS=" + " ".join(arguments)


def _engines_step(run: MLPerfRun, suite: Suite, benchmark: str, scenario: Scenario) -> dict[str, Any]:
    argv = ["make", "generate_engines", *suite.make_arguments, _run_args(run, benchmark, scenario)]
    return {
        "id": f"generate_engines-{benchmark}-{scenario.value}",
        "action": "exec",
        "argv": argv,
        "env": {"LOG_DIR": f"{PATHS['results']}/logs/{benchmark}/{scenario.value}/engines"},
        "scope": "Private",
        "digest": digest(argv),
        "continueOnFailure": True,
        "engineGlobs": [f"{PATHS['work']}/build/engines/**/{benchmark}/{scenario.value}/*"],
    }


def _harness_step(run: MLPerfRun, suite: Suite, pair: Pair, mode: TestMode, engines: str) -> dict[str, Any]:
    benchmark, scenario = pair
    log_dir = f"{PATHS['results']}/logs/{benchmark}/{scenario.value}/{mode.value}"
    run_args = _run_args(run, benchmark, scenario, f"--test_mode={mode.value}")
    argv = ["make", "run_harness", *suite.make_arguments, run_args]
    return {
        "id": f"run_harness-{benchmark}-{scenario.value}-{mode.value}",
        "action": "exec",
        "argv": argv,
        "env": {"LOG_DIR": log_dir},
        "scope": "Private",
        "digest": digest(argv),
        "continueOnFailure": True,
        "requires": [engines],
        "result": {
            "benchmark": benchmark,
            "variant": suite.variant(benchmark, run.spec.config_version),
            "scenario": scenario.value,
            "mode": mode.value,
            "logDir": log_dir,
        },
    }
