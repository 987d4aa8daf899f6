"""The stand-in tree on this machine: a copy of it, a scratch, and make."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlperf_operator.api.v1alpha1 import ConfigOverride
from mlperf_operator.resources.overrides import override_files
from mlperf_operator.suites import BUILT_IN
from nvidia_tree import parts
from unit.core.builders import run

SUITE = BUILT_IN["nvidia-v4.1"]
SYSTEM = "A100_SXM4_40GBx8"
SHORT: tuple[tuple[str, str, str, int], ...] = (
    ("bert", "Offline", "min_duration", 200),
    ("bert", "Server", "min_duration", 200),
    ("bert", "Server", "server_target_qps", 2000),
    ("bert", "SingleStream", "min_duration", 200),
    ("3d-unet", "Offline", "min_duration", 200),
    ("3d-unet", "Offline", "offline_expected_qps", 200),
    ("3d-unet", "SingleStream", "min_duration", 200),
    ("3d-unet", "SingleStream", "single_stream_expected_latency_ns", 2_000_000),
)
"""Overrides with which a measurement takes less than a second."""


def overrides() -> list[dict[str, Any]]:
    """Return them as a run's spec has them."""
    names = ("benchmark", "scenario", "field", "value")
    return [dict(zip(names, item, strict=True)) for item in SHORT]


def rendered(**spec: Any) -> dict[str, str]:
    """Return the override files of a run, as its ConfigMap carries them."""
    own = {"suite": SUITE.name, "system": SYSTEM, "scratch": {"claimName": "scratch"}, **spec}
    for override in own.get("gpuConfig", {}).get("overrides", []):
        ConfigOverride.model_validate(override)
    return override_files(run(own), SUITE)


def write(folder: Path, files: Mapping[str, str]) -> Path:
    """Write files by their paths."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


class Bench:
    """A run's work tree; what `prebuild` would install is there from the start."""

    def __init__(self, root: Path, shared: Path) -> None:
        """`shared` has what no test changes: downloads, git repositories, wheels, programs."""
        self.shared, self.scratch, self.work = shared, root / "scratch", root / "work"
        self.logs, self.overrides = root / "logs", root / "overrides"
        self.scratch.mkdir()
        parts.copy_tree(self.work)
        self.render()
        self.faults = ""

    def render(self, **spec: Any) -> None:
        """Write the override files of a run of everything."""
        spec = {"benchmarks": [{"name": "bert"}, {"name": "3d-unet"}], "gpuConfig": {"overrides": overrides()}} | spec
        write(self.overrides, rendered(**spec))

    @property
    def environment(self) -> dict[str, str]:
        git = [("protocol.file.allow", "always")]
        git += [(f"url.file://{self.shared}/git/{name}.git.insteadOf", url) for url, name in parts.URLS.items()]
        keys = {f"GIT_CONFIG_KEY_{number}": key for number, (key, _) in enumerate(git)}
        values = {f"GIT_CONFIG_VALUE_{number}": value for number, (_, value) in enumerate(git)}
        return {
            **{k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")},
            **keys,
            **values,
            "GIT_CONFIG_COUNT": str(len(git)),
            "PATH": f"{self.shared}/bin:{parts.HERE}/image:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": f"{self.shared}/modules",
            "PYTHONDONTWRITEBYTECODE": "1",
            "MLPERF_SCRATCH_PATH": str(self.scratch),
            "MLPINF_CUSTOM_DEFINITION_PATH": str(self.overrides),
            "LOG_DIR": str(self.logs),
            "STANDIN_DOWNLOADS": f"{self.shared}/downloads",
            "STANDIN_FAULTS": f"environment=unchecked {self.faults}",
            "EXTERNAL_USER": "1",
        }

    def make(self, target: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a make target as a stage does, and return how it ended and what it said."""
        argv = ["make", target, "ARCH=x86_64", *arguments]
        env = {**self.environment, **environment}
        pipe = subprocess.PIPE
        return subprocess.run(
            argv, cwd=self.work, env=env, stdout=pipe, stderr=subprocess.STDOUT, text=True, check=False
        )

    def pair(
        self, action: str, pair: str, mode: str = "PerformanceOnly", **more: str
    ) -> subprocess.CompletedProcess[str]:
        """Run an action for a pair such as bert/Offline."""
        benchmark, scenario = pair.split("/")
        words = {"benchmarks": benchmark, "scenarios": scenario, "config_ver": "default", "test_mode": mode, **more}
        return self.make(action, "RUN_ARGS=" + " ".join(f"--{key}={value}" for key, value in words.items()))

    def measure(self, pair: str, mode: str = "PerformanceOnly", **more: str) -> subprocess.CompletedProcess[str]:
        """Build a pair's engine and measure it."""
        built = self.pair("generate_engines", pair, mode, **more)
        assert built.returncode == 0, built.stdout
        return self.pair("run_harness", pair, mode, **more)

    def folder(self, pair: str, variant: str = "99") -> Path:
        """Where a pair's logs are."""
        benchmark, scenario = pair.split("/")
        return self.logs / "DGX-A100_A100-SXM4-40GBx8_TRT" / f"{benchmark}-{variant}" / scenario

    def metadata(self, pair: str, variant: str = "99") -> dict[str, Any]:
        return dict(json.loads((self.folder(pair, variant) / "metadata.json").read_text()))

    def prepare(self) -> None:
        """Put models and a built harness where they would be."""
        for path, content in parts.downloads().items():
            if path.startswith("models/"):
                (self.scratch / path).parent.mkdir(parents=True, exist_ok=True)
                (self.scratch / path).write_bytes(content)
        built = self.make("build")
        assert built.returncode == 0, built.stdout
