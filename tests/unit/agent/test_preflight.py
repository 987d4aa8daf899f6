"""What preflight finds: everything at once, in sentences."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mlperf_operator.agent.wrapper import preflight
from unit.agent.bench import Bench


def _preflight(checks: dict[str, Any]) -> dict[str, Any]:
    return {"id": "preflight", "action": "preflight", "scope": "Private", "digest": "p", "checks": checks}


def test_nothing_wrong_is_no_finding(tmp_path: Path) -> None:
    checks = {"tools": ["sh"], "volumes": [{"path": str(tmp_path), "minFreeBytes": 1}], "shmBytes": 1, "gpu": None}
    assert preflight.look(checks) == ([], {})
    assert list(tmp_path.iterdir()) == []


def test_every_finding_is_told_at_once_and_ends_the_stage_as_configuration(
    bench: Bench, capfd: pytest.CaptureFixture[str]
) -> None:
    volumes = [{"path": "/no/such/folder"}, {"path": str(bench.work), "minFreeBytes": 1 << 62}]
    assert bench.run(_preflight({"tools": ["no-such-tool"], "volumes": volumes})) == 64
    output = capfd.readouterr().out
    assert output.count("[preflight] finding: ") == 3
    assert bench.told["reason"] == "PreflightFailed"
    first, second, third = bench.told["message"].split("; ")
    assert (first, second) == ("the image has no no-such-tool", "/no/such/folder is not there")
    assert third.endswith("and needs 4294967296.0 GiB")


def test_more_findings_than_fit_are_all_in_the_log(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    tools = [f"tool-that-is-not-there-{number}" for number in range(38)]
    assert bench.run(_preflight({"tools": tools})) == 64
    output = capfd.readouterr().out
    assert all(f"finding: the image has no {tool}\n" in output for tool in tools)
    assert len(bench.termination.read_bytes()) > 900


def test_a_preflight_without_findings_passes(bench: Bench) -> None:
    assert bench.run(_preflight({})) == 0


def test_a_preflight_that_crashes_is_no_pass(bench: Bench) -> None:
    assert bench.run(_preflight({"volumes": [{}]})) == 65
    assert bench.told["message"] == "preflight ended with 1"
    assert "KeyError" in bench.told["tail"]


def test_what_it_prints_is_one_line_a_finding(capsys: pytest.CaptureFixture[str]) -> None:
    assert preflight.main([json.dumps({"tools": ["no\nsuch tool"]})]) == 1
    assert capsys.readouterr().out == "[preflight] finding: the image has no no such tool\n"
    assert preflight.main(["{}"]) == 0


class TestVolumes:
    """What a volume has to do."""

    def test_one_that_cannot_be_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refused(*_: object, **__: object) -> None:
            raise OSError(30, "Read-only file system")

        monkeypatch.setattr(Path, "mkdir", refused)
        assert preflight.volume_findings(tmp_path, 0) == [f"{tmp_path} cannot be written: Read-only file system"]

    @pytest.mark.parametrize(
        ("owner", "name", "what"),
        [
            (Path, "symlink_to", "symbolic links"),
            (subprocess, "run", "programs"),
            (fcntl, "flock", "file locks"),
            (Path, "rename", "renames"),
        ],
    )
    def test_one_that_cannot_do_all(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, what: str
    ) -> None:
        def refused(*_: object, **__: object) -> None:
            raise OSError(1, "Operation not permitted")

        monkeypatch.setattr(owner, name, refused)
        assert preflight.volume_findings(tmp_path, 0) == [f"{tmp_path} does not do {what}: Operation not permitted"]

    def test_a_script_that_does_not_run_is_told(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refused(*_: object, **__: object) -> None:
            raise subprocess.CalledProcessError(126, "script")

        monkeypatch.setattr(subprocess, "run", refused)
        (found,) = preflight.volume_findings(tmp_path, 0)
        assert "does not do programs: Command 'script' returned non-zero exit status 126" in found


def test_a_small_shm_is_told() -> None:
    (found,) = preflight.shm_findings(1 << 60)
    assert found.startswith("/dev/shm has ")
    assert found.endswith("GiB and needs 1073741824.0 GiB")
    assert preflight.shm_findings(0) == []


@pytest.mark.parametrize(("limit", "capabilities", "told"), [(-1, 0, False), (65536, 0, True), (65536, 1 << 14, False)])
def test_memory_must_be_lockable(monkeypatch: pytest.MonkeyPatch, limit: int, capabilities: int, *, told: bool) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    monkeypatch.setattr(Path, "read_text", lambda _: f"Name: x\nCapEff:\t{capabilities:016x}\n")
    assert bool(preflight.memlock_findings()) is told


def test_an_offline_run_is_told_everything_that_is_not_on_scratch(tmp_path: Path) -> None:
    bare, work = tmp_path / "bare.git", tmp_path / "clone"
    subprocess.run(["git", "init", "-q", "--bare", str(bare)], check=True)
    subprocess.run(["git", "init", "-q", str(work)], check=True)
    (tmp_path / "empty.git").mkdir()
    (tmp_path / "pybind11-2.11.1-py3-none-any.whl").touch()
    there = {"repositories": [str(bare), str(work)], "files": [f"{tmp_path}/pybind11-2.11.1-*.whl"]}
    assert preflight.look({"offline": there}) == ([], {})
    absent = {
        "repositories": [str(bare), f"{tmp_path}/empty.git", f"{tmp_path}/no.git"],
        "files": [f"{tmp_path}/wheel-*.whl"],
    }
    [finding], _ = preflight.look({"offline": absent})
    assert finding == (
        f"environment.offline is set and there is no git repository {tmp_path}/empty.git, no git repository "
        f"{tmp_path}/no.git, no {tmp_path}/wheel-*.whl"
    )


def test_what_earlier_runs_prepared_counts_as_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data/squad").mkdir(parents=True)
    (tmp_path / "data/squad/dev.json").write_bytes(b"x" * (8 << 20))
    (tmp_path / "data/gone").symlink_to("/no/such/file")
    space = os.statvfs(tmp_path)
    wanted = space.f_bavail * space.f_frsize + (4 << 20)
    monkeypatch.setattr(os, "statvfs", lambda _: space)
    assert preflight.volume_findings(tmp_path, wanted, ["data", "models"]) == []
    (found,) = preflight.volume_findings(tmp_path, wanted, ["models"])
    assert "earlier runs" not in found
    (found,) = preflight.volume_findings(tmp_path, wanted + (1 << 40), ["data"])
    assert "free, beside 0.0 GiB of earlier runs, and needs" in found
