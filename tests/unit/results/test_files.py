"""Opening files that somebody else writes at the same time: nothing leads out of the folder, and nothing blocks."""

from __future__ import annotations

import errno
import json
import os
import socket
from pathlib import Path

import pytest

from mlperf_operator.results import find_results
from mlperf_operator.results.files import Confined, Files
from unit.results.logs import detail, summary, write

FOREIGN = "a line of somebody else"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path / "outside", {"secret": FOREIGN, "secret.json": json.dumps({"key": FOREIGN})})
    write(tmp_path / "run/folder", {"file": "deeper"})
    return write(tmp_path / "run", {"file": "inside"})


def test_a_file_of_the_folder_is_read(root: Path) -> None:
    with Confined(root).open(root / "folder/file") as file:
        assert file.read() == b"deeper"


@pytest.mark.parametrize("where", ["file", "folder"])
@pytest.mark.parametrize("target", ["../outside/secret", "/proc/self/environ", "folder/file"])
def test_no_link_is_followed_wherever_it_leads(root: Path, where: str, target: str) -> None:
    link = root / ("link" if where == "file" else "linked")
    link.symlink_to(target if where == "file" else Path(target).parent)
    path = link if where == "file" else link / Path(target).name
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the number says which
        Confined(root).open(path)
    assert caught.value.errno in (errno.ELOOP, errno.ENOTDIR)
    with pytest.raises(OSError, match="symbolic link" if where == "file" else "directory"):
        Confined(root).find(path)


def test_a_link_in_place_of_a_folder_is_not_listed(root: Path) -> None:
    (root / "linked").symlink_to("../outside")
    with pytest.raises(NotADirectoryError):
        Confined(root).listed(root / "linked")
    assert Confined(root).read_object(root / "linked/secret.json") == {}


@pytest.mark.parametrize("path", ["../outside/secret", "folder/../../outside/secret", "/etc/passwd"])
def test_a_path_that_leads_out_of_the_folder_is_refused(root: Path, path: str) -> None:
    for act in (Confined(root).open, lambda p: Confined(root).write(p, "x")):
        with pytest.raises(PermissionError, match="outside of the folder"):
            act(root / path)


def test_a_folder_may_be_named_by_a_path_with_dots(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root / "folder")
    for here in (Path(".."), Path("../../run"), root / "folder/.."):
        with Confined(here).open(here / "file") as file:
            assert file.read() == b"inside"


@pytest.mark.timeout(20)
@pytest.mark.parametrize("files", [Files, Confined])
def test_what_is_no_regular_file_is_passed_over_without_waiting(root: Path, files: type[Files]) -> None:
    reader = Confined(root) if files is Confined else Files()
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "socket"))
        for name in ("pipe", "socket", "folder", "absent"):
            assert reader.find(root / name) is None
            assert reader.read_object(root / name) == {}
    with pytest.raises(OSError, match="it is no regular file"):
        reader.open(root / "pipe")
    # Of a device a reader would get bytes without end.
    with pytest.raises(OSError, match="it is no regular file"):
        Confined(Path("/dev")).open(Path("/dev/zero"))


@pytest.mark.parametrize("target", ["pipe", "../outside/secret"])
def test_a_name_that_changes_between_the_look_and_the_opening_gives_nothing(
    root: Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(root / "pipe")
    really = os.stat

    def exchanged(name: str, *, dir_fd: int, follow_symlinks: bool) -> os.stat_result:
        found = really(name, dir_fd=dir_fd, follow_symlinks=follow_symlinks)
        (root / name).unlink()
        if target == "pipe":
            os.link(root / target, root / name)
        else:
            (root / name).symlink_to(target)
        return found

    monkeypatch.setattr(os, "stat", exchanged)
    with pytest.raises(OSError, match=r"no regular file|symbolic links"):
        Confined(root).open(root / "file")


def test_a_file_is_written_whole_and_replaces_a_link_instead_of_writing_through_it(root: Path) -> None:
    (root / "report.json").symlink_to("../outside/secret")
    Confined(root).write(root / "report.json", "{}")
    assert not (root / "report.json").is_symlink()
    assert (root / "report.json").read_text() == "{}"
    assert (root.parent / "outside/secret").read_text() == FOREIGN
    assert sorted(path.name for path in root.iterdir()) == ["file", "folder", "report.json"]


def test_a_temporary_name_that_is_taken_is_never_written_through(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secrets.token_hex", lambda _: "guessed")
    (root / ".report.json.guessed.tmp").symlink_to("../outside/secret")
    with pytest.raises(FileExistsError):
        Confined(root).write(root / "report.json", "{}")
    assert (root.parent / "outside/secret").read_text() == FOREIGN


def test_a_write_that_fails_leaves_nothing_behind(root: Path) -> None:
    with pytest.raises(IsADirectoryError):
        Confined(root).write(root / "folder", "{}")
    (root / "linked").symlink_to("../outside")
    with pytest.raises(NotADirectoryError):
        Confined(root).write(root / "linked/report.json", "{}")
    assert sorted(path.name for path in root.iterdir()) == ["file", "folder", "linked"]


@pytest.mark.parametrize("text", ["[1]", "no json", "[" * 100_000, "\udcff"])
def test_what_holds_no_json_object_is_an_empty_one(root: Path, text: str) -> None:
    (root / "record.json").write_bytes(text.encode(errors="surrogateescape"))
    assert Confined(root).read_object(root / "record.json") == {}


def test_an_object_beyond_reason_is_not_read_to_its_end(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "record.json").write_text(json.dumps({"a": "b" * 100}))
    assert Confined(root).read_object(root / "record.json")["a"]
    monkeypatch.setattr("mlperf_operator.results.files.MAX_OBJECT_BYTES", 50)
    assert Confined(root).read_object(root / "record.json") == {}


def test_users_may_keep_their_logs_behind_links_and_a_harness_may_not(tmp_path: Path) -> None:
    logs = write(tmp_path / "store", {"mlperf_log_detail.txt": detail(), "mlperf_log_summary.txt": summary()})
    run = tmp_path / "run/A100/bert-99/Offline"
    run.mkdir(parents=True)
    for name in ("mlperf_log_detail.txt", "mlperf_log_summary.txt"):
        (run / name).symlink_to(logs / name)
    (free,) = find_results(tmp_path / "run")
    (confined,) = find_results(tmp_path / "run", Confined(tmp_path / "run"))
    assert (free.validity, free.error) == ("VALID", None)
    assert confined.validity is None
    assert "it is a symbolic link, which is not followed" in str(confined.error)
