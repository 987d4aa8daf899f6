"""Which objects are sent, kept and taken away; tests/integration/test_upload.py has the network and a real server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.exceptions import GenericError, PermissionDeniedError
from obstore.store import MemoryStore

from mlperf_operator.agent import upload
from mlperf_operator.agent.artifacts import MANIFEST, ArtifactsError, Entry, Folder, write_manifest
from mlperf_operator.agent.upload import OutOfTimeError, Target, Uploader, UploadError
from unit.agent.bench import make_tree

KEYS = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
TARGET = Target(endpoint="http://store", bucket="results", path="bench/a100/1111", prefix="lab")
RUN = {"namespace": "bench", "name": "a100", "uid": "1111"}
BUSY = "Generic S3 error: Error performing PUT - Server returned non-2xx status code: 503 Service Unavailable: "


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> MemoryStore:
    """A store in memory; parts are small, so that a small file is sent in several."""
    found = MemoryStore()
    monkeypatch.setattr(upload, "_store", lambda *_: found)
    monkeypatch.setattr(upload, "PART_BYTES", 1000)
    monkeypatch.setattr(upload, "FIRST_PAUSE_SECONDS", 0.01)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(make_tree(tmp_path, {"small": "x" * 10, "logs/large": "y" * 5500, "empty": ""}))


def uploader(check: Callable[[], None] = lambda: None) -> Uploader:
    return Uploader(TARGET, KEYS, check)


def sent(store: MemoryStore) -> dict[str, bytes]:
    """Return the objects by the paths of their files."""
    keys = [item["path"] for batch in obstore.list(store) for item in batch]
    return {key.removeprefix("lab/bench/a100/1111/"): bytes(obstore.get(store, key).bytes()) for key in keys}


def entry(folder: Folder, path: str) -> Entry:
    found = folder.read(path)
    assert isinstance(found, Entry)
    return found


def send_all(folder: Folder) -> None:
    _, files, _ = write_manifest(folder, RUN)
    uploader().send_all(folder, files, entry(folder, MANIFEST))


def test_small_large_and_empty_files_arrive_as_they_are(folder: Folder, store: MemoryStore) -> None:
    send_all(folder)
    here = {str(f.relative_to(folder.root)): f.read_bytes() for f in folder.root.rglob("*") if f.is_file()}
    assert sent(store) == here


def test_what_is_there_is_not_sent_again(folder: Folder, store: MemoryStore) -> None:
    small = entry(folder, "small")
    uploader().send(folder, small, patient=True)
    first = obstore.head(store, TARGET.key("small"))["last_modified"]
    (folder.root / "small").unlink()
    uploader().send(folder, small, patient=True)
    assert obstore.head(store, TARGET.key("small"))["last_modified"] == first


def test_an_object_of_another_content_is_replaced(folder: Folder, store: MemoryStore) -> None:
    obstore.put(store, TARGET.key("small"), b"z" * 10, attributes={"sha256": "0"})
    obstore.put(store, TARGET.key("empty"), b"somebody else's")
    for path in ("small", "empty"):
        uploader().send(folder, entry(folder, path), patient=True)
    assert (sent(store)["small"], sent(store)["empty"]) == (b"x" * 10, b"")


def test_the_manifest_of_an_earlier_copy_goes_before_anything_is_sent(folder: Folder, store: MemoryStore) -> None:
    obstore.put(store, TARGET.key(MANIFEST), b"{}")
    uploader().send(folder, entry(folder, "small"), patient=True)
    assert list(sent(store)) == ["small"]


@pytest.mark.parametrize("path", ["small", "logs/large"])
@pytest.mark.parametrize("change", [lambda text: text[:-1], lambda text: text + b"+", lambda text: b"?" + text[1:]])
def test_another_content_than_the_entrys_is_never_sent(
    folder: Folder, store: MemoryStore, path: str, change: Callable[[bytes], bytes]
) -> None:
    asked = entry(folder, path)
    (folder.root / path).write_bytes(change((folder.root / path).read_bytes()))
    with pytest.raises(ArtifactsError, match=f"{path} was written to after the manifest"):
        uploader().send(folder, asked, patient=True)
    assert sent(store) == {}


def test_a_file_that_is_gone_is_said(folder: Folder, store: MemoryStore) -> None:
    asked = entry(folder, "small")
    (folder.root / "small").unlink()
    with pytest.raises(ArtifactsError, match="small can no longer be read: No such file or directory"):
        uploader().send(folder, asked, patient=True)


def failing(monkeypatch: pytest.MonkeyPatch, times: int, error: Exception) -> list[int]:
    """Let the first tries to put an object fail, and return a list that grows with each try."""
    real, tries = obstore.put, list[int]()

    def put(*arguments: Any, **more: Any) -> Any:
        tries.append(1)
        if len(tries) <= times:
            raise error
        return real(*arguments, **more)

    monkeypatch.setattr(obstore, "put", put)
    return tries


def test_a_busy_store_is_asked_again_by_who_has_patience(
    folder: Folder, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = failing(monkeypatch, 3, GenericError(BUSY))
    with pytest.raises(UploadError, match=r"http://store/results/lab/bench/a100/1111/small: .*503 Service"):
        uploader().send(folder, entry(folder, "small"), patient=False)
    assert len(tries) == 1
    uploader().send(folder, entry(folder, "small"), patient=True)
    assert len(tries) == 4
    assert list(sent(store)) == ["small"]


def test_what_no_patience_mends_is_said_at_once(
    folder: Folder, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = FileNotFoundError("- <Error><Code>NoSuchBucket</Code><Message>There is none</Message></Error>")
    tries = failing(monkeypatch, 9, error)
    with pytest.raises(UploadError, match="small: NoSuchBucket: There is none"):
        uploader().send(folder, entry(folder, "small"), patient=True)
    assert len(tries) == 1


@pytest.mark.parametrize("there", [{}, {"small": b"<html>please log in</html>"}])
def test_what_was_sent_and_is_not_there_is_no_copy(
    folder: Folder, store: MemoryStore, monkeypatch: pytest.MonkeyPatch, there: dict[str, bytes]
) -> None:
    """As behind a server that answers 303, which the library follows."""
    real = obstore.put
    monkeypatch.setattr(obstore, "put", lambda *_, **__: [real(store, TARGET.key(k), v) for k, v in there.items()])
    with pytest.raises(UploadError, match=r"http://store/results/lab/bench/a100/1111/small: .*[Nn]ot"):
        uploader().send(folder, entry(folder, "small"), patient=True)


def test_whoever_may_only_write_has_a_copy_all_the_same(
    folder: Folder, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise PermissionDeniedError("403")

    with monkeypatch.context() as patched:
        patched.setattr(obstore, "get", refused)
        send_all(folder)
    assert sorted(sent(store)) == ["empty", "logs/large", MANIFEST, "small"]


def test_patience_ends_with_the_time(folder: Folder, store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, 99, GenericError(BUSY))
    left = iter(range(5))

    def check() -> None:
        if next(left, None) is None:
            raise OutOfTimeError("not complete after 3 s")

    with pytest.raises(OutOfTimeError, match=r"not complete after 3 s: .*small: .*503"):
        uploader(check).send(folder, entry(folder, "small"), patient=True)


def test_the_time_may_end_within_a_file(folder: Folder, store: MemoryStore) -> None:
    left = iter(range(3))

    def check() -> None:
        if next(left, None) is None:
            raise OutOfTimeError("not complete after 3 s")

    with pytest.raises(OutOfTimeError):
        uploader(check).send(folder, entry(folder, "logs/large"), patient=True)
    assert sent(store) == {}
