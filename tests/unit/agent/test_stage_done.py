"""When a step counts as done, and when it is done again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mlperf_operator.agent.wrapper.files import write_atomically
from unit.agent.bench import Bench, lines_of, shared, step


def _data(bench: Bench, name: str = "a.csv") -> Path:
    return bench.scratch / "data" / name


def _download(bench: Bench, content: str = "rows", **more: object) -> dict[str, object]:
    file, count = _data(bench), bench.scratch / "count"
    script = f"echo x >> {count}; mkdir -p {file.parent}; echo {content} > {file}"
    return shared("download", script, file, **more)


def test_a_step_runs_once_and_says_that_it_was_done(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    one = step("prebuild", f"echo x >> {bench.home}/count")
    assert bench.run(one) == 0
    assert bench.told == {"stage": "prepare", "reason": "Completed", "message": "", "tail": ""}
    assert bench.run(one) == 0
    assert bench.told["reason"] == "Skipped"
    assert lines_of(bench.home / "count") == ["x"]
    assert "prebuild: skipped, done 20" in capfd.readouterr().out


def test_a_step_with_other_inputs_runs_again(bench: Bench) -> None:
    for digest in ("one", "two"):
        assert bench.run(step("prebuild", f"echo x >> {bench.home}/count", digest=digest)) == 0
    assert lines_of(bench.home / "count") == ["x", "x"]


def test_what_one_run_prepared_another_uses(bench: Bench, other: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    assert bench.run(_download(bench)) == 0
    assert other.run(_download(other)) == 0
    assert other.told["reason"] == "Skipped"
    assert "by run uid-1" in capfd.readouterr().out
    assert lines_of(bench.scratch / "count") == ["x"]


def test_what_runs_share_depends_on_the_code_tree(bench: Bench, other: Bench) -> None:
    assert bench.run(_download(bench)) == 0
    (other.state / "tree.sha256").write_text("another tree")
    assert other.run(_download(other)) == 0
    assert lines_of(bench.scratch / "count") == ["x", "x"]


@pytest.mark.parametrize("harm", ["gone", "cut", "changed"])
def test_a_step_whose_outcome_was_touched_is_done_again(
    bench: Bench, harm: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert bench.run(_download(bench)) == 0
    if harm == "gone":
        _data(bench).unlink()
    else:
        _data(bench).write_text("" if harm == "cut" else "other rows")
    assert bench.run(_download(bench)) == 0
    assert _data(bench).read_text() == "rows\n"
    assert "was done before, but" in capfd.readouterr().out


@pytest.mark.parametrize("content", ["", "[1]", "{", '{"digest": "another"}', '{"files": 3}'])
def test_a_marker_that_cannot_be_believed_is_none(bench: Bench, content: str) -> None:
    assert bench.run(_download(bench)) == 0
    marker = next((bench.scratch / ".mlperf/markers").glob("download-*.json"))
    marker.write_text(content)
    assert bench.run(_download(bench)) == 0
    assert json.loads(marker.read_text())["run"] == "uid-1"
    assert lines_of(bench.scratch / "count") == ["x", "x"]


def test_success_without_the_files_is_a_failure(bench: Bench) -> None:
    assert bench.run(shared("download", "true", _data(bench))) == 65
    assert bench.told["reason"] == "PostconditionFailed"
    assert f"ended with 0 but left 0 of 1 files {_data(bench)}" in bench.told["message"]
    assert not list((bench.scratch / ".mlperf/markers").glob("*.json"))


@pytest.mark.parametrize(
    ("condition", "why"),
    [
        ({"minBytes": 100}, "has 5 bytes"),
        ({"minCount": 2}, "1 of 2 files"),
        ({"md5": "0" * 32}, "has another md5"),
        ({"sha256": "0" * 64}, "has another sha256"),
    ],
)
def test_files_are_held_against_size_count_and_checksum(bench: Bench, condition: dict[str, object], why: str) -> None:
    wanted = {"glob": str(_data(bench)), **condition}
    assert bench.run(_download(bench, postconditions=[wanted])) == 65
    assert why in bench.told["message"]


def test_a_checksum_that_fits_is_a_success(bench: Bench) -> None:
    wanted = {"glob": str(_data(bench)), "md5": "fb66bb90028a8fe8179acd70a7ad3593"}
    assert bench.run(_download(bench, postconditions=[wanted])) == 0


def test_shared_steps_need_the_code_tree(bench: Bench) -> None:
    (bench.state / "tree.sha256").unlink()
    assert bench.run(_download(bench)) == 64
    assert "run stage code first" in bench.told["message"]


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    (target / "in-the-way").mkdir(parents=True)
    with pytest.raises(OSError, match=r"folder"):
        write_atomically(target, "text")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder"]
