"""The plan that the operator writes, carried out by the wrapper and reported by collect."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mlperf_operator.agent import collect
from mlperf_operator.agent.wrapper import stage
from mlperf_operator.observed import ContainerRecord
from mlperf_operator.report import announced, parse_log
from mlperf_operator.resources.stage_plan import build_plan
from mlperf_operator.resources.steps import PATHS
from mlperf_operator.suites import BUILT_IN
from unit.agent.bench import Bench, make_tree
from unit.core.builders import run
from unit.results.logs import detail, summary

STAGES = ("code", "preflight", "prebuild", "download-data", "download-model", "preprocess-data", "build", "run")

MAKEFILE = """
LOGS := $(LOG_DIR)/cpu/digits-99/Offline
.PHONY: build
prebuild: ; @true
link_dirs: ; @mkdir -p build
download_data: ; @mkdir -p {scratch}/data/digits; cd {scratch}/data/digits; echo 1 > a.csv; echo 1 > b.csv
download_model: ; @mkdir -p {scratch}/models/digits; echo 1 > {scratch}/models/digits/a.onnx
preprocess_data: ; @mkdir -p {scratch}/preprocessed_data/digits; cd {scratch}/preprocessed_data/digits; \\
\tcp {scratch}/data/digits/a.csv a.npy; cp {scratch}/data/digits/b.csv b.npy
build: ; @mkdir -p build; echo built > build/manifest.json
generate_engines: ; @mkdir -p build/engines/cpu/digits/Offline; echo 1 > build/engines/cpu/digits/Offline/a.onnx
run_harness: ; @mkdir -p $(LOGS); cp logs/* $(LOGS)
"""


def _write_plan(bench: Bench) -> None:
    spec = {"benchmarks": [{"name": "digits", "scenarios": ["Offline"]}], "testModes": ["PerformanceOnly"]}
    plan = build_plan(run(spec, uid=bench.uid), BUILT_IN["reference-cpu"], "image")
    text = json.dumps(plan, sort_keys=True)
    for key, path in {**PATHS, "overrides": "/overrides", "code": "/opt/reference_harness"}.items():
        text = text.replace(f'"{path}', f'"{getattr(bench, key, bench.home / key)}')
    bench.plan_file.write_text(text)
    make_tree(bench.home / "overrides", {"Makefile.docker": "\n"})
    logs = {"logs/mlperf_log_detail.txt": detail(), "logs/mlperf_log_summary.txt": summary()}
    make_tree(bench.home / "code", {"Makefile": MAKEFILE.format(scratch=bench.scratch), **logs})


def _reasons(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    for name, value in bench.environment.items():
        monkeypatch.setenv(name, value)
    _write_plan(bench)
    found = []
    for name in STAGES:
        assert stage.main([name]) == 0, bench.told
        found.append(bench.told["reason"])
    return found


def test_a_run_ends_with_a_result_and_the_next_one_finds_everything_prepared(
    bench: Bench, other: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _reasons(bench, monkeypatch) == ["Completed"] * len(STAGES)
    prepared = ["Completed"] * 3 + ["Skipped"] * 4 + ["Completed"]
    assert _reasons(other, monkeypatch) == prepared
    capsys.readouterr()
    assert collect.main(["--once"]) == 0
    container = ContainerRecord(name="collect", state="Terminated", message=other.termination.read_text(), exit_code=0)
    report = parse_log(capsys.readouterr().out, other.uid, announced(container, other.uid))
    assert [(r.variant, r.validity, r.missing) for r in report.results] == [("digits-99", "VALID", None)]


def test_a_pod_that_was_lost_goes_on_where_it_was(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    _reasons(bench, monkeypatch)
    before = bench.record("run_harness-digits-Offline-PerformanceOnly")
    # /work was given back at the end, so only the tree has to come again; preflight always looks.
    again = ["Completed", "Completed", "Completed", "Skipped", "Skipped", "Skipped", "Skipped", "Skipped"]
    assert _reasons(bench, monkeypatch) == again
    assert bench.record("run_harness-digits-Offline-PerformanceOnly") == before
    assert Path(bench.work / "build/manifest.json").exists()
