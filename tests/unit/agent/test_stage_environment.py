"""The environment that prebuild makes: once for all runs, and in every container of a run before its first command."""

from __future__ import annotations

import fcntl
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from mlperf_operator.agent.wrapper import environment, errors, telling
from mlperf_operator.agent.wrapper.state import Stage
from unit.agent.bench import Bench, Step, line_with, lines_of, make_tree, shared, step, until
from unit.agent.roots_of import base_root, remove


def fresh(bench: Bench) -> Bench:
    """Give a run a fresh container of the image."""
    base_root(remove(bench.root))
    return bench


@pytest.fixture(autouse=True)
def _containers(bench: Bench, other: Bench) -> None:
    for each in (bench, other):
        fresh(each)
        make_tree(each.work, {"docker/install.sh": "apt install numactl"})


def install(bench: Bench, more: str = "true") -> Step:
    """Return the step whose prebuild installs one program and removes another."""
    root = bench.root
    script = f"echo x >> {bench.scratch}/count; echo $MLPERF_PREBUILD > {root}/usr/bin/numactl; rm {root}/usr/bin/cmake"
    return {
        "id": "environment",
        "action": "snapshot",
        "argv": ["sh", "-c", f"{script}; {more}"],
        "env": {"MLPERF_PREBUILD": "install"},
        "scope": "Shared",
        "digest": "e1",
        "inputs": [f"{bench.work}/docker/*.sh"],
        "store": f"{bench.scratch}/.mlperf/environments",
    }


def use(bench: Bench, name: str = "use", **more: Any) -> Step:
    """Return a step that needs what was installed, and that what was removed is not there."""
    return step(name, f"grep -q install {bench.root}/usr/bin/numactl && ! test -e {bench.root}/usr/bin/cmake", **more)


def kept_in(bench: Bench) -> list[Path]:
    """Return the environments on scratch."""
    return sorted((bench.scratch / ".mlperf/environments").glob("*"))


def test_every_later_container_has_it(bench: Bench) -> None:
    assert bench.run(install(bench), name="prebuild") == 0
    assert bench.told["reason"] == "Completed"
    assert bench.told["message"].startswith("environment: kept 1 files, ")
    for name in ("build", "run"):
        assert fresh(bench).run(use(bench, name), name=name, environment=True) == 0
        assert bench.told["message"].startswith("environment: laid over 1 files, ")


def test_another_run_finds_it(bench: Bench, other: Bench) -> None:
    assert bench.run(install(bench), name="prebuild") == 0
    assert other.run(install(other), name="prebuild") == 0
    assert other.told["reason"] == "Skipped"
    assert " by run uid-1; 1 files, " in other.told["message"]
    assert lines_of(bench.scratch / "count") == ["x"]
    assert other.run(use(other), name="build", environment=True) == 0


@pytest.mark.parametrize("what", ["script", "base", "step"])
def test_other_scripts_another_image_or_another_suite_make_another(bench: Bench, other: Bench, what: str) -> None:
    assert bench.run(install(bench), name="prebuild") == 0
    if what == "script":
        make_tree(other.work, {"docker/install.sh": "apt install numactl sysstat"})
    elif what == "base":
        make_tree(other.root, {"etc/os-release": "ID=another\n"})
    assert other.run({**install(other), **({"digest": "e2"} if what == "step" else {})}, name="prebuild") == 0
    assert lines_of(bench.scratch / "count") == ["x", "x"]
    assert len(kept_in(bench)) == 2


def test_a_tree_without_the_scripts_is_configuration(bench: Bench) -> None:
    remove(bench.work / "docker")
    assert bench.run(install(bench), name="prebuild") == 64
    assert "docker/*.sh, from which prebuild makes the environment" in bench.told["message"]


@pytest.mark.parametrize("code", [1, errors.EXIT_TRANSIENT])
def test_a_prebuild_that_fails_is_not_tried_again_where_it_failed(bench: Bench, code: int) -> None:
    assert bench.run(install(bench, f"exit {code}"), name="prebuild") == 65
    assert "another try needs a fresh container: start the run again" in bench.told["message"]
    assert bench.told["exitCode"] == code
    assert kept_in(bench) == []
    assert bench.run(install(bench), name="prebuild") == 65
    assert bench.told["reason"] == "EnvironmentFailed"
    assert "this container's root is no longer as its image has it" in bench.told["message"]
    assert lines_of(bench.scratch / "count") == ["x"]
    assert fresh(bench).run(install(bench), name="prebuild") == 0


def test_a_damaged_one_is_made_again_by_prebuild(bench: Bench, other: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    assert bench.run(install(bench), name="prebuild") == 0
    (folder,) = kept_in(bench)
    (folder / "environment.tar").write_bytes(b"damaged")
    assert other.run(install(other), name="prebuild") == 0
    assert "was made before, but" in capfd.readouterr().out
    assert other.run(use(other), name="build", environment=True) == 0


def test_a_damaged_one_ends_a_later_stage_at_once(bench: Bench) -> None:
    assert bench.run(install(bench), name="prebuild") == 0
    (folder,) = kept_in(bench)
    os.truncate(folder / "environment.tar", 1000)
    steps = [step(name, f"echo {name} >> {bench.home}/ran", continueOnFailure=True) for name in ("one", "two")]
    assert fresh(bench).run(*steps, name="run", environment=True) == 65
    assert bench.told["reason"] == "EnvironmentFailed"
    assert "is cut or was changed; start the run again" in bench.told["message"]
    assert lines_of(bench.home / "ran") == []


def test_a_stage_that_needs_it_before_it_was_made_is_configuration(bench: Bench) -> None:
    assert bench.run(use(bench), name="build", environment=True) == 64
    assert "run stage prebuild first" in bench.told["message"]


def test_a_stage_with_nothing_to_do_does_without(bench: Bench) -> None:
    assert bench.run(install(bench), name="prebuild") == 0
    for reason, there in (("Completed", True), ("Skipped", False)):
        assert fresh(bench).run(use(bench), name="build", environment=True) == 0
        assert bench.told["reason"] == reason
        assert (bench.root / "usr/bin/numactl").exists() is there


def test_it_is_laid_over_once_a_container(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    assert bench.run(install(bench), name="prebuild") == 0
    assert fresh(bench).run(use(bench, "one"), use(bench, "two"), name="build", environment=True) == 0
    assert bench.run(use(bench, "three"), name="run", environment=True) == 0
    assert capfd.readouterr().out.count("] laid over") == 1
    assert bench.told["message"] == "environment: is there already in this container"


def test_what_runs_share_depends_on_it(bench: Bench, other: Bench) -> None:
    make_tree(other.root, {"etc/os-release": "ID=another\n"})
    for each in (bench, other):
        assert each.run(install(each), name="prebuild") == 0
        built = shared("build", f"echo x >> {bench.scratch}/builds", publishTree=True)
        assert each.run(built, name="build", environment=True) == 0
    assert lines_of(bench.scratch / "builds") == ["x", "x"]


def _is_free(lock: Path) -> bool:
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def test_what_a_killed_prebuild_left_is_removed_by_the_next(bench: Bench, other: Bench) -> None:
    process = bench.start(install(bench, f"while ! test -e {bench.home}/go; do sleep 0.02; done"), name="prebuild")
    until((bench.scratch / "count").exists)
    process.kill()
    process.wait()
    (left,) = kept_in(bench)
    assert [path.name for path in left.iterdir()] == ["before.jsonl"]
    make_tree(other.work, {"docker/install.sh": "others"})
    assert other.run(install(other), name="prebuild") == 0
    assert left in kept_in(bench), "its command still works there"
    (bench.home / "go").touch()
    (lock,) = (bench.scratch / ".mlperf/locks").glob(f"environment-{left.name[:16]}.lock")
    until(lambda: _is_free(lock))
    make_tree(other.work, {"docker/install.sh": "still others"})
    assert fresh(other).run(install(other), name="prebuild") == 0
    assert left not in kept_in(bench)


def test_a_second_run_waits_for_the_first(bench: Bench, other: Bench) -> None:
    process = bench.start(install(bench, f"while ! test -e {bench.home}/go; do sleep 0.02; done"), name="prebuild")
    until((bench.scratch / "count").exists)
    second = other.start(install(other), name="prebuild")
    line_with(second, "waiting for run uid-1")
    (bench.home / "go").touch()
    assert process.communicate()[0]
    assert "skipped, done " in second.communicate()[0]
    assert (process.returncode, second.returncode) == (0, 0)
    assert lines_of(bench.scratch / "count") == ["x"]


def test_the_environment_of_the_stage_is_that_of_its_commands(bench: Bench) -> None:
    one = step("one", f"echo $PIP_NO_INDEX $LOG_DIR > {bench.home}/seen", env={"LOG_DIR": "own"})
    assert bench.run(one, env={"PIP_NO_INDEX": "1", "LOG_DIR": "stage"}) == 0
    assert (bench.home / "seen").read_text() == "1 own\n"


def test_a_full_volume_is_told_as_that(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(found: Stage, argv: list[str], env: dict[str, str]) -> int:
        found.telling.append(f"{telling.ENVIRONMENT_FINDING}No space left on device: /scratch/x")
        return 1

    monkeypatch.setattr(environment, "execute", full)
    assert bench.run(install(bench), name="prebuild") == 65
    assert bench.told["reason"] == "ScratchFull"


def test_a_program_that_crashes_is_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert bench.run(install(bench), name="prebuild") == 65
    assert bench.told["message"] == "environment: snapshot.py identify ended with 1"


def test_the_run_remembers_which_one_it_has(bench: Bench) -> None:
    assert bench.run(install(bench), name="prebuild") == 0
    note = json.loads((bench.state / "environment.json").read_text())
    (folder,) = kept_in(bench)
    assert (note["folder"], note["digest"]) == (str(folder), folder.name)
