"""The code tree: copied, identified, kept when built, put back."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from mlperf_operator.agent.wrapper import files, trees
from mlperf_operator.agent.wrapper.errors import StageError
from mlperf_operator.agent.wrapper.locks import step_lock
from mlperf_operator.agent.wrapper.state import load_stage
from unit.agent.bench import Bench, Step, git, line_with, lines_of, make_tree, shared, step, until

FILES = {"Makefile": "all:\n", "code/main.py": "print()\n", "code/tool.sh": "#!/bin/sh\n"}


def _code(bench: Bench, source: dict[str, Any], **more: Any) -> Step:
    return {"id": "code", "action": "copyTree", "scope": "Private", "digest": "code-1", "source": source, **more}


def _path(bench: Bench, **more: Any) -> Step:
    return _code(bench, {"type": "Path", "path": str(bench.home / "image")}, retryDelaySeconds=0, **more)


@pytest.fixture(autouse=True)
def image(bench: Bench) -> Path:
    folder = make_tree(bench.home / "image", FILES)
    (folder / "code/tool.sh").chmod(0o755)
    (folder / "code/link").symlink_to("main.py")
    (folder / "linked").symlink_to("code")
    os.utime(folder / "Makefile", (1, 1))
    return folder


def test_the_tree_is_copied_with_links_modes_and_times(bench: Bench) -> None:
    (bench.work / "left").write_text("by somebody")
    assert bench.run(_path(bench)) == 0
    assert sorted(p.name for p in bench.work.iterdir()) == ["Makefile", "code", "linked"]
    assert (bench.work / "code/tool.sh").stat().st_mode & 0o111
    assert (bench.work / "linked").is_symlink()
    assert (bench.work / "Makefile").stat().st_mtime == 1
    assert len((bench.state / "tree.sha256").read_text()) == 64


def test_an_overriding_file_replaces_the_trees_and_belongs_to_its_identity(bench: Bench) -> None:
    assert bench.run(_path(bench)) == 0
    before = (bench.state / "tree.sha256").read_text()
    (bench.home / "own").write_text("all: mine\n")
    assert bench.run(_path(bench, files={str(bench.home / "own"): "Makefile"}, digest="code-2")) == 0
    assert (bench.work / "Makefile").read_text() == "all: mine\n"
    assert (bench.state / "tree.sha256").read_text() != before


def test_a_missing_override_fails_the_stage(bench: Bench) -> None:
    assert bench.run(_path(bench, files={"/no/such/file": "Makefile"})) == 65
    assert bench.told["message"] == "No such file or directory: /no/such/file"


def test_an_image_without_the_tree_is_configuration(bench: Bench) -> None:
    assert bench.run(_code(bench, {"type": "Path", "path": "/no/such/tree"})) == 64
    assert "there is no code tree: no Makefile in /no/such/tree;" in bench.told["message"]


def test_a_copied_tree_is_not_copied_again_unless_it_is_gone(bench: Bench) -> None:
    assert bench.run(_path(bench)) == 0
    (bench.work / "Makefile").write_text("changed by a stage\n")
    assert bench.run(_path(bench)) == 0
    assert bench.told["reason"] == "Skipped"
    files.empty(bench.work)
    assert bench.run(_path(bench)) == 0
    assert (bench.work / "Makefile").read_text() == FILES["Makefile"]


def test_a_new_copy_makes_the_steps_in_the_tree_undone(bench: Bench) -> None:
    link = step("link_dirs", "touch linked_dirs")
    assert bench.run(_path(bench), link) == 0
    files.empty(bench.work)
    assert bench.run(_path(bench), link) == 0
    assert (bench.work / "linked_dirs").exists()


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (lambda tree: (tree / "Makefile").write_text("all: x\n"), False),
        (lambda tree: (tree / "code/tool.sh").chmod(0o644), False),
        (lambda tree: (tree / "code/main.py").rename(tree / "code/other.py"), False),
        (lambda tree: (tree / "linked").unlink(), False),
        (lambda tree: make_tree(tree, {"code/build/x": "1"}), False),
        (lambda tree: make_tree(tree, {"build/x": "1", ".git/HEAD": "1", "code/__pycache__/x": "1"}), True),
        (lambda tree: (tree / "empty").mkdir(), True),
        (lambda tree: os.utime(tree / "Makefile", (9, 9)), True),
    ],
)
def test_what_makes_a_tree_another_one(image: Path, change: Any, *, same: bool) -> None:
    before = trees.tree_digest(image, lambda: None)
    change(image)
    assert (trees.tree_digest(image, lambda: None) == before) is same


class TestGit:
    """A tree of exactly one commit."""

    @pytest.fixture
    def repository(self, tmp_path: Path) -> Path:
        folder = make_tree(tmp_path / "repository", {"closed/NVIDIA/Makefile": "all:\n", "other/large": "x"})
        git(folder, "init", "-q")
        git(folder, "add", ".")
        git(folder, "commit", "-q", "-m", "one")
        return folder

    def _source(self, repository: Path, **more: str) -> dict[str, str]:
        commit = git(repository, "rev-parse", "HEAD")
        return {"type": "Git", "url": f"file://{repository}", "commit": commit, "subPath": "closed/NVIDIA", **more}

    def test_only_the_folder_of_the_commit_is_copied(self, bench: Bench, repository: Path) -> None:
        assert bench.run(_code(bench, self._source(repository))) == 0
        assert [p.name for p in bench.work.iterdir()] == ["Makefile"]
        assert not (bench.state / "checkout").exists()

    def test_files_beyond_the_folder_are_not_fetched(self, bench: Bench, repository: Path) -> None:
        for name in ("allowFilter", "allowAnySHA1InWant"):
            git(repository, "config", f"uploadpack.{name}", "true")
        # A server that has lost a file cannot send it: whoever asks for it fails.
        lost = git(repository, "hash-object", "other/large")
        (repository / ".git" / "objects" / lost[:2] / lost[2:]).unlink()
        assert bench.run(_code(bench, self._source(repository))) == 0
        assert [p.name for p in bench.work.iterdir()] == ["Makefile"]

    def test_the_whole_repository_comes_without_its_history(self, bench: Bench, repository: Path) -> None:
        assert bench.run(_code(bench, self._source(repository, subPath=""))) == 0
        assert sorted(p.name for p in bench.work.iterdir()) == ["closed", "other"]

    def test_a_folder_that_the_commit_has_not_is_configuration(self, bench: Bench, repository: Path) -> None:
        assert bench.run(_code(bench, self._source(repository, subPath="open"))) == 64
        assert "has no folder open" in bench.told["message"]

    @pytest.mark.parametrize("commit", ["main", "--upload-pack=x", "a" * 39])
    def test_only_a_full_commit_id_will_do(self, bench: Bench, repository: Path, commit: str) -> None:
        assert bench.run(_code(bench, self._source(repository, commit=commit))) == 64
        assert "no full commit id" in bench.told["message"]

    def test_a_fetch_that_fails_is_tried_again(self, bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
        source = {"type": "Git", "url": f"file://{bench.home}/none", "commit": "a" * 40}
        assert bench.run(_code(bench, source, retryDelaySeconds=0)) == 65
        assert "try 4 of 4" in capfd.readouterr().out
        assert "fetch" in bench.told["message"]


class TestBuiltTree:
    """The built tree is kept for other runs, whole."""

    def _build(self, bench: Bench) -> Step:
        script = f"echo x >> {bench.scratch}/count; mkdir -p build/bin; echo binary > build/bin/harness"
        return shared("build", script, publishTree=True)

    def _kept(self, bench: Bench) -> Path:
        (tree,) = (bench.scratch / ".mlperf/trees").glob("[0-9a-f]*")
        return tree

    def test_another_run_gets_it_instead_of_building(self, bench: Bench, other: Bench) -> None:
        assert bench.run(_path(bench), self._build(bench)) == 0
        shutil.copytree(bench.home / "image", other.home / "image", symlinks=True)
        assert other.run(_path(other), self._build(other)) == 0
        assert (other.work / "build/bin/harness").read_text() == "binary\n"
        assert (other.work / "code/tool.sh").stat().st_mode & 0o111
        assert lines_of(bench.scratch / "count") == ["x"]

    def test_a_run_that_has_it_already_keeps_its_engines(self, bench: Bench) -> None:
        steps = (_path(bench), self._build(bench))
        assert bench.run(*steps) == 0
        (bench.work / "build/engine").write_text("hours of work")
        assert bench.run(*steps) == 0
        assert (bench.work / "build/engine").exists()

    @pytest.mark.parametrize("harm", ["file", "tree"])
    def test_a_kept_tree_that_lost_files_is_built_again(self, bench: Bench, other: Bench, harm: str) -> None:
        assert bench.run(self._build(bench)) == 0
        if harm == "file":
            (self._kept(bench) / "build/bin/harness").unlink()
        else:
            shutil.rmtree(self._kept(bench))
        assert other.run(self._build(other)) == 0
        assert (self._kept(bench) / "build/bin/harness").exists()
        assert (other.work / "build/bin/harness").exists()

    def test_another_image_of_the_same_name_gets_a_tree_of_its_own(self, bench: Bench, other: Bench) -> None:
        for place, version in ((bench, "22.04"), (other, "24.04")):
            (place.root / "etc").mkdir(parents=True)
            (place.root / "etc/os-release").write_text(f'VERSION_ID="{version}"\n')
            assert place.run(self._build(place)) == 0
        assert len(list((bench.scratch / ".mlperf/trees").glob("[0-9a-f]*"))) == 2

    def test_a_failed_build_leaves_no_tree(self, bench: Bench) -> None:
        assert bench.run(shared("build", "touch half; exit 1", publishTree=True)) == 65
        assert not (bench.scratch / ".mlperf/trees").exists()

    def test_what_a_killed_wrapper_left_of_a_tree_is_no_tree(self, bench: Bench, other: Bench) -> None:
        assert bench.run(self._build(bench)) == 0
        kept = self._kept(bench)
        kept.rename(kept.with_name(f".{kept.name}.tmp"))
        assert other.run(self._build(other)) == 0
        assert [path.name for path in kept.parent.iterdir()] == [kept.name]

    def test_a_tree_is_not_replaced_while_another_run_copies_it(self, bench: Bench, other: Bench) -> None:
        assert bench.run(self._build(bench)) == 0
        digest = self._kept(bench).name
        reader = load_stage(bench.plan_file, "prepare")
        with step_lock(reader, self._build(bench), digest, fcntl.LOCK_SH):
            (self._kept(bench) / "build/bin/harness").write_text("touched by somebody")
            process = other.start(self._build(other))
            line_with(process, "waiting for run uid-1")
            assert self._kept(bench).exists()
        assert process.communicate()[0]
        assert process.returncode == 0

    def test_builds_of_different_trees_do_not_wait_for_each_other(self, bench: Bench, other: Bench) -> None:
        (other.state / "tree.sha256").write_text("another tree")
        slow = shared(
            "build", f"touch {bench.home}/in; while ! test -e {bench.home}/go; do sleep 0.02; done", publishTree=True
        )
        process = bench.start(slow)
        until((bench.home / "in").exists)
        assert other.run(shared("build", "true", publishTree=True), timeout=5) == 0
        (bench.home / "go").touch()
        process.communicate()
        assert process.returncode == 0

    def test_a_long_copy_can_be_stopped(self, bench: Bench) -> None:
        bench.plan(_path(bench))
        found = load_stage(bench.plan_file, "prepare")
        found.stopping.set()
        with pytest.raises(StageError, match="stopped by SIGTERM"):
            trees.copy_tree(found, bench.home / "image", bench.work)
