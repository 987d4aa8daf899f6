"""The repository's layout: operator/ is a source root and never a package, and the wheel has the data files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from importlib import resources
from pathlib import Path

import pytest

from mlperf_operator.inputs import read_agent_files

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "operator"
DATA = {
    *(
        "mlperf_operator/py.typed",
        "mlperf_operator/templates/custom.py.j2",
        "mlperf_operator/templates/Makefile.docker.j2",
        "mlperf_operator/templates/Dockerfile.j2",
    ),
    *(f"mlperf_operator/gpu_configs/A100_SXM4_{kind}.yaml" for kind in ("40GBx1", "40GBx8", "80GBx8")),
    "mlperf_operator/gpu_configs/CPU_REFERENCE.yaml",
    "mlperf_operator/verdicts/baselines/A100_SXM4_40GBx8.yaml",
    *(f"mlperf_operator/agent/wrapper/{name}" for name in read_agent_files()),
}


def test_the_source_root_is_no_package_and_hides_no_module() -> None:
    # `import operator` is the standard library's, which half of it imports.
    names = {path.name for path in SOURCE.iterdir() if path.name != "__pycache__"}
    assert names == {"mlperf_operator"}
    assert not (ROOT / "operator.py").exists()


@pytest.mark.parametrize("folder", [ROOT, SOURCE], ids=["repository", "source root"])
def test_operator_is_the_standard_librarys_wherever_one_stands(folder: Path) -> None:
    script = "import operator, mlperf_operator; print(operator.itemgetter, operator.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    argv = [sys.executable, "-c", script]
    done = subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    assert str(ROOT / "operator") not in done.stdout


def test_no_test_folder_is_a_package() -> None:
    # The harness tree for tests is a program of its own, with NVIDIA's layout.
    found = [file.relative_to(ROOT / "tests") for file in (ROOT / "tests").rglob("__init__.py")]
    assert [str(file) for file in found if file.parts[0] != "nvidia_tree"] == []


def test_the_data_files_are_found_as_resources() -> None:
    for name in DATA:
        assert resources.files("mlperf_operator").joinpath(name.removeprefix("mlperf_operator/")).is_file(), name


def test_the_package_has_the_files_of_the_top_level_folder() -> None:
    # The user's folder at the top and the package's are one: a second copy would drift.
    assert (SOURCE / "mlperf_operator/gpu_configs").resolve() == ROOT / "gpu_configs"


def test_the_wheel_has_the_data_files(tmp_path: Path) -> None:
    uv = shutil.which("uv") or str(Path.home() / ".cache/mlperf-operator/uv/bin/uv")
    if not Path(uv).exists():
        pytest.skip("there is no uv")
    argv = [uv, "build", "--quiet", "--wheel", f"--out-dir={tmp_path}"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False, timeout=100)
    if done.returncode and ("fetch" in done.stderr or "connect" in done.stderr):
        pytest.skip(f"hatchling cannot be had: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert names >= DATA
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"mlperf_operator"}
    assert any(name.endswith("/entry_points.txt") for name in names)
