"""The wrapper's language: files of standard-library Python 3.10 in one folder, as NVIDIA's image has it."""

from __future__ import annotations

import ast
import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mlperf_operator.agent.wrapper import preflight
from mlperf_operator.agent.wrapper.state import ACTIONS
from mlperf_operator.inputs import read_agent_files
from unit.agent.bench import STAGE_PY, Bench, Step, make_tree, shared, step
from unit.agent.standin_gpus import Gpus, rows

FILES = [STAGE_PY.with_name(name) for name in read_agent_files()]
WRAPPER = "mlperf_operator.agent.wrapper"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_syntax_is_that_of_3_10(path: Path) -> None:
    ast.parse(path.read_text(), feature_version=(3, 10))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_nothing_but_the_standard_library_is_imported(path: Path) -> None:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            module = "." * node.level + str(node.module)
            names |= {f"{WRAPPER}.{alias.name}" for alias in node.names} if module == WRAPPER else {module}
    beside = {"as_package", *(f"{WRAPPER}.{file.stem}" for file in FILES)}
    assert {name for name in names if name.partition(".")[0] not in sys.stdlib_module_names} <= beside


def test_no_file_hides_a_module_of_the_standard_library() -> None:
    # The folder comes first where Python looks for modules.
    assert {path.stem for path in FILES}.isdisjoint(sys.stdlib_module_names)


def test_the_files_fit_in_a_config_map_together() -> None:
    # The API server takes 1 MiB; plan.json and git's configuration need some of it.
    assert sum(path.stat().st_size for path in FILES) < 512 * 1024


def _python310() -> str:
    found = [shutil.which("python3.10"), *Path.home().glob(".pyenv/versions/3.10.*/bin/python3.10")]
    for path in filter(None, found):
        said = subprocess.run([str(path), "--version"], capture_output=True, check=False)
        if said.returncode == 0:
            return str(path)
    pytest.skip("there is no Python 3.10 on this machine")


@pytest.fixture
def python310() -> str:
    return _python310()


@pytest.fixture(params=["3.10", "this one"])
def python(request: pytest.FixtureRequest) -> str:
    return _python310() if request.param == "3.10" else sys.executable


@pytest.fixture
def agent(tmp_path: Path) -> Path:
    """Return a folder as in the pod: the wrapper's files side by side, with nothing of the package around them."""
    folder = tmp_path / "agent"
    folder.mkdir()
    for path in FILES:
        shutil.copy(path, folder)
    return folder


def test_a_stage_with_every_kind_of_step_works_beside_its_files(bench: Bench, python: str, agent: Path) -> None:
    make_tree(bench.home / "image", {"Makefile": f"download:\n\techo rows > {bench.scratch}/rows\n", "install.sh": ""})
    make_tree(bench.root, {"old": "old"})
    source = {"type": "Path", "path": str(bench.home / "image")}
    code = {"id": "code", "action": "copyTree", "scope": "Private", "digest": "c", "source": source}
    checks = {"tools": ["sh"], "volumes": [{"path": str(bench.work)}], "shmBytes": 1, "gpu": None}
    look: Step = {"id": "preflight", "action": "preflight", "scope": "Private", "digest": "p", "checks": checks}
    inputs, store = [f"{bench.work}/install.sh"], f"{bench.scratch}/environments"
    install = step("install", f"rm {bench.root}/old", action="snapshot", scope="Shared", inputs=inputs, store=store)
    download = shared("download", "", f"{bench.scratch}/rows", argv=["make", "download"])
    build = shared("build", "echo built > built", publishTree=True)
    harness = bench.harness("PerformanceOnly", None, requires=["engines"])
    audited = {"test": "TEST01", "logDir": f"{bench.results}/audits", "from": f"{bench.work}/compliance"}
    audit = step("audit", "mkdir compliance; echo PASS > compliance/verify_performance.txt", audit=audited)
    steps = [code, look, install, download, build, bench.engines(), harness, audit]
    assert {one["action"] for one in steps} == set(ACTIONS)
    for reason in ("Completed", "Skipped"):
        bench.plan(*steps, name="run")
        environment = {**bench.environment, "PATH": os.environ["PATH"]}
        argv = [python, "-E", "-s", "-W", "error", str(agent / "stage.py"), "run"]
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert bench.told["reason"] == reason
    assert bench.record("harness-PerformanceOnly")["engines"]
    assert bench.record("audit")["reason"] == "Completed"
    bench.plan(step("broken", "echo why; exit 3"))
    done = subprocess.run([*argv[:-1], "prepare"], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (65, "")
    assert bench.told["tail"] == "why"


def test_a_package_of_the_same_name_in_the_image_does_not_count(bench: Bench, agent: Path, tmp_path: Path) -> None:
    other = make_tree(tmp_path / "image", {"mlperf_operator/__init__.py": "raise ImportError('another version')\n"})
    bench.plan(step("one"))
    environment = {**bench.environment, "PATH": os.environ["PATH"], "PYTHONPATH": str(other)}
    argv = [sys.executable, str(agent / "stage.py"), "prepare"]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_only_the_folder_itself_takes_the_packages_place(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("mlperf_operator", "mlperf_operator.agent", "mlperf_operator.agent.wrapper")
    for name in names:
        monkeypatch.setitem(sys.modules, name, sys.modules[name])
    runpy.run_path(str(STAGE_PY.with_name("as_package.py")), run_name=f"{WRAPPER}.as_package")
    assert [list(sys.modules[name].__path__) for name in names] == [[], [], [str(STAGE_PY.parent)]]


def test_an_environment_is_made_and_laid_over_with_a_real_3_10(bench: Bench, python310: str, agent: Path) -> None:
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


def test_the_programs_are_among_the_files_that_a_config_map_brings() -> None:
    assert STAGE_PY.name == "stage.py"
    assert {STAGE_PY.with_name(name) for name in ("stage.py", "preflight.py", "snapshot.py")} <= set(FILES)
