"""`mlperf-operator artifacts`: what it prints and how it ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mlperf_operator.agent import upload
from mlperf_operator.agent.artifacts import ArtifactsError, Folder, write_manifest
from mlperf_operator.agent.upload import UploadError
from mlperf_operator.cli import app
from mlperf_operator.naming import UPLOAD_SECRET_KEYS

RUN = {"namespace": "bench", "name": "a100", "uid": "1111"}
TO = ["--endpoint", "http://store", "--bucket", "results"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "report.json").write_text("{}")
    (tmp_path / "link").symlink_to("report.json")
    write_manifest(Folder(tmp_path), RUN)
    return tmp_path


def run(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["artifacts", *map(str, arguments)])
    return done.exit_code, done.output


def test_a_folder_that_holds_is_said_to(folder: Path) -> None:
    code, text = run("verify", folder)
    assert code == 0
    assert text.startswith("1 files of bench/a100 (1111) are as the manifest says; its sha256 is ")
    assert "not part of the artifacts: link: a symbolic link is not followed" in text


def test_what_differs_is_said_line_by_line(folder: Path) -> None:
    (folder / "report.json").write_text("changed")
    (folder / "new\x1b[2J").touch()
    code, text = run("verify", folder)
    assert code == 1
    assert "Error: report.json has 7 bytes and had 2\n" in text
    assert "\x1b" not in text
    assert run("upload", folder, *TO)[0] == 1


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    code, text = run("verify", tmp_path)
    assert code == 2
    assert "manifest.json is not there" in text
    assert run("upload", tmp_path / "none", *TO)[0] == 2


def test_an_upload_needs_credentials(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in UPLOAD_SECRET_KEYS:
        monkeypatch.delenv(key, raising=False)
    code, text = run("upload", folder, *TO)
    assert code == 2
    assert text == "Error: the credentials have no AWS_ACCESS_KEY_ID and no AWS_SECRET_ACCESS_KEY\n"


@pytest.mark.parametrize("error", [UploadError("NoSuchBucket"), ArtifactsError("x changed"), None])
def test_an_upload_tells_where_it_is_or_why_not(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    sent: list[str] = []

    def send(_: object, __: Folder, entry: Any, *, patient: bool) -> None:
        assert not patient
        sent.append(entry.path)
        if error is not None:
            raise error

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    monkeypatch.setattr(upload.Uploader, "send", send)
    code, text = run("upload", folder, *TO, "--prefix", "lab")
    if error is None:
        assert (code, text) == (0, "http://store/results/lab/bench/a100/1111/\n")
        assert sent == ["report.json", "manifest.json"]
    else:
        assert (code, text) == (1, f"Error: {error}\n")
