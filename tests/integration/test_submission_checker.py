"""Official logs as one of our runs' folders, bundled, before MLCommons' own submission checker.

Opt-in, because neither belongs to this repository: MLPERF_SUBMISSION_CHECKER names submission_checker.py of
mlcommons/inference at v4.1, MLPERF_SUBMISSION a submitter's folder of mlcommons/inference_results_v4.1 (closed/NVIDIA).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mlperf_operator.cli import app
from unit.bundle.run_folders import official

pytestmark = pytest.mark.integration

SYSTEM, VARIANT = "H200-SXM-141GBx8_TRT", "bert-99"


def named(variable: str) -> Path:
    if variable not in os.environ:
        pytest.skip(f"{variable} is not set: make test-checker CHECKER=... SUBMISSION=...")
    return Path(os.environ[variable]).resolve()


def checked(bundle: Path) -> str:
    checker = named("MLPERF_SUBMISSION_CHECKER")
    argv = [sys.executable, str(checker), "--input", str(bundle), "--version", "v4.1", "--csv", f"{bundle}.csv"]
    return subprocess.run(argv, cwd=checker.parent, capture_output=True, text=True, check=False).stderr


def bundled(run: Path, output: Path, system_json: Path) -> str:
    options = ["--submitter", "Contoso", "--output", str(output), "--system-json", str(system_json)]
    done = CliRunner().invoke(app, ["bundle", str(run), *options])
    assert done.exit_code == 0, done.output
    return done.output


def test_the_official_checker_accepts_a_bundle_of_official_logs(tmp_path: Path) -> None:
    tree = named("MLPERF_SUBMISSION")
    run = official(tmp_path / "run", tree, SYSTEM, VARIANT, ["Offline", "Server"])
    said = bundled(run, tmp_path / "submission", tree / "systems" / f"{SYSTEM}.json")
    assert "to do" not in said
    found = checked(tmp_path / "submission")
    assert "SUMMARY: submission looks OK" in found
    assert "Results=2, NoResults=0" in found


def test_what_we_say_is_lacking_the_official_checker_misses_too(tmp_path: Path) -> None:
    tree = named("MLPERF_SUBMISSION")
    run = official(tmp_path / "run", tree, SYSTEM, VARIANT, ["Offline"])
    (empty := tmp_path / "system.json").write_text('{"cooling": "Air-cooled"}')
    said = bundled(run, tmp_path / "submission", empty)
    assert "a closed datacenter submission needs scenario Server too" in said
    assert f"systems/{SYSTEM}.json: host_networking must say something" in said
    found = checked(tmp_path / "submission")
    assert "field host_networking requires a meaningful response" in found
    assert "field cooling" not in found
    assert "SUMMARY: submission has errors" in found
