"""`mlperf-operator suite`: what it prints, and that a printed Dockerfile does what it says."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from mlperf_operator.cli import app
from mlperf_operator.cli_suite import render
from mlperf_operator.suites import NVIDIA_V4_1, Prebuild
from unit.agent.bench import make_tree


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["suite", *arguments])


def test_the_suites_are_listed() -> None:
    table = invoke("list")
    assert table.exit_code == 0
    assert "nvidia-v4.1\n  image: nvcr.io/" in table.stdout
    assert "benchmarks: bert (Offline, Server, SingleStream), 3d-unet (Offline, SingleStream)" in table.stdout
    items = json.loads(invoke("list", "-o", "json").stdout)
    assert [item["name"] for item in items] == ["nvidia-v4.1", "reference-cpu"]
    assert yaml.safe_load(invoke("list", "-o", "yaml").stdout) == items
    assert items[1]["prebuild"] == "installs nothing"


def test_an_administrators_suite_is_there_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = NVIDIA_V4_1.model_copy(update={"name": "own", "image": "registry.example/own:1"})
    (tmp_path / "suites.yaml").write_text(yaml.safe_dump([own.model_dump(mode="json", by_alias=True)]))
    monkeypatch.setenv("MLPERF_OPERATOR_SUITES_FILE", str(tmp_path / "suites.yaml"))
    assert "FROM registry.example/own:1\n" in invoke("dockerfile", "--suite", "own").stdout


def test_settings_that_cannot_be_read_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLPERF_OPERATOR_SUITES_FILE", "/no/such/file")
    done = invoke("list")
    assert done.exit_code == 2
    assert "/no/such/file" in done.stderr


def test_the_dockerfile_says_how_it_is_used(tmp_path: Path) -> None:
    done = invoke("dockerfile")
    assert done.exit_code == 0
    assert f"\nFROM {NVIDIA_V4_1.image}\n" in done.stdout
    assert "| docker build -t REGISTRY/NAME:TAG -f - TREE/docker/common\n" in done.stdout
    files = dict.fromkeys(("install_apt_deps.sh", "install_pip_deps.sh", "install_misc_deps.sh"), "")
    make_tree(tmp_path / "a tree/docker/common", {**files, "requirements.x86_64.1.txt": ""})
    done = invoke("dockerfile", "--tree-path", str(tmp_path / "a tree"))
    assert f"-f - '{tmp_path}/a tree/docker/common'\n" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--suite", "none"), "there is no suite none; possible: nvidia-v4.1, reference-cpu"),
        (("--suite", "reference-cpu"), "the prebuild of suite reference-cpu installs nothing"),
        (("--tree-path", "/proc"), "/proc is not the code tree of suite nvidia-v4.1: docker/common has no install_apt"),
    ],
)
def test_what_cannot_be_is_refused(arguments: tuple[str, ...], said: str) -> None:
    done = invoke("dockerfile", *arguments)
    assert done.exit_code == 2
    assert said in done.stderr
    assert done.stdout == ""


def _runs(text: str) -> list[str]:
    lines = text.replace("\\\n", "").splitlines()
    return [line.removeprefix("RUN ") for line in lines if line.startswith("RUN ")]


def test_its_lines_do_what_a_runs_prebuild_does(tmp_path: Path) -> None:
    said = tmp_path / "said"
    prebuild = Prebuild(
        folder="deps",
        scripts=("one.sh",),
        leave_out=("unneeded",),
        environment={"TEXT": "it's $HOME"},
        commands=(("sh", "-c", f'echo "$TEXT" >> {said}'),),
        programs=("sh",),
        python_modules=("json",),
        paths=("/bin/s*",),
    )
    lines = _runs(render(NVIDIA_V4_1.model_copy(update={"prebuild": prebuild}), "TREE"))
    make_tree(tmp_path, {"one.sh": f'unneeded() {{ exit 3\n}}\n unneeded now\necho "$TEXT" >> {said}\n'})
    for line in lines:
        subprocess.run(["bash", "-euo", "pipefail", "-c", line], cwd=tmp_path, check=True)
    assert said.read_text() == "it's $HOME\n" * 2


def test_an_image_that_lacks_something_is_not_built(tmp_path: Path) -> None:
    prebuild = Prebuild(
        folder="deps", scripts=("one.sh",), programs=("no-such-program",), python_modules=("no_module",)
    )
    verify = _runs(render(NVIDIA_V4_1.model_copy(update={"prebuild": prebuild}), "TREE"))[-1]
    argv = ["bash", "-euo", "pipefail", "-c", verify]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "missing: program no-such-program\nmissing: Python module no_module\n"
