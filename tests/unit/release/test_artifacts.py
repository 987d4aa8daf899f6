"""The files of a release: which images the chart names, and the same bytes each time."""

import io
import os
import tarfile
from pathlib import Path

import pytest
import yaml

from release import artifacts
from release.artifacts import ReleaseError

DIGEST = "sha256:" + "ab" * 32
OPERATOR = f"ghcr.io/example/mlperf-operator:1.2.0@{DIGEST}"
HARNESS = f"ghcr.io/example/mlperf-operator/reference-harness:1.2.0@{DIGEST}"
VALUES = (artifacts.CHART / "values.yaml").read_text()


def test_the_released_chart_names_the_released_images() -> None:
    before, after = yaml.safe_load(VALUES), yaml.safe_load(artifacts.released_values(VALUES, OPERATOR, HARNESS))
    assert f"{after['image']['repository']}:{after['image']['tag']}" == OPERATOR
    assert after["suiteImages"] == {"reference-cpu": HARNESS}
    after["image"], after["suiteImages"] = before["image"], before["suiteImages"]
    assert after == before


def test_the_released_chart_keeps_its_comments() -> None:
    def comments(text: str) -> list[str]:
        return [line for line in text.splitlines() if line.lstrip().startswith("#")]

    assert comments(artifacts.released_values(VALUES, OPERATOR, HARNESS)) == comments(VALUES)


def test_values_without_the_line_to_replace_are_no_release() -> None:
    with pytest.raises(ReleaseError, match="suiteImages"):
        artifacts.released_values(VALUES.replace("suiteImages: {}", "suiteImages: {a: b}"), OPERATOR, HARNESS)


@pytest.mark.parametrize(
    ("image", "parts"),
    [
        ("ghcr.io/a/b:1.0.0", ("ghcr.io/a/b", "1.0.0")),
        ("localhost:5000/b:1.0.0-rc.1", ("localhost:5000/b", "1.0.0-rc.1")),
        (OPERATOR, ("ghcr.io/example/mlperf-operator", f"1.2.0@{DIGEST}")),
    ],
)
def test_an_image_has_a_repository_and_a_tag(image: str, parts: tuple[str, str]) -> None:
    assert artifacts.split(image) == parts


@pytest.mark.parametrize("image", ["b", "localhost:5000/b", f"a/b@{DIGEST}", "a/b:1@sha256:ab", "a/b:", ""])
def test_an_image_without_a_tag_or_with_half_a_digest_is_refused(image: str) -> None:
    with pytest.raises(ReleaseError, match="possible"):
        artifacts.split(image)


def archive(names: list[str], seconds: int) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as target:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size, member.mtime, member.uname = len(name), seconds, f"user-{seconds}"
            target.addfile(member, io.BytesIO(name.encode()))
    return packed.getvalue()


def test_an_archive_depends_on_its_content_alone() -> None:
    one, other = archive(["x/b", "x/a"], 1), archive(["x/a", "x/b"], 2)
    assert one != other
    assert artifacts.repeatable(one, 7) == artifacts.repeatable(other, 7)
    with tarfile.open(fileobj=io.BytesIO(artifacts.repeatable(one, 7))) as read:
        assert {m.name: (m.mtime, m.mode) for m in read} == {"x/a": (7, 0o644), "x/b": (7, 0o644)}
        content = read.extractfile("x/b")
        assert content is not None
        assert content.read() == b"x/b"


def test_another_content_is_another_archive() -> None:
    assert artifacts.repeatable(archive(["x/a"], 1), 7) != artifacts.repeatable(archive(["x/c"], 1), 7)


def test_checksums_are_as_sha256sum_reads_them(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / name).write_text(name)
    written = artifacts.checksums([tmp_path / "b", tmp_path / "a"], tmp_path)
    assert [line.split("  ")[1] for line in written.read_text().splitlines()] == ["a", "b"]
    assert os.waitstatus_to_exitcode(os.system(f"cd '{tmp_path}' && sha256sum --check --quiet {written.name}")) == 0  # noqa: S605
