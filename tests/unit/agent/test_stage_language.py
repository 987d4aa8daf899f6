"""The wrapper's language: one file of standard-library Python 3.10, as NVIDIA's image has it."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mlperf_operator.agent import preflight, stage
from mlperf_operator.inputs import AGENT_FILES
from unit.agent.bench import STAGE_PY, Bench, Step, make_tree, shared, step
from unit.agent.standin_gpus import Gpus, rows

FILES = [Path(stage.__file__).with_name(name) for name in AGENT_FILES]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_syntax_is_that_of_3_10(path: Path) -> None:
    ast.parse(path.read_text(), feature_version=(3, 10))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_nothing_but_the_standard_library_is_imported(path: Path) -> None:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    beside = {"mlperf_operator", *(file.stem for file in FILES)}
    assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names | beside


def test_both_agree_on_how_their_lines_begin() -> None:
    assert (preflight.FINDING, preflight.FACTS) == (stage.FINDING, stage.FACTS)


@pytest.fixture
def python310() -> str:
    found = [shutil.which("python3.10"), *Path.home().glob(".pyenv/versions/3.10.*/bin/python3.10")]
    for path in filter(None, found):
        said = subprocess.run([str(path), "--version"], capture_output=True, check=False)
        if said.returncode == 0:
            return str(path)
    pytest.skip("there is no Python 3.10 on this machine")


def test_a_whole_run_works_with_a_real_3_10(bench: Bench, python310: str, tmp_path: Path) -> None:
    # As in the pod: the two files alone, in a folder that cannot be written, without any of our packages.
    agent = tmp_path / "agent"
    agent.mkdir()
    for path in FILES:
        shutil.copy(path, agent)
    make_tree(bench.home / "image", {"Makefile": f"download:\n\techo rows > {bench.scratch}/rows\n"})
    source = {"type": "Path", "path": str(bench.home / "image")}
    code = {"id": "code", "action": "copyTree", "scope": "Private", "digest": "c", "source": source}
    checks = {"tools": ["sh"], "volumes": [{"path": str(bench.work)}], "shmBytes": 1, "gpu": None}
    look: Step = {"id": "preflight", "action": "preflight", "scope": "Private", "digest": "p", "checks": checks}
    download = shared("download", "", f"{bench.scratch}/rows", argv=["make", "download"])
    build = shared("build", "echo built > built", publishTree=True)
    steps = [code, look, download, build, bench.engines(), bench.harness("PerformanceOnly", None, requires=["engines"])]
    for reason in ("Completed", "Skipped"):
        bench.plan(*steps, name="run")
        environment = {**bench.environment, "PATH": os.environ["PATH"]}
        argv = [python310, "-E", "-s", "-W", "error", str(agent / "stage.py"), "run"]
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert bench.told["reason"] == reason
    assert bench.record("harness-PerformanceOnly")["engines"]
    bench.plan(step("broken", "echo why; exit 3"))
    done = subprocess.run([*argv[:-1], "prepare"], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (65, "")
    assert bench.told["tail"] == "why"


def test_an_environment_is_made_and_laid_over_with_a_real_3_10(bench: Bench, python310: str, tmp_path: Path) -> None:
    agent = tmp_path / "agent"
    agent.mkdir()
    for path in FILES:
        shutil.copy(path, agent)
    make_tree(bench.work, {"install.sh": ""})
    script = f"echo new > {bench.root}/new; rm {bench.root}/old; mkdir {bench.root}/gone-no-more"
    made: Step = {
        **step("environment", script, action="snapshot", scope="Shared", inputs=[f"{bench.work}/install.sh"]),
        "store": f"{bench.scratch}/environments",
    }
    for name, one in (("prebuild", made), ("build", step("build", f"cat {bench.root}/new && ! cat {bench.root}/old"))):
        shutil.rmtree(bench.root, ignore_errors=True)
        make_tree(bench.root, {"old": "old"})
        bench.plan(one, name=name, environment=name == "build")
        environment = {**bench.environment, "PATH": os.environ["PATH"]}
        argv = [python310, "-E", "-s", "-W", "error", str(agent / "stage.py"), name]
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert bench.told["message"].startswith("environment: laid over 1 files, 1 folders and 1 deletions")


def test_gpus_are_looked_at_with_a_real_3_10(python310: str, gpus: Gpus) -> None:
    gpus.smi(rows(1))
    gpus.cuda(codes={1: 46})
    checks = {"gpu": {"product": "A100-SXM4-40GB", "count": 2, "driver": "535"}}
    argv = [python310, "-W", "error", str(preflight.__file__), json.dumps(checks)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    found = [line.partition(": ")[2] for line in done.stdout.splitlines()]
    assert found[0].startswith("the driver is 550.54.14 and the run wants 535; ")
    assert found[1] == "1 GPUs are visible and the system has 2"
    assert found[2].startswith("GPU 1: no CUDA context: error 46")
    assert json.loads(found[3])["count"] == 1


def test_the_file_is_the_one_that_a_config_map_brings() -> None:
    assert STAGE_PY.name == "stage.py"
    assert STAGE_PY.with_name("preflight.py").is_file()
