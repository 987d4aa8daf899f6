"""Which sources decide what is built, and with which Go."""

import stat
from pathlib import Path

import pytest
from local_cluster import binaries
from local_cluster.errors import RefusalError

GO_MOD = """module example.org/x

go 1.25.0

tool helm.sh/helm/v4/cmd/helm

require (
	k8s.io/component-base v0.35.4
	k8s.io/kubernetes v1.35.4
)

require helm.sh/helm/v4 v4.1.4 // indirect
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for name in ("go.mod", "go.sum", "main.go", "pause/main.go"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(name)
    return tmp_path


@pytest.mark.parametrize("name", ["go.mod", "go.sum", "main.go", "pause/main.go"])
def test_every_source_changes_the_digest(source: Path, name: str) -> None:
    before = binaries.source_digest(source, "x86_64")
    (source / name).write_text("changed")
    assert binaries.source_digest(source, "x86_64") != before


def test_other_files_do_not_cause_a_build(source: Path) -> None:
    before = binaries.source_digest(source, "x86_64")
    (source / "README.md").write_text("words")
    assert binaries.source_digest(source, "x86_64") == before


def test_another_processor_has_its_own_programs(source: Path) -> None:
    assert binaries.source_digest(source, "x86_64") != binaries.source_digest(source, "aarch64")


def test_content_moved_between_files_changes_the_digest(source: Path) -> None:
    before = binaries.source_digest(source, "x86_64")
    (source / "go.sum").write_text("")
    (source / "main.go").write_text("go.summain.go")
    assert binaries.source_digest(source, "x86_64") != before


@pytest.mark.parametrize(("module", "version"), [("k8s.io/kubernetes", "v1.35.4"), ("helm.sh/helm/v4", "v4.1.4")])
def test_versions_come_from_go_mod(module: str, version: str) -> None:
    assert binaries.module_version(GO_MOD, module) == version


def test_a_module_that_is_not_required_is_an_error() -> None:
    with pytest.raises(KeyError):
        binaries.module_version(GO_MOD, "example.org/none")


def test_the_committed_go_mod_gives_kubernetes_its_version() -> None:
    flags = binaries.PROGRAMS["kube"].ldflags((binaries.SOURCE / "go.mod").read_text())
    assert "gitMajor=1" in flags
    assert (
        f"gitVersion={binaries.module_version((binaries.SOURCE / 'go.mod').read_text(), 'k8s.io/kubernetes')}" in flags
    )


def _program(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.mark.parametrize(
    ("answer", "version"), [("go1.26.8", (1, 26)), ("go1.19", (1, 19)), ("devel +abc", (0, 0)), ("", (0, 0))]
)
def test_the_go_version_is_read(tmp_path: Path, answer: str, version: tuple[int, int]) -> None:
    assert binaries.go_version(str(_program(tmp_path / "go", f"echo {answer}"))) == version


def test_an_old_go_without_uv_is_refused_with_both_remedies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _program(tmp_path / "go", "echo go1.19.8")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(RefusalError, match=r"Go 1\.25 or newer.*uv"):
        binaries.find_go()


def test_a_go_that_is_new_enough_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = _program(tmp_path / "go", "echo go1.25.1")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert binaries.find_go() == str(own)


def test_programs_that_are_there_are_not_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    folder = binaries.bin_dir()
    folder.mkdir(parents=True)
    (folder / "kube").touch()
    assert binaries.ensure_programs("kube") == folder
