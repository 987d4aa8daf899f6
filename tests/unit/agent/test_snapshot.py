"""An environment is there whole or not at all, belongs to one base image, and is laid over a container once."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlperf_operator.agent.wrapper import contents, delta, roots, snapshot, telling
from unit.agent.bench import make_tree
from unit.agent.roots_of import base_root, copy, kept, laid, remove, seen


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return base_root(tmp_path / "root")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store" / "d1"


@pytest.fixture
def fresh(root: Path, tmp_path: Path) -> Path:
    return copy(root, tmp_path / "fresh")


def _install(root: Path) -> None:
    make_tree(root, {"usr/bin/numactl": "#!numactl", "usr/lib/libnuma.so.1": "numa", "opt/new/x": "x"})
    (root / "usr/bin/cmake").unlink()
    remove(root / "usr/share/cmake")


@pytest.fixture
def note(root: Path, store: Path, fresh: Path) -> dict[str, Any]:
    return kept(root, store, lambda: _install(root))


def test_the_note_tells_how_much_it_is_and_what_it_took(note: dict[str, Any], store: Path) -> None:
    assert (note["files"], note["deleted"], note["run"], note["digest"]) == (3, 2, "run-1", "d1")
    assert note["bytes"] == (store / "environment.tar").stat().st_size
    assert note["sha256"] == contents.digest(store / "environment.tar")
    assert {note[key] >= 0 for key in ("prebuildSeconds", "manifestSeconds", "archiveSeconds")} == {True}
    assert "kept 3 files, " in note["said"]
    assert sorted(path.name for path in store.iterdir()) == ["environment.json", "environment.tar"]


def test_laying_over_says_what_it_took(note: dict[str, Any], store: Path, fresh: Path) -> None:
    assert laid(fresh, store, note).startswith("laid over 3 files, ")


def test_a_container_that_has_it_is_left_alone(note: dict[str, Any], store: Path, fresh: Path) -> None:
    laid(fresh, store, note)
    (fresh / "opt/data").write_text("the stage's own")
    assert laid(fresh, store, note) == "is there already in this container"
    assert (fresh / "opt/data").read_text() == "the stage's own"


def test_the_container_that_made_it_has_it(note: dict[str, Any], store: Path, root: Path) -> None:
    assert laid(root, store, note) == "is there already in this container"


@pytest.mark.parametrize("at", range(1, 8))
def test_laying_over_that_was_interrupted_is_done_again_from_the_start(
    note: dict[str, Any], store: Path, fresh: Path, root: Path, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = at
    dress = delta.Root._dress

    def interrupted(self: delta.Root, target: Path, member: tarfile.TarInfo) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise KeyboardInterrupt
        dress(self, target, member)

    monkeypatch.setattr(delta.Root, "_dress", interrupted)
    with pytest.raises(KeyboardInterrupt):
        laid(fresh, store, note)
    monkeypatch.undo()
    laid(fresh, store, note)
    assert seen(fresh) == seen(root)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ("cut", "is cut or was changed"),
        ("changed", "is damaged: it has another sha256"),
        ("archive gone", "environment.tar is not there"),
        ("note gone", "environment.json is not there"),
        ("note cut", "environment.json is not there"),
    ],
)
def test_what_is_damaged_is_never_laid_over(
    note: dict[str, Any], store: Path, fresh: Path, harm: str, said: str
) -> None:
    archive, before = store / "environment.tar", seen(fresh)
    if harm == "cut":
        os.truncate(archive, note["bytes"] // 2)
    elif harm == "changed":
        with archive.open("r+b") as file:
            file.seek(700)
            file.write(b"!")
    elif harm == "archive gone":
        archive.unlink()
    elif harm == "note gone":
        (store / "environment.json").unlink()
    else:
        os.truncate(store / "environment.json", 20)
    assert said in str(snapshot.check(str(store))["problem"])
    with pytest.raises(delta.SnapshotError, match=said):
        laid(fresh, store, note)
    assert seen(fresh) == before
    assert not (fresh / roots.MARK).exists()


def test_an_environment_that_was_made_again_since_the_run_began_is_not_its_own(
    note: dict[str, Any], store: Path, fresh: Path
) -> None:
    with pytest.raises(delta.SnapshotError, match="another environment than when this run began; start the run again"):
        laid(fresh, store, {**note, "sha256": "0" * 64})


@pytest.mark.parametrize(
    "change",
    [
        {"etc/os-release": "ID=debian\n"},
        {"var/lib/dpkg/status": "Package: another\n"},
        {"usr/lib/python3.10/dist-packages/six-1.dist-info/METADATA": ""},
        {"usr/local/bin/own-tool": "x"},
        {"usr/bin/cmake": "#!another size"},
    ],
)
def test_another_base_image_is_refused(note: dict[str, Any], store: Path, fresh: Path, change: dict[str, str]) -> None:
    make_tree(fresh, change)
    before = seen(fresh)
    with pytest.raises(delta.SnapshotError, match="made in another base image than this container's"):
        laid(fresh, store, note)
    assert seen(fresh) == before


def test_what_the_container_runtime_brings_is_no_other_base_image(
    note: dict[str, Any], store: Path, fresh: Path
) -> None:
    brought = ("usr/bin/nvidia-smi", "etc/hosts", "usr/lib/libcuda.so.1", "etc/ld.so.conf.d/nvcr-1.conf")
    make_tree(fresh, dict.fromkeys(brought, "x"))
    laid(fresh, store, note)
    assert (fresh / "usr/bin/nvidia-smi").exists()


def test_a_container_whose_prebuild_did_not_end_is_used_no_more(root: Path, store: Path, fresh: Path) -> None:
    snapshot.before(str(root), str(store), "d1")
    _install(root)
    with pytest.raises(delta.SnapshotError, match="no longer as its image has it"):
        snapshot.before(str(root), str(store), "d1")
    note = kept(fresh, store, lambda: _install(fresh))
    with pytest.raises(delta.SnapshotError, match="no longer as its image has it"):
        laid(root, store, note)


def test_what_a_killed_prebuild_left_is_removed_by_the_next(root: Path, store: Path, fresh: Path) -> None:
    snapshot.before(str(root), str(store), "d1")
    (store / ".environment.tar.tmp").write_text("half")
    assert snapshot.check(str(store))["problem"] is not None
    kept(fresh, store, lambda: _install(fresh))
    assert sorted(path.name for path in store.iterdir()) == ["environment.json", "environment.tar"]


def test_what_changes_while_it_is_kept_is_an_error(root: Path, store: Path) -> None:
    before = roots.scan(root, ())
    (root / "opt/data").write_text("one")
    after = roots.scan(root, ())
    (root / "opt/data").write_text("two")
    with pytest.raises(
        delta.SnapshotError, match="/opt/data changes while it is kept: something that prebuild started"
    ):
        delta.write_archive(root, after, roots.difference(before, after), root / "archive")


@pytest.mark.parametrize("name", ["/etc/passwd", "../outside", "a/../../outside"])
def test_an_archive_that_leads_out_of_the_root_is_refused(tmp_path: Path, name: str) -> None:
    archive = tmp_path / "archive.tar"
    with tarfile.open(archive, "w") as tar:
        index = tmp_path / "index"
        index.write_text('{"deleted": [], "replaced": []}')
        tar.add(index, delta.INDEX)
        tar.add(index, filter=lambda info: info.replace(name=name, deep=False))
    with pytest.raises(delta.SnapshotError, match="leads out of the root"):
        delta.Root(tmp_path, ()).lay(archive)


def test_an_archive_of_something_else_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "archive.tar"
    with tarfile.open(archive, "w"):
        pass
    with pytest.raises(delta.SnapshotError, match="does not begin with its index"):
        delta.Root(tmp_path, ()).lay(archive)


def test_an_attribute_that_may_not_be_set_is_told(
    root: Path, store: Path, fresh: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    note = kept(root, store, lambda: os.setxattr(root / "opt/data", "user.note", b"x"))

    monkeypatch.setattr(os, "setxattr", _fail(errno.EPERM))
    laid(fresh, store, note)
    assert "this container may not set user.note" in capsys.readouterr().out


def _fail(number: int) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


def test_a_file_system_without_attributes_has_none(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "listxattr", _fail(errno.ENOTSUP))
    assert delta.attributes(root / "opt/data") == []


@pytest.mark.parametrize("call", ["listxattr", "setxattr"])
def test_attributes_that_fail_for_another_reason_are_an_error(
    root: Path, store: Path, fresh: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    setxattr = os.setxattr
    monkeypatch.setattr(os, call, _fail(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        laid(fresh, store, kept(root, store, lambda: setxattr(root / "opt/data", "user.note", b"x")))


def test_a_folder_that_should_not_be_there_is_not_removed(note: dict[str, Any], store: Path, fresh: Path) -> None:
    (fresh / "usr/lib/libnuma.so.1").mkdir()
    with pytest.raises(IsADirectoryError):
        laid(fresh, store, note)


class TestProgram:
    """As stage.py runs it."""

    def _run(self, command: str, **arguments: str) -> tuple[int, list[str]]:
        argv = [sys.executable, str(snapshot.__file__), command, json.dumps(arguments)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.stderr == ""
        return done.returncode, done.stdout.splitlines()

    def test_it_prints_what_it_found(self, note: dict[str, Any], store: Path, fresh: Path) -> None:
        where = {"root": str(fresh), "folder": str(store), "digest": "d1", "sha256": note["sha256"]}
        code, lines = self._run("lay", **where)
        assert code == 0
        assert lines[-1].startswith(telling.ENVIRONMENT_FACTS)
        assert json.loads(lines[-1].removeprefix(telling.ENVIRONMENT_FACTS))["said"].startswith("laid over")

    def test_it_says_why_it_could_not(self, fresh: Path, store: Path) -> None:
        where = {"root": str(fresh), "folder": str(store), "digest": "d1", "sha256": ""}
        code, lines = self._run("lay", **where)
        assert code == 1
        assert lines == [f"{telling.ENVIRONMENT_FINDING}{store}/environment.json is not there; start the run again: "
                         "its prebuild makes the environment anew where it must"]  # fmt: skip

    def test_a_system_call_that_fails_is_told_with_its_file(self, capsys: pytest.CaptureFixture[str]) -> None:
        arguments = {"root": "/no/such/root", "folder": "/proc/no", "digest": "d"}
        assert snapshot.main(["before", json.dumps(arguments)]) == 1
        assert capsys.readouterr().out == f"{telling.ENVIRONMENT_FINDING}No such file or directory: /proc/no\n"


class TestLibraries:
    """The cache of libraries is written anew: the driver's differ from container to container."""

    def test_a_root_without_ldconfig_is_left(self, root: Path) -> None:
        snapshot.refresh_libraries(root)

    @pytest.mark.parametrize("code", [0, 3])
    def test_a_failure_is_told(self, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
        make_tree(root, {"sbin/ldconfig": ""})
        make_tree(tmp_path, {"bin/chroot": f"#!/bin/sh\necho $* > {tmp_path}/said; echo why >&2; exit {code}\n"})
        (tmp_path / "bin/chroot").chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
        if code:
            with pytest.raises(delta.SnapshotError, match="ldconfig ended with 3: why"):
                snapshot.refresh_libraries(root)
        else:
            snapshot.refresh_libraries(root)
        assert (tmp_path / "said").read_text() == f"{root} /sbin/ldconfig\n"
