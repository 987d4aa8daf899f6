"""How a command that fails is told, tried again, and cleaned up after."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mlperf_operator.agent.wrapper import commands, processes, stage, steps, telling, tries
from unit.agent.bench import STAGE_PY, Bench, lines_of, make_tree, shared, step


def test_a_failed_command_is_told_with_its_code_and_its_last_lines(bench: Bench) -> None:
    assert bench.run(step("prebuild", "echo building; echo broken >&2; exit 3"), step("never", "exit 9")) == 65
    assert bench.told["reason"] == "StageFailed"
    assert bench.told["step"] == "prebuild"
    assert bench.told["exitCode"] == 3
    assert bench.told["tail"].splitlines()[-1] == "broken"


def test_a_command_ended_by_a_signal_has_the_shells_code(bench: Bench) -> None:
    assert bench.run(step("prebuild", "kill -9 $$")) == 65
    assert bench.told["exitCode"] == 137


@pytest.mark.parametrize(("argv", "why"), [(["no-such-program"], "the image has no"), (["/"], "cannot be started")])
def test_a_program_that_is_not_there_is_configuration(bench: Bench, argv: list[str], why: str) -> None:
    assert bench.run(step("prebuild", argv=argv)) == 64
    assert bench.told["reason"] == "ConfigInvalid"
    assert why in bench.told["message"]


@pytest.mark.parametrize("command", ["exit 75", "make", "make -C ."])
def test_a_transient_failure_is_tried_again_also_when_make_hides_it(bench: Bench, command: str) -> None:
    recipe = f"all:\n\t@echo x >> {bench.home}/count; test $$(wc -l < {bench.home}/count) -ge 3 || exit 75\n"
    make_tree(bench.work, {"Makefile": recipe})
    count = f"echo x >> {bench.home}/count; test $(wc -l < {bench.home}/count) -ge 3 || "
    assert bench.run(step("download", count + command if command.startswith("exit") else command)) == 0
    assert len(lines_of(bench.home / "count")) == 3


@pytest.mark.parametrize(
    ("line", "transient"),
    [
        ("make: *** [Makefile:2: download] Error 75", True),
        ("make[1]: *** [code/bert/download.mk:9: all] Error 75", True),
        ("/usr/bin/gmake[12]: *** [all] Error 75", True),
        ("make: *** [Makefile:2: download] Error 751", False),
        ("make: *** [Makefile:2: download] Error 2", False),
        ("the log says: make: *** [Makefile:2: download] Error 75", False),
    ],
)
def test_only_makes_own_line_says_that_a_recipe_failed_for_a_passing_reason(line: str, transient: bool) -> None:
    assert telling.is_remembered(line) is transient


@pytest.mark.parametrize("piece", ["make", "make*** ", "make: *** [a] Error ", "/make[1]"])
@pytest.mark.timeout(10)
def test_a_line_made_to_be_slow_is_not(piece: str) -> None:
    line = piece * (processes.MAX_LINE_BYTES // len(piece))
    assert not telling.is_remembered(line)


def test_a_transient_failure_that_stays_ends_the_stage(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    assert bench.run(step("download", f"echo x >> {bench.home}/count; exit 75")) == 65
    assert bench.told["reason"] == "DownloadFailed"
    assert len(lines_of(bench.home / "count")) == 1 + tries.TRANSIENT_RETRIES
    assert "try 2 of 4 in 0 s" in capfd.readouterr().out


def test_an_ordinary_failure_is_tried_again_only_where_the_plan_says_so(bench: Bench) -> None:
    assert bench.run(step("build", f"echo x >> {bench.home}/count; exit 1")) == 65
    assert bench.run(step("build", f"echo x >> {bench.home}/count; exit 1", retries=1)) == 65
    assert len(lines_of(bench.home / "count")) == 3


@pytest.mark.parametrize(
    "script",
    [
        "cat Makefile > /dev/full",
        "echo 'tar: Disk quota exceeded'; exit 2",
        "echo 'wget: No space left on device'; exit 75",
    ],
)
def test_a_full_volume_has_a_reason_of_its_own_and_is_not_tried_again(bench: Bench, script: str) -> None:
    make_tree(bench.work, {"Makefile": "all:\n"})
    assert bench.run(step("download", f"echo x >> {bench.home}/count; {script}", retries=3)) == 65
    assert bench.told["reason"] == "ScratchFull"
    assert "free some space" in bench.told["message"]
    assert lines_of(bench.home / "count") == ["x"]


def test_a_volume_that_is_full_by_its_own_account_is_too(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "FREE_BYTES_MIN", 1 << 62)
    assert bench.run(step("download", "exit 1")) == 65
    assert bench.told["reason"] == "ScratchFull"


def test_a_wrapper_that_cannot_write_says_so(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "/scratch/marker")

    monkeypatch.setattr(steps, "mark_done", full)
    assert bench.run(step("download")) == 65
    assert bench.told["reason"] == "ScratchFull"
    assert bench.told["message"].startswith("No space left on device: /scratch/marker")


def test_a_copy_that_filled_the_volume_is_told_as_that(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise shutil.Error([("a", "b", "[Errno 28] No space left on device: 'b'")])

    monkeypatch.setattr(steps, "carry_out", full)
    assert bench.run(step("download")) == 65
    assert bench.told["reason"] == "ScratchFull"


class TestLeftovers:
    """What a failed try left is gone before the next one; what others made is not."""

    @pytest.fixture
    def folder(self, bench: Bench) -> Path:
        return make_tree(bench.scratch / "models", {})

    def test_half_a_download_is_removed_before_the_retry(self, bench: Bench) -> None:
        file = bench.scratch / "models/a.onnx"
        # Like NVIDIA's scripts: what is there is not fetched again.
        script = f"mkdir -p {file.parent}; test -e {file} || {{ echo ha > {file}; exit 75; }}"
        assert bench.run(shared("download", script, file)) == 65
        assert not file.exists()

    def test_half_a_download_of_a_killed_try_is_removed_before_the_next(self, bench: Bench) -> None:
        file = bench.scratch / "models/a.onnx"
        half = f"mkdir -p {file.parent}; echo half > {file}; kill -9 $PPID"
        process = bench.start(shared("download", half, file))
        process.communicate()
        assert process.returncode == -9
        assert file.exists()
        assert bench.run(shared("download", f"test -e {file} || echo whole > {file}", file)) == 0
        assert file.read_text() == "whole\n"

    def test_what_a_user_put_there_stays(self, bench: Bench) -> None:
        make_tree(bench.scratch, {"models/mine.onnx": "mine"})
        pattern = bench.scratch / "models/*.onnx"
        assert bench.run(shared("download", f"echo half > {bench.scratch}/models/half.onnx; exit 1", pattern)) == 65
        assert [path.name for path in (bench.scratch / "models").iterdir()] == ["mine.onnx"]

    def test_an_empty_file_is_removed_whoever_left_it(self, bench: Bench) -> None:
        file = make_tree(bench.scratch, {"models/a.onnx": ""}) / "models/a.onnx"
        script = f"test -e {file} || echo whole > {file}"
        assert bench.run(shared("download", script, file, retries=1)) == 0
        assert file.read_text() == "whole\n"

    @pytest.mark.parametrize("checksum", [{}, {"sha256": "0" * 64}])
    def test_what_another_benchmark_finished_stays(self, bench: Bench, checksum: dict[str, str]) -> None:
        bert, wide = bench.scratch / "models/bert.onnx", bench.scratch / "models/*.onnx"
        assert bench.run(shared("bert", f"mkdir -p {bert.parent}; echo bert > {bert}", bert)) == 0
        conditions = [{"glob": str(wide), **checksum}]
        unet = shared("3d-unet", f"echo half > {bert.parent}/unet.onnx; exit 1", wide, postconditions=conditions)
        assert bench.run(unet) == 65
        assert [path.name for path in bert.parent.iterdir()] == ["bert.onnx"]

    def test_what_an_earlier_version_of_the_step_finished_stays_when_it_serves(self, bench: Bench) -> None:
        file = bench.scratch / "models/a.onnx"
        make = f"mkdir -p {file.parent}; echo old > {file}"
        assert bench.run(shared("download", make, file)) == 0
        attempt = next((bench.scratch / ".mlperf/markers").glob("download-*"))
        newer = shared("download", "exit 1", file, digest="newer")
        (attempt.parent / "download-attempt.json").write_text("{}")
        assert bench.run(newer) == 65
        assert file.read_text() == "old\n"


class TestOutput:
    """Whatever a command prints goes on and costs no memory."""

    def test_any_bytes_are_passed_on_as_they_are(self, bench: Bench, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
        assert bench.run(step("noisy", r"printf 'caf\351 \377\n\000'; printf 'a\rb\rend'; exit 1")) == 65
        assert b"caf\xe9 \xff\n\0a\rb\rend" in capfdbinary.readouterr().out
        assert bench.told["tail"].splitlines()[-1] == "end"

    def test_a_line_without_end_stays_small(self, bench: Bench) -> None:
        script = "import sys; [sys.stdout.write('x' * 100000) for _ in range(30)]; sys.exit(1)"
        assert bench.run(step("noisy", argv=[sys.executable, "-c", script])) == 65
        assert set(bench.told["tail"]) <= {"x", "\n"}

    def test_a_log_that_takes_nothing_stops_nothing(self, bench: Bench) -> None:
        bench.plan(step("noisy", f"echo out; echo x > {bench.home}/done"))
        with Path("/dev/full").open("w") as full:
            argv = [sys.executable, str(STAGE_PY), "prepare"]
            subprocess.run(argv, env={**os.environ, **bench.environment}, stdout=full, check=False)
        assert (bench.home / "done").exists()
        assert bench.told["reason"] == "Completed"


class TestTerminationMessage:
    """What the kubelet gets: JSON, short enough, with the newest lines."""

    @pytest.mark.parametrize("letter", ["x", "é", "\x1b", "\udcff", "😀", '"'])
    @pytest.mark.parametrize("size", [0, 300, 5000])
    def test_it_always_fits_and_is_json(self, letter: str, size: int) -> None:
        tail = [*(letter * 50 for _ in range(size // 50)), "newest"]
        message = stage.termination_message({"stage": "run", "reason": "R", "message": letter * size}, tail)
        assert len(message) <= 1000
        assert json.loads(message)["tail"].endswith("newest")

    def test_the_message_is_kept_before_the_tail(self) -> None:
        found = json.loads(stage.termination_message({"message": "m" * 300}, ["t" * 5000]))
        assert found["message"] == "m" * 300
        assert len(found["tail"]) > 500

    def test_fields_that_are_too_long_by_themselves_end_it(self) -> None:
        assert json.loads(stage.termination_message({"stage": "s" * 2000, "message": "m"}, ["t"]))["tail"] == ""

    def test_without_a_place_for_it_the_stage_still_ends_as_it_should(self, bench: Bench) -> None:
        bench.termination.mkdir()
        assert bench.run(step("prebuild", "exit 1")) == 65


class TestConfiguration:
    """What only another configuration can mend ends with 64."""

    def test_a_stage_that_the_plan_has_not(self, bench: Bench) -> None:
        bench.run(step("prebuild"))
        assert stage.main(["other"]) == 64
        assert bench.told["message"] == "plan.json has no stage 'other'; it has prepare"
        assert stage.main([]) == 64

    @pytest.mark.parametrize("content", ["{", "[]", "{}", '{"stages": {"prepare": {}}}', "3", '{"stages": 3}'])
    def test_a_plan_that_is_none(self, bench: Bench, content: str) -> None:
        bench.run(step("prebuild"))
        bench.plan_file.write_text(content)
        assert stage.main(["prepare"]) == 64
        assert "is no plan" in bench.told["message"]

    def test_a_plan_that_is_not_there(self, bench: Bench) -> None:
        bench.run(step("prebuild"))
        bench.plan_file.unlink()
        assert stage.main(["prepare"]) == 64
        assert "cannot be read" in bench.told["message"]

    def test_a_folder_that_is_not_mounted(self, bench: Bench) -> None:
        bench.work.rmdir()
        assert bench.run(step("prebuild")) == 64
        assert bench.told["message"].endswith("work is not mounted")

    def test_an_action_that_this_wrapper_does_not_know(self, bench: Bench) -> None:
        assert bench.run(step("prebuild", action="fly")) == 64
        assert "has action 'fly'" in bench.told["message"]
