"""Runs' folders as the wrapper leaves them, reported and closed by collect's own code."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from mlperf_operator.agent.collect import Collector
from unit.results.logs import FOOTER, detail, metadata, summary, write

PERFORMANCE, ACCURACY = "PerformanceOnly", "AccuracyOnly"
SYSTEM = "DGX-A100_A100-SXM4-40GBx8_TRT"
NODE = {
    "kernel": "5.15.0-1060-azure",
    "imageOs": "Ubuntu 22.04.4 LTS",
    "product": "Microsoft Corporation Virtual Machine",
    "cpu": {"model": "AMD EPYC 7V12 64-Core Processor", "sockets": 2, "coresPerSocket": 48, "threads": 96},
    "memoryBytes": 946 * 2**30,
    "versions": {"CUDA_VERSION": "12.4.1", "CUDNN_VERSION": "8.9.7", "TRT_VERSION": "10.2.0"},
    "gpus": [
        {
            "name": "NVIDIA A100-SXM4-40GB",
            "memory.total": "40960",
            "driver_version": "550.54.14",
            "clocks.max.sm": "1410",
            "pcie.link.gen.max": "4",
            "pcie.link.width.max": "16",
        }
    ]
    * 8,
}
SOURCE = {"type": "Git", "url": "https://example.org/tree", "commit": "1" * 40, "subPath": "closed/NVIDIA"}


class RunMaker:
    """Fills one run's folder, then closes it."""

    def __init__(self, root: Path, uid: str = "11111111-2222", system: str = SYSTEM) -> None:
        self.root, self.uid, self.system = root, uid, system
        self.steps: list[dict[str, Any]] = []
        self.audits: list[dict[str, Any]] = []
        self.run_args = ""

    def pair_folder(self, scenario: str, mode: str, variant: str = "bert-99") -> Path:
        return self.root / "logs" / "bert" / scenario / mode / self.system / variant / scenario

    def step(self, scenario: str, mode: str, variant: str = "bert-99", **record: Any) -> None:
        """Note that a step was done."""
        log_dir = str(self.root / "logs" / "bert" / scenario / mode)
        result = {"benchmark": "bert", "variant": variant, "scenario": scenario, "mode": mode, "logDir": log_dir}
        name = f"run_harness-bert-{scenario}-{mode}"
        run_args = f"RUN_ARGS=--benchmarks=bert --scenarios={scenario} --test_mode={mode}{self.run_args}"
        self.steps.append({"id": name, "argv": ["make", "run_harness", run_args], "result": result})
        engines = {"bert.plan": "1" * 64}
        entry = {"uid": self.uid, "reason": "Completed", "engines": engines, **result, "step": name, **record}
        write(self.root / "steps", {f"{name}.json": json.dumps(entry)})

    def pair(self, scenario: str = "Offline", f1: float = 90.4, **logged: Any) -> None:
        """Write a pair's logs, a good result's unless something else is said."""
        performance, accuracy = (self.pair_folder(scenario, mode) for mode in (PERFORMANCE, ACCURACY))
        log = {"result_samples_per_second": 27500.0, **logged}
        files = {"mlperf_log_detail.txt": detail(scenario, **log), "mlperf_log_summary.txt": summary(scenario=scenario)}
        if logged.get("result_validity") == "INVALID":
            files["mlperf_log_summary.txt"] = summary(scenario=scenario, verdict="INVALID")
        write(performance, {**files, "metadata.json": metadata(scenario=scenario, tensorrt_version="10.2.0", **logged)})
        nothing = {"result_validity": None, "early_stopping_met": None, "result_min_duration_met": None}
        files = {
            "mlperf_log_detail.txt": detail(scenario, effective_test_mode=ACCURACY, **nothing),
            "mlperf_log_summary.txt": FOOTER,
            "accuracy.txt": json.dumps({"exact_match": 83.0, "f1": f1}),
            "mlperf_log_accuracy.json": "[\n" + "0123456789abcdef" * 1000 + "\n]",
        }
        write(accuracy, dict(files))
        for mode in (PERFORMANCE, ACCURACY):
            self.step(scenario, mode)
        self.measurements(scenario)

    def measurements(self, scenario: str, variant: str = "bert-99", origin: Path | None = None) -> None:
        """Leave what the harness tells LoadGen, made up or copied."""
        target = self.root / "config" / "measurements" / PERFORMANCE / self.system / variant / scenario
        if origin is not None:
            shutil.copytree(origin, target)
            return
        how = dict.fromkeys(("input_data_types", "weight_data_types"), "int8")
        more = {"retraining": "No", "starting_weights_filename": "bert.onnx", "weight_transformations": "quantization"}
        files: dict[str, str | bytes] = {
            "user.conf": f"*.{scenario}.target_qps = 30000\n",
            "mlperf.conf": "*.*.mode = 2\n",
            "README.md": "see closed/NVIDIA/README.md",
            f"{self.system}_{scenario}.json": json.dumps({**how, **more}),
        }
        write(target, files)

    def close(self, node: dict[str, Any] | None = None, source: dict[str, Any] | None = None) -> Path:
        """Write plan and node, let collect report, and return the folder."""
        overrides = {"custom_configs/bert/Offline/custom.py": "offline_expected_qps = 30000\n"}
        for name, content in overrides.items():
            write((self.root / "config" / "overrides" / name).parent, {"custom.py": content})
        plan = {
            "run": {"namespace": "bench", "name": self.root.name, "uid": self.uid},
            "paths": {"results": str(self.root)},
            "stages": {"code": {"steps": [{"id": "code", "source": source or SOURCE}]}, "run": {"steps": self.steps}},
            "expected": [{**step["result"], "step": step["id"]} for step in self.steps],
            "expectedAudits": self.audits,
        }
        write(self.root / "config", {"plan.json": json.dumps(plan)})
        write(self.root, {"node.json": json.dumps(NODE if node is None else node)})
        os.environ["MLPERF_TERMINATION_LOG"] = str(self.root.with_name(f"{self.root.name}.termination"))
        Collector(plan).finish()
        return self.root


def official(root: Path, tree: Path, system: str, variant: str, scenarios: list[str]) -> Path:
    """Return a run's folder with the logs of an official submission; `tree` is that of its submitter."""
    made = RunMaker(root, system=system)
    for scenario in scenarios:
        place = f"{system}/{variant}/{scenario}"
        shutil.copytree(
            tree / "results" / place / "performance/run_1", made.pair_folder(scenario, PERFORMANCE, variant)
        )
        shutil.copytree(tree / "results" / place / "accuracy", made.pair_folder(scenario, ACCURACY, variant))
        for mode in (PERFORMANCE, ACCURACY):
            made.step(scenario, mode, variant)
        made.measurements(scenario, variant, tree / "measurements" / place)
        for origin in sorted((tree / "compliance" / place).iterdir()):
            made.audits.append(audit(made, origin, variant, scenario))
    return made.close()


def audit(made: RunMaker, origin: Path, variant: str, scenario: str) -> dict[str, Any]:
    """Lay out a compliance test that passed, with the files in `origin`, and return its entry of the plan."""
    log_dir = made.root / "audits" / "bert" / scenario / origin.name
    target = log_dir / made.system / variant / scenario
    shutil.copytree(origin, target / origin.name)
    entry = {"test": origin.name, "benchmark": "bert", "variant": variant, "scenario": scenario, "logDir": str(log_dir)}
    step = f"audit-{origin.name}-bert-{scenario}"
    content = {"audit_test": origin.name, "audit_success": True, "benchmark_full": variant, "scenario": scenario}
    write(target, {"metadata.json": json.dumps(content)})
    record = {"uid": made.uid, "reason": "Completed", "engines": {"bert.plan": "1" * 64}, **entry, "step": step}
    write(made.root / "steps", {f"{step}.json": json.dumps(record)})
    return {**entry, "step": step}
