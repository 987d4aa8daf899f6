"""What `make demo` and the end-to-end tests share: images, and the launcher's word."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

import installation


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("localhost/mlperf-operator:dev", ("localhost/mlperf-operator", "dev")),
        ("registry.example:5000/a/b:1", ("registry.example:5000/a/b", "1")),
        ("registry.example:5000/a/b", ("registry.example:5000/a/b", "latest")),
        ("mlperf-operator", ("mlperf-operator", "latest")),
    ],
)
def test_an_image_without_a_tag_is_the_latest(image: str, expected: tuple[str, str]) -> None:
    assert installation.repository_and_tag(image) == expected


def test_an_image_that_the_users_cluster_pulls_needs_no_buildah(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/does/not/exist")
    assert installation.image_id("registry.example/a:1") == "registry.example/a:1"


def test_a_refusal_of_the_launcher_ends_with_its_exit_code_and_its_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "launcher.py"
    script.write_text("import sys; sys.stderr.write('refused: no root\\n'); sys.exit(2)")
    monkeypatch.setattr(installation, "LAUNCHER", script)
    with pytest.raises(SystemExit) as ended:
        installation.launcher("up")
    assert ended.value.code == 2
    assert capfd.readouterr().err == "refused: no root\n"


def test_a_second_caller_waits_for_the_first_to_have_built(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entered = threading.Event()

    def second() -> None:
        with installation.only_caller(tmp_path):
            entered.set()

    with installation.only_caller(tmp_path):
        other = threading.Thread(target=second)
        other.start()
        assert not entered.wait(0.3)
    other.join(10)
    assert entered.is_set()
    assert "waiting for another caller" in capsys.readouterr().out
