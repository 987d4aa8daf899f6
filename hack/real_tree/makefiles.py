"""Whether the tree's own Makefiles take our Makefile.docker: `make -n` of every make call of our plans."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlperf_operator.api.v1alpha1 import PowerSetting
from mlperf_operator.resources.containers import GPU_STAGES
from mlperf_operator.suites import NVIDIA_V4_1
from real_tree import wanted
from real_tree.report import Report

GROUP = "make -n of our make calls"
_DOCKER = re.compile(r"(^|[\s;&|(])(nvidia-)?docker (run|build|pull|exec|attach|login|compose)\b")
_STANDIN = """#!/bin/sh
echo "$(basename "$0") $*" >>{calls}
case "$*" in
  *compute_cap*) echo 8.0 ;;
  *) echo "| NVIDIA-SMI 550.54.14    Driver Version: 550.54.14    CUDA Version: 12.4 |"; echo "Architecture : Ampere" ;;
esac
"""
_WATCHED = ("docker", "nvidia-docker", "nvidia-smi", "git", "wget", "curl", "pip", "apt-get", "sudo")
"""Programs that a dry run has no reason to start; some targets would, were they not dry."""

EXPECTED: Mapping[str, tuple[str, ...]] = {
    "link_dirs": ("ln -sfn /scratch/data ", "ln -sfn /scratch/preprocessed_data ", "ln -sfn /scratch/models "),
    "download_data": ("bash code/{benchmark}/tensorrt/download_data.sh",),
    "download_model": ("bash code/{benchmark}/tensorrt/download_model.sh",),
    "preprocess_data": ("-m code.{benchmark}.tensorrt.preprocess_data --data_dir=/scratch/data",),
    "build": (
        "git clone https://github.com/mlcommons/inference.git",
        "/code/harness",
        "Building loadgen",
        "/code/plugin/",
    ),
    "generate_engines": ('-m code.main {run_args} --action="generate_engines"',),
    "run_harness": ('-m code.main {run_args} --action="run_harness"', "tee {log_dir}/stdout.txt"),
    "run_audit_test01": ("-m code.main {run_args} --audit_test=TEST01", '--action="run_audit_harness"'),
    "run_audit_test05": ("-m code.main {run_args} --audit_test=TEST05", '--action="run_audit_harness"'),
}
"""What a dry run of a target must say."""


@dataclass(frozen=True)
class Call:
    """A make call of a plan, with the environment that its container gives it."""

    run: str
    stage: str
    argv: list[str]
    env: dict[str, str]
    files: Mapping[str, str]

    @property
    def target(self) -> str:
        """The make target."""
        return self.argv[1]

    def variable(self, name: str) -> str:
        """Return a variable of the command line, or nothing."""
        return next((a.removeprefix(f"{name}=") for a in self.argv if a.startswith(f"{name}=")), "")


def calls() -> Iterator[Call]:
    """Yield the make calls of runs that together have every stage, target and way of preparing."""
    suite = NVIDIA_V4_1
    ways: list[dict[str, Any]] = [
        {"audits": ["TEST01", "TEST05"]},
        {"environment": {"strategy": "Image"}, "testRun": True},
        {"environment": {"offline": True}},
    ]
    for system, version, power, entries in wanted.configurations(suite):
        parity = {"securityProfile": "HarnessParity"} if power is PowerSetting.MAX_Q else {}
        for way in ways if version is suite.config_versions[0] else [{}]:
            spec = {**parity, **way}
            objects = wanted.objects_of(wanted.run_of(suite, system, entries, **spec), suite)
            for stage, body in objects.plan["stages"].items():
                for step in body["steps"]:
                    if step.get("argv", [])[:1] == ["make"]:
                        env = {**objects.environment[stage], **body.get("env", {}), **step.get("env", {})}
                        label = f"{system} {version.value} {power.value} {spec or ''}"
                        yield Call(label, stage, step["argv"], env, objects.files)


def check(tree: Path, scratch: Path, report: Report) -> None:
    """Run every make call dry, each distinct one once, and look at what it says and starts."""
    own = (tree / "Makefile.docker").read_text()
    programs = _standins(scratch)
    seen = set()
    for call in calls():
        key = repr((call.argv, sorted(call.env.items()), call.files["Makefile.docker"]))
        if key in seen:
            continue
        seen.add(key)
        (tree / "Makefile.docker").write_text(call.files["Makefile.docker"])
        _check_call(tree, programs, call, report)
    (tree / "Makefile.docker").write_text(own)


def _standins(scratch: Path) -> Path:
    """Write programs that note that they were started, and return their folder."""
    folder = scratch / "programs"
    folder.mkdir()
    for name in _WATCHED:
        program = folder / name
        program.write_text(_STANDIN.format(calls=scratch / "programs.log"))
        program.chmod(0o755)
    return folder


def _check_call(tree: Path, programs: Path, call: Call, report: Report) -> None:
    log = programs.with_suffix(".log")
    log.write_text("")
    env = {"PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(programs.parent), **call.env}
    done = subprocess.run(
        ["make", "-n", *call.argv[1:]], cwd=tree, env=env, capture_output=True, text=True, check=False, timeout=300
    )
    said, started = done.stdout + done.stderr, dict.fromkeys(log.read_text().splitlines())
    problems = list(_problems(call, said, started)) if done.returncode == 0 else [f"make says {said.strip()[-300:]}"]
    label = f"{call.stage}: {' '.join(call.argv)} ({call.run})"
    report.expect(GROUP, label, holds=not problems, found="; ".join(problems))


def _problems(call: Call, said: str, started: Iterable[str]) -> Iterator[str]:
    if _DOCKER.search(said):
        yield "it would start a container"
    for line in started:
        # Where a GPU is visible Makefile.const asks for the driver's version and the GPU's architecture.
        if not (line.startswith("nvidia-smi") and call.stage in GPU_STAGES):
            yield f"reading the Makefiles starts {line}"
    if "Overriding" in said or "overriding recipe" in said:
        yield f"two recipes for one target: {said.strip()[:200]}"
    for text in EXPECTED.get(call.target, ()):
        wanted_text = text.format(
            benchmark=call.variable("BENCHMARKS"), run_args=call.variable("RUN_ARGS"), log_dir=call.env.get("LOG_DIR")
        )
        if wanted_text not in said:
            yield f"it would not do {wanted_text}"
