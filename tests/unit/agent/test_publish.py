"""Manifest and copy at the end of a run: in time, told, and never in the way of the report."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from mlperf_operator.agent import publish, upload
from mlperf_operator.agent.artifacts import MANIFEST, ArtifactsError, Entry, Folder
from mlperf_operator.agent.hidden import Hidden
from mlperf_operator.agent.publish import Publisher
from mlperf_operator.agent.upload import Target, Uploader, UploadError, may_pass, said
from unit.agent.bench import make_tree

KEYS = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
UPLOAD = {
    "endpoint": "http://127.0.0.1:1/",
    "bucket": "results",
    "prefix": "/lab/",
    "region": "us-east-1",
    "path": "bench/a100/1111",
}
URL = "http://127.0.0.1:1/results/lab/bench/a100/1111/"


class Store:
    """Takes the place of Uploader: what was sent in which order, and an answer for each path."""

    sent: list[str]
    answers: dict[str, BaseException]

    def __init__(self, target: Target, credentials: Any, check: Any) -> None:
        self.check = check

    def send(self, folder: Folder, entry: Entry, *, patient: bool) -> None:
        self.check()
        Store.sent.append(entry.path)
        if entry.path in Store.answers:
            raise Store.answers[entry.path]

    send_all = Uploader.send_all


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> type[Store]:
    Store.sent, Store.answers = [], {}
    monkeypatch.setattr(publish, "Uploader", Store)
    return Store


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_tree(
        tmp_path / "run", {"logs/a/summary.txt": "VALID", "logs/b/summary.txt": "VALID", "report.json": "{}"}
    )


def publisher(root: Path, seconds: float = 20, **more: Any) -> Publisher:
    run = {"namespace": "bench", "name": "a100", "uid": "1111"}
    return Publisher({"run": run, "paths": {"results": str(root)}, **more}, KEYS, seconds=seconds)


def digest(root: Path) -> str:
    return hashlib.sha256((root / MANIFEST).read_bytes()).hexdigest()


def test_without_an_upload_there_is_a_manifest_and_nothing_else(root: Path, store: type[Store]) -> None:
    own = publisher(root)
    own.measured(str(root / "logs" / "a"))
    assert own.close() == {"manifestSha256": digest(root)}
    assert store.sent == []


def test_a_results_files_go_at_once_and_the_manifest_last(root: Path, store: type[Store]) -> None:
    own = publisher(root, upload=UPLOAD)
    own.measured(str(root / "logs" / "b"))
    end = time.monotonic() + 10
    while not store.sent and time.monotonic() < end:
        time.sleep(0.01)
    assert store.sent == ["logs/b/summary.txt"]
    assert own.close() == {"manifestSha256": digest(root), "uploadedTo": URL}
    assert store.sent[1:] == ["logs/a/summary.txt", "logs/b/summary.txt", "report.json", MANIFEST]


def test_what_did_not_go_at_once_is_tried_again_at_the_end(
    root: Path, store: type[Store], capsys: pytest.CaptureFixture[str]
) -> None:
    store.answers["logs/a/summary.txt"] = UploadError("the store is busy")
    own = publisher(root, upload=UPLOAD)
    own.measured(str(root / "logs" / "a"))
    end = time.monotonic() + 10
    while not store.sent and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.05)
    store.answers.clear()
    assert own.close()["uploadedTo"] == URL
    assert "logs/a: the store is busy; to be tried again at the end" in capsys.readouterr().err


@pytest.mark.parametrize("error", [UploadError("NoSuchBucket:\nnone"), ArtifactsError("x was written to")])
def test_a_copy_that_fails_is_told_and_has_no_manifest(root: Path, store: type[Store], error: Exception) -> None:
    store.answers["report.json"] = error
    found = publisher(root, upload=UPLOAD).close()
    assert found == {"manifestSha256": digest(root), "uploadError": " ".join(str(error).split())}
    assert MANIFEST not in store.sent


class Panic(BaseException):
    """As PyO3 raises it when Rust panics."""


@pytest.mark.parametrize("kind", [RuntimeError, Panic])
def test_an_error_of_any_kind_is_told(root: Path, store: type[Store], kind: type[BaseException]) -> None:
    store.answers["report.json"] = kind("a defect of the library" + "." * 9000)
    found = publisher(root, upload=UPLOAD).close()
    assert found["uploadError"].startswith(f"{kind.__name__}: a defect of the library")
    assert len(found["uploadError"]) == publish.MAX_ERROR


def test_an_error_while_measurements_go_on_is_told_too(root: Path, store: type[Store]) -> None:
    store.answers["logs/a/summary.txt"] = Panic("a defect of the library")
    own = publisher(root, upload=UPLOAD)
    own.measured(str(root / "logs/a"))
    assert own.close() == {"manifestSha256": digest(root), "uploadError": "Panic: a defect of the library"}


def test_a_manifest_that_cannot_be_written_is_told(
    root: Path, store: type[Store], capsys: pytest.CaptureFixture[str]
) -> None:
    (root / MANIFEST).mkdir()
    (root / MANIFEST / "file").touch()
    found = publisher(root, upload=UPLOAD).close()
    assert found == {"uploadError": "manifest.json cannot be written: Is a directory"}
    assert publisher(root).close() == {}
    assert store.sent == []


def test_reading_that_takes_too_long_ends(root: Path, store: type[Store]) -> None:
    started = time.monotonic()
    own = publisher(root, seconds=0, upload=UPLOAD)
    assert own.close() == {"uploadError": "not complete after 0 s"}
    assert time.monotonic() - started < 4


def test_a_store_that_holds_a_request_does_not_hold_the_end(
    root: Path, store: type[Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    held = threading.Event()
    monkeypatch.setattr(publish, "PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(Store, "send", lambda *_, **__: held.wait(30))
    started = time.monotonic()
    found = publisher(root, seconds=0.2, upload=UPLOAD).close()
    held.set()
    assert found == {"manifestSha256": digest(root), "uploadError": "not complete after 0.2 s"}
    assert time.monotonic() - started < 5


def test_early_sending_ends_with_the_time_too(root: Path, store: type[Store]) -> None:
    own = publisher(root, seconds=0, upload=UPLOAD)
    own._until = 0
    own._send_early("logs/a")
    assert store.sent == []


def test_nothing_that_is_said_holds_a_credential(
    root: Path, store: type[Store], capsys: pytest.CaptureFixture[str]
) -> None:
    keys = {
        "AWS_ACCESS_KEY_ID": "planted-id",
        "AWS_SECRET_ACCESS_KEY": "planted-secret",
        "AWS_SESSION_TOKEN": "planted",
    }
    store.answers["report.json"] = RuntimeError(f"panicked at {keys}")
    content = {"run": {}, "paths": {"results": str(root)}, "upload": UPLOAD}
    found = Publisher(content, keys, seconds=20).close()
    assert "RuntimeError: panicked at" in found["uploadError"]
    assert "(AWS_SECRET_ACCESS_KEY)" in found["uploadError"]
    assert "planted" not in found["uploadError"] + "".join(capsys.readouterr())


def test_what_is_passed_over_is_said(root: Path, store: type[Store], capsys: pytest.CaptureFixture[str]) -> None:
    (root / "link").symlink_to("report.json")
    assert publisher(root, upload=UPLOAD).close()["uploadedTo"] == URL
    assert "artifacts: link is not part of the artifacts: a symbolic link is not followed" in capsys.readouterr().err


def test_incomplete_credentials_are_told(root: Path) -> None:
    own = publisher(root, upload=UPLOAD)
    own._environment = {"AWS_ACCESS_KEY_ID": "a"}
    assert own.close()["uploadError"] == "the credentials have no AWS_SECRET_ACCESS_KEY"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("AWS_ACCESS_KEY_ID", "a\nb"),
        ("AWS_SECRET_ACCESS_KEY", "b c"),
        ("AWS_SESSION_TOKEN", "t\N{LATIN SMALL LETTER U WITH DIAERESIS}"),
    ],
)
def test_a_key_that_no_header_can_hold_is_told(root: Path, key: str, value: str) -> None:
    own = publisher(root, upload=UPLOAD)
    own._environment = {**KEYS, key: value}
    assert own.close()["uploadError"].startswith(f"{key} holds a space, a line end")


def test_a_line_end_after_a_key_is_not_part_of_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, str]] = []
    monkeypatch.setattr(upload, "_store", lambda _, credentials: seen.append(credentials))
    Uploader(Target.of_plan(UPLOAD), {"AWS_ACCESS_KEY_ID": "a\n", "AWS_SECRET_ACCESS_KEY": " b\r\n"}, lambda: None)
    assert {key: seen[0][key] for key in KEYS} == KEYS


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        *(
            ("endpoint", text, "is no endpoint; possible: http")
            for text in ("store", "http://", "ftp://h", "http://h:1:2", "http://h:99999", "http://h:0", "http://h/b")
        ),
        ("bucket", "a b", "is no bucket's name"),
        ("bucket", "", "is no bucket's name"),
        ("region", "x\ny", "is no region"),
    ],
)
def test_a_target_that_cannot_be_asked_is_told(root: Path, field: str, value: str, told: str) -> None:
    found = publisher(root, upload={**UPLOAD, field: value}).close()
    assert told in found["uploadError"]


def test_certificates_that_are_none_are_told(root: Path) -> None:
    own = publisher(root, upload=UPLOAD)
    pem = "-----BEGIN CERTIFICATE-----\nbm9uZQ==\n-----END CERTIFICATE-----\n"
    own._environment = {**KEYS, "S3_CA_BUNDLE": pem, "AWS_SESSION_TOKEN": "t"}
    assert "uploadError" in own.close()


def test_a_key_has_no_empty_parts() -> None:
    target = Target.of_plan(UPLOAD)
    assert target.key("a/b") == "lab/bench/a100/1111/a/b"
    assert Target(endpoint="http://s", bucket="b", path="p").key("a") == "p/a"
    assert target.url == URL


def refused(status: str) -> OSError:
    return OSError(f"Generic S3 error: Error performing PUT http://x - Server returned non-2xx status code: {status}: ")


@pytest.mark.parametrize(
    ("error", "passing"),
    [
        (refused("503 Service Unavailable"), True),
        (refused("429 Too Many Requests"), True),
        (refused("408 Request Timeout"), True),
        (refused("403 Forbidden"), False),
        (refused("307 Temporary Redirect"), False),
        (OSError("HTTP error: error sending request"), True),
        (FileNotFoundError("Object at location a not found"), False),
        (OSError("x InvalidCertificate(\n  UnknownIssuer,"), False),
    ],
)
def test_only_what_may_pass_is_tried_again(error: Exception, passing: bool) -> None:
    assert may_pass(error) is passing


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("x - y: <Error><Code>NoSuchBucket</Code><Message>None \n here</Message>", "NoSuchBucket: None \n here"),
        ("x - y: <Error><Code>SlowDown</Code></Error>", "SlowDown"),
        (
            'a - HTTP error: error sending request\n\nDebug {message: "Connection refused"}',
            "HTTP error: error sending request (Connection refused)",
        ),
        (
            "a - Server returned non-2xx status code: 403 Forbidden: ",
            "Server returned non-2xx status code: 403 Forbidden",
        ),
        ("", "OSError"),
    ],
)
def test_what_the_store_said_is_told_without_the_tale_around_it(text: str, short: str) -> None:
    assert said(OSError(text), Hidden({})) == short


def test_waiting_ends_with_the_time_and_says_for_what(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "FIRST_PAUSE_SECONDS", 0.1)
    monkeypatch.setattr(upload, "_RETRY", {"max_retries": 0})
    own = publisher(root, seconds=1, upload=UPLOAD)
    found = own.close()
    assert found["uploadError"].startswith(f"not complete after 1 s: {URL}logs/a/summary.txt: HTTP error")
    assert json.loads((root / MANIFEST).read_text())["run"]["uid"] == "1111"
