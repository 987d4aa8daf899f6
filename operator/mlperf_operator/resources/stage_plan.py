"""plan.json: what the stage wrapper and `collect` do in the run's pod, as data."""

from __future__ import annotations

from typing import Any

from mlperf_operator.api.v1alpha1 import DriverPolicy, EnvironmentStrategy, MLPerfRun, PowerSetting
from mlperf_operator.resources import fetching
from mlperf_operator.resources.run_steps import run_steps
from mlperf_operator.resources.steps import (
    CODE_PATH,
    OVERRIDES_PATH,
    PATHS,
    Step,
    digest,
)
from mlperf_operator.resources.volumes import run_folder
from mlperf_operator.suites import MakeStep, Prebuild, Suite

ENVIRONMENTS_PATH = f"{PATHS['scratch']}/.mlperf/environments"
"""Where the wrapper keeps what prebuild installed."""

_KEPT = ("data", "models", "preprocessed_data", ".mlperf/environments", ".mlperf/trees")
"""Folders of scratch that runs share and keep: NVIDIA's own (Makefile.const) and stage.py's."""

_PREBUILD = "prebuild"
_PREBUILD_FILE = "Makefile.docker"
"""The tree's file with the target prebuild, which the rendered one replaces."""


def build_plan(run: MLPerfRun, suite: Suite, image: str) -> dict[str, Any]:
    """Return plan.json's content for a run that was accepted."""
    stages = _stages(run, suite, image)
    steps = stages["run"]["steps"]
    return {
        "version": 1,
        "run": {"namespace": run.metadata.namespace, "name": run.metadata.name, "uid": run.metadata.uid},
        "paths": PATHS,
        "stages": stages,
        "expected": [{**step["result"], "step": step["id"]} for step in steps if "result" in step],
        "expectedAudits": [{**step["audit"], "step": step["id"]} for step in steps if "audit" in step],
        **_upload(run),
    }


def _stages(run: MLPerfRun, suite: Suite, image: str) -> dict[str, Any]:
    timeout, env = run.spec.stage_timeout_seconds, fetching.environment(run)
    stages: dict[str, Any] = {
        "code": {"timeoutSeconds": timeout, "env": env, "steps": [_code_step(run, suite, image)]},
        "preflight": {"timeoutSeconds": timeout, "steps": [_preflight_step(run, suite)]},
    }
    # What a stage may read of what runs share: its lock is held, so that no other run writes there meanwhile.
    reads: list[str] = []
    laid = {"environment": True} if _has_snapshot(run, suite) else {}
    for stage in suite.stages:
        steps = [step for make in stage.steps for step in _make_steps(run, suite, make, image)]
        own = {} if stage.name == _PREBUILD else laid
        stages[stage.name] = {"timeoutSeconds": timeout, "env": env, **own, "reads": list(reads), "steps": steps}
        reads += [s["id"] for s in steps if s["scope"] == "Shared" and s["action"] == "exec" and not s["publishTree"]]
    stages["run"] = {
        "timeoutSeconds": run.spec.run_timeout_seconds,
        "env": env,
        **laid,
        "reads": reads,
        "steps": run_steps(run, suite),
    }
    return stages


def _has_snapshot(run: MLPerfRun, suite: Suite) -> bool:
    return suite.prebuild is not None and run.spec.environment.strategy is EnvironmentStrategy.SNAPSHOT


def _upload(run: MLPerfRun) -> dict[str, Any]:
    if run.spec.upload is None:
        return {}
    store = run.spec.upload.s3
    return {
        "upload": {
            "endpoint": store.endpoint,
            "bucket": store.bucket,
            "prefix": store.prefix,
            "region": store.region,
            "path": run_folder(run),
        }
    }


def _code_step(run: MLPerfRun, suite: Suite, image: str) -> Step:
    source, image = _code_source(run, suite), (run.spec.code and run.spec.code.image) or image
    return {
        "id": "code",
        "action": "copyTree",
        "scope": "Private",
        "source": source,
        "files": {f"{OVERRIDES_PATH}/{_PREBUILD_FILE}": _PREBUILD_FILE},
        "digest": digest([suite.name, image, source]),
    }


def _code_source(run: MLPerfRun, suite: Suite) -> dict[str, Any]:
    code, own = suite.code, run.spec.code
    if own is not None:
        base = CODE_PATH if own.claim_name else ""
        return {"type": "Path", "path": base + own.path, "subPath": code.sub_path}
    if code.path is not None:
        return {"type": "Path", "path": code.path}
    return {"type": "Git", "url": code.git_url, "commit": code.git_commit, "subPath": code.sub_path}


def _preflight_step(run: MLPerfRun, suite: Suite) -> Step:
    volumes = [
        {"path": PATHS["scratch"], "minFreeBytes": suite.scratch_min_free_bytes, "holds": list(_KEPT)},
        {"path": PATHS["work"], "minFreeBytes": 0},
        {"path": PATHS["results"], "minFreeBytes": 0},
    ]
    system = suite.systems[run.spec.system]
    gpu = None
    if suite.uses_gpu:
        driver = None if run.spec.driver.policy is DriverPolicy.IGNORE else run.spec.driver.version
        count = run.spec.gpu.count or system.gpu_count
        gpu = {"product": system.gpu_product, "count": count, "driver": driver}
    checks = {"tools": _tools(run, suite), "volumes": volumes, "shmBytes": suite.shm_bytes, "gpu": gpu}
    offline = fetching.offline_checks(run, suite)
    if offline is not None:
        checks["offline"] = offline
    return {"id": "preflight", "action": "preflight", "scope": "Private", "checks": checks, "digest": digest(checks)}


def _tools(run: MLPerfRun, suite: Suite) -> list[str]:
    """Return the programs that the image must have before anything is installed into it."""
    brought = suite.prebuild.programs if suite.prebuild is not None and _has_snapshot(run, suite) else ()
    # nvidia-smi sets a power limit by sudo (code/common/power_limit.py).
    more = ["sudo"] if run.spec.power_setting is PowerSetting.MAX_Q else []
    return [tool for tool in suite.tools if tool not in brought] + more


def _make_steps(run: MLPerfRun, suite: Suite, make: MakeStep, image: str) -> list[Step]:
    if make.target == _PREBUILD and suite.prebuild is not None:
        return [_environment_step(run, suite, suite.prebuild, image)]
    names = [request.name for request in run.spec.benchmarks] if make.per_benchmark else [None]
    return [_make_step(run, suite, make, image, name) for name in names]


def _make_arguments(run: MLPerfRun, suite: Suite) -> list[str]:
    return [*suite.make_arguments, *suite.systems[run.spec.system].make_arguments]


def _environment_step(run: MLPerfRun, suite: Suite, prebuild: Prebuild, image: str) -> Step:
    """Return the step that installs what prebuild brings and keeps it, or verifies that the image has it."""
    argv = ["make", _PREBUILD, *_make_arguments(run, suite)]
    identity = digest([image, argv, prebuild.model_dump(mode="json")])
    if not _has_snapshot(run, suite):
        return {
            "id": _PREBUILD,
            "action": "exec",
            "argv": argv,
            "env": {"MLPERF_PREBUILD": "verify"},
            "scope": "Private",
            "digest": identity,
            "publishTree": False,
            # It says something of this very container's image.
            "always": True,
        }
    folder = f"{PATHS['work']}/{prebuild.folder}"
    return {
        "id": "environment",
        "action": "snapshot",
        "argv": argv,
        "env": {"MLPERF_PREBUILD": "install"},
        "scope": "Shared",
        "digest": identity,
        "inputs": [
            f"{PATHS['work']}/{_PREBUILD_FILE}",
            *(f"{folder}/{name}" for name in (*prebuild.scripts, *prebuild.files)),
        ],
        "store": ENVIRONMENTS_PATH,
    }


def _make_step(run: MLPerfRun, suite: Suite, make: MakeStep, image: str, benchmark: str | None) -> Step:
    argv = ["make", make.target]
    if benchmark is not None:
        argv.append(f"BENCHMARKS={benchmark}")
    argv += _make_arguments(run, suite)
    conditions = make.postconditions.get("*", ()) + make.postconditions.get(benchmark or "", ())
    wanted = [condition.model_dump(by_alias=True, exclude_defaults=True) for condition in conditions]
    # What is built depends on what it was built with, which the strategy says beside the image.
    built_with = [run.spec.environment.strategy.value] if make.publish_tree and suite.prebuild is not None else []
    looks = make.fetches and run.spec.environment.offline
    step = {
        "id": f"{make.target}-{benchmark}" if benchmark else make.target,
        "action": "exec",
        "argv": [] if looks else argv,
        "scope": make.scope,
        "digest": digest([suite.name, image, argv, wanted, *built_with]),
        "postconditions": wanted,
        "removeOnFailure": [] if looks else list(dict.fromkeys(c["glob"].replace("{}", "*") for c in wanted)),
        "retries": 0 if looks else make.retries,
        "publishTree": make.publish_tree,
    }
    return step | ({"always": True} if make.always else {})
