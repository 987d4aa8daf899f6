"""A private copy of the reference harness, driven by make as the operator drives it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).resolve().parents[3] / "reference_harness"
PREPARATION = ("prebuild", "link_dirs", "download_data", "download_model", "preprocess_data", "build")
SYSTEM = "CPU_REFERENCE_ORT"

CUSTOM = """
from importlib import import_module
from configs.configuration import *
from code.common.constants import Benchmark, Scenario
from code.common.systems.system_list import KnownSystem

GPUBaseConfig = import_module("configs.digits").GPUBaseConfig

@ConfigRegistry.register(HarnessType.Custom, AccuracyTarget.{target}, PowerSetting.MaxP)
class CPU_REFERENCE(GPUBaseConfig):
    scenario = Scenario.{scenario}
    system = KnownSystem.CPU_REFERENCE
{values}
"""


@dataclass
class Bench:
    """One tree with its scratch, home and environment."""

    root: Path
    scratch: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def tree(self) -> Path:
        return self.root / "tree"

    @property
    def home(self) -> Path:
        return self.root / "home"

    def copy_tree(self) -> None:
        shutil.copytree(SOURCE, self.tree, ignore=shutil.ignore_patterns("__pycache__", "build"))
        self.home.mkdir()

    def make(self, target: str, *arguments: str, prefix: str = "") -> subprocess.CompletedProcess[str]:
        """Run one target through a login-free shell; `prefix` is put before make, such as a ulimit."""
        environment = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.home),
            "PYTHON": sys.executable,
            "MLPERF_SCRATCH_PATH": str(self.scratch),
            "LOG_DIR": str(self.root / "logs"),
        } | self.environment
        return subprocess.run(
            ["bash", "-c", f'{prefix} exec make -C "$0" "$@"', str(self.tree), target, *arguments],
            env={name: value for name, value in environment.items() if value},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    def prepare(self) -> None:
        for target in PREPARATION:
            done = self.make(target, "BENCHMARKS=digits")
            assert done.returncode == 0, done.stdout

    def run(self, scenario: str, *options: str, target: str = "run") -> subprocess.CompletedProcess[str]:
        words = ["--benchmarks=digits", f"--scenarios={scenario}", *options]
        return self.make(target, f"RUN_ARGS={' '.join(words)}")

    def override(self, scenario: str, values: Mapping[str, object] | str, target: str = "k_99") -> None:
        """Write an override folder and point the environment to it."""
        folder = self.root / "overrides"
        custom = folder / "custom_configs" / "digits" / scenario / "custom.py"
        custom.parent.mkdir(parents=True, exist_ok=True)
        body = values if isinstance(values, str) else "\n".join(f"    {name} = {v!r}" for name, v in values.items())
        custom.write_text(CUSTOM.format(scenario=scenario, target=target, values=body))
        systems = folder / "custom_systems" / "custom_list.py"
        systems.parent.mkdir(exist_ok=True)
        systems.write_text("custom_systems = {}\n")
        self.environment["MLPINF_CUSTOM_DEFINITION_PATH"] = str(folder)

    def results(self, scenario: str, variant: str = "digits-99") -> Path:
        return self.root / "logs" / SYSTEM / variant / scenario

    def metadata(self, scenario: str, variant: str = "digits-99") -> dict[str, Any]:
        content = json.loads((self.results(scenario, variant) / "metadata.json").read_text())
        assert isinstance(content, dict)
        return content

    def detail(self, scenario: str) -> dict[str, Any]:
        lines = (self.results(scenario) / "mlperf_log_detail.txt").read_text().splitlines()
        entries = [json.loads(line.removeprefix(":::MLLOG ")) for line in lines]
        return {entry["key"]: entry["value"] for entry in reversed(entries)}

    def engines(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (self.tree / "build" / "engines").rglob("*.onnx")}
