"""The manifest over a run's folder: everything in it, nothing from elsewhere, and what changed since."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path

import pytest

from mlperf_operator.agent import artifacts
from mlperf_operator.agent.artifacts import (
    MANIFEST,
    ArtifactsError,
    Entry,
    Folder,
    Skipped,
    read_manifest,
    verify,
    write_manifest,
)
from unit.agent.bench import make_tree

RUN = {"namespace": "bench", "name": "a100", "uid": "1111"}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    files = {
        "logs/bert/Offline/PerformanceOnly/mlperf_log_summary.txt": "VALID",
        "steps/one.json": '{"startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:20:00Z"}',
        "steps/two.json": '{"startedAt": "2026-01-01T00:30:00Z", "finishedAt": "2026-01-01T00:40:00Z"}',
        "steps/odd.json": "no json",
        "report.json": "{}",
    }
    return Folder(make_tree(tmp_path / "run", files))


def test_a_manifest_lists_every_other_file_by_path_with_size_and_digest(folder: Folder) -> None:
    sha256, files, skipped = write_manifest(folder, RUN)
    text = (folder.root / MANIFEST).read_bytes()
    content = json.loads(text)
    assert sha256 == hashlib.sha256(text).hexdigest()
    assert (content["run"], content["skipped"], skipped) == (RUN, [], [])
    assert [f["path"] for f in content["files"]] == sorted(f["path"] for f in content["files"])
    summary = next(f for f in content["files"] if f["path"].endswith("summary.txt"))
    assert (summary["size"], summary["sha256"]) == (5, hashlib.sha256(b"VALID").hexdigest())
    assert (content["measuredFrom"], content["measuredTo"]) == ("2026-01-01T00:00:00Z", "2026-01-01T00:40:00Z")
    assert content["versions"]["mlperf-operator"]
    assert verify(folder)[1] == []
    assert read_manifest(folder).files == tuple(files)


def test_a_run_that_measured_nothing_has_a_manifest_too(tmp_path: Path) -> None:
    write_manifest(Folder(tmp_path), RUN)
    content = json.loads((tmp_path / MANIFEST).read_text())
    assert (content["files"], content["measuredFrom"], content["measuredTo"]) == ([], None, None)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (lambda root: (root / "report.json").write_text("[]"), "report.json has another content"),
        (lambda root: (root / "report.json").write_text("{} "), "report.json has 3 bytes and had 2"),
        (lambda root: (root / "report.json").unlink(), "report.json is missing"),
        (lambda root: (root / "more.txt").touch(), "more.txt is not in the manifest"),
        (lambda root: os.mkfifo(root / "pipe"), "pipe is not in the manifest: it is no regular file"),
        (
            lambda root: ((root / "report.json").unlink(), (root / "report.json").symlink_to("steps/one.json")),
            "report.json: a symbolic link is not followed",
        ),
    ],
)
def test_what_changed_since_is_said(folder: Folder, what: object, said: str) -> None:
    write_manifest(folder, RUN)
    assert callable(what)
    what(folder.root)
    assert verify(Folder(folder.root))[1] == [said]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"run": {}, "files": []}', "[" * 100_000, '{"run": null}'])
def test_what_is_no_manifest_is_said(folder: Folder, text: str) -> None:
    (folder.root / MANIFEST).write_text(text)
    with pytest.raises(ArtifactsError, match=r"manifest\.json is no manifest"):
        read_manifest(folder)


def test_without_a_manifest_nothing_is_verified(folder: Folder) -> None:
    with pytest.raises(ArtifactsError, match=r"manifest\.json is not there: .* once the run has ended"):
        verify(folder)


def test_nothing_outside_and_nothing_special_is_ever_read(folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("the node's")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "key").write_text("the node's")
    root = folder.root
    (root / "link").symlink_to(tmp_path / "secret")
    (root / "folder").symlink_to(tmp_path / "secrets")
    (root / "zero").symlink_to("/dev/zero")
    os.mkfifo(root / "pipe")
    (root / "new\nline").write_text("x")
    (root / "back\\slash").write_text("x")
    Path(os.fsdecode(os.fsencode(root) + b"/bytes\xff")).write_text("x")
    _, files, skipped = write_manifest(folder, RUN)
    assert not any("the node's" in (root / entry.path).read_text() for entry in files)
    assert {item.path: item.reason for item in skipped} == {
        "link": "a symbolic link is not followed",
        "folder": "a symbolic link is not followed",
        "zero": "a symbolic link is not followed",
        "pipe": "it is no regular file",
        "new\\x0aline": "its name is no plain text",
        "back\\slash": "its name is no plain text",
        "bytes\\xff": "its name is no plain text",
    }
    assert verify(folder)[1] == []


def test_a_path_through_a_link_is_not_opened(folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "key").write_text("the node's")
    (folder.root / "folder").symlink_to(tmp_path / "secrets")
    found = folder.read("folder/key")
    assert isinstance(found, Skipped)
    assert "Not a directory" in found.reason or "symbolic links" in found.reason
    assert isinstance(folder.read("steps"), Skipped)


def test_what_lies_too_deep_or_is_named_too_long_is_passed_over(folder: Folder) -> None:
    deep = folder.root.joinpath(*["d"] * 40)
    deep.mkdir(parents=True)
    (deep / "file").touch()
    long = folder.root.joinpath(*["n" * 200] * 4)
    long.mkdir(parents=True)
    (long / ("n" * 200)).touch()
    _, skipped = folder.entries()
    assert sorted(item.reason for item in skipped) == [
        "it lies too deep",
        "its path is too long for an object store",
    ]


def test_the_number_of_files_has_an_end(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "MAX_FILES", 3)
    files, skipped = folder.entries()
    assert len(files) == 3
    assert [item.reason for item in skipped] == ["there are more than 3 files; the rest is left out"]


def test_what_is_passed_over_has_an_end_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "MAX_FILES", 3)
    for number in range(10):
        (tmp_path / f"link{number}").symlink_to("anywhere")
        (tmp_path / f"odd\n{number}").mkdir()
    files, skipped = Folder(tmp_path).entries()
    assert files == []
    assert len(skipped) == 4


def test_an_unchanged_file_is_read_once(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks: list[int] = []
    folder.check = lambda: blocks.append(1)
    first = folder.read("report.json")
    assert (folder.read("report.json"), blocks) == (first, [1])
    (folder.root / "report.json").write_text("changed")
    assert folder.read("report.json") != first
    assert blocks == [1, 1]


def test_a_file_that_is_written_to_meanwhile_is_passed_over(folder: Folder) -> None:
    def write() -> None:
        with (folder.root / "report.json").open("a") as file:
            file.write("more")

    folder.check = write
    assert folder.read("report.json") == Skipped("report.json", "was written to while it was read")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_permission_is_passed_over(folder: Folder) -> None:
    (folder.root / "report.json").chmod(0)
    assert folder.read("report.json") == Skipped("report.json", "cannot be read: Permission denied")


def test_a_disk_that_fails_costs_one_file(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> tuple[int, int, int]:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(artifacts, "_mark", fail)
    assert folder.read("report.json") == Skipped("report.json", "cannot be read: Input/output error")


def test_a_folder_that_cannot_be_listed_is_passed_over(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def refuse(path: str, *arguments: int, **more: int) -> int:
        if path == "steps":
            raise PermissionError(13, "Permission denied")
        return real(path, *arguments, **more)

    monkeypatch.setattr(os, "open", refuse)
    files, skipped = folder.entries()
    assert skipped == [Skipped("steps", "cannot be read: Permission denied")]
    assert [entry.path for entry in files] == [
        "logs/bert/Offline/PerformanceOnly/mlperf_log_summary.txt",
        "report.json",
    ]


def test_descriptors_do_not_leak(folder: Folder) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    (folder.root / "link").symlink_to("nowhere")
    os.mkfifo(folder.root / "pipe")
    for _ in range(5):
        folder.entries()
        folder.read("pipe")
        folder.read("link/x")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_device_is_no_file(folder: Folder) -> None:
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    assert Folder(Path("/dev")).read("null") == Skipped("null", "cannot be read: it is no regular file")


def test_a_part_of_the_folder_can_be_looked_at(folder: Folder) -> None:
    files, _ = folder.entries("steps")
    assert [entry.path for entry in files] == ["steps/odd.json", "steps/one.json", "steps/two.json"]
    assert all(isinstance(entry, Entry) for entry in files)
