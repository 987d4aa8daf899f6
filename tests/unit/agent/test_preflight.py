"""What preflight finds: everything at once, in sentences."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import resource
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlperf_operator.agent import preflight
from unit.agent.bench import Bench

A100 = {"product": "A100-SXM4-40GB", "count": 2}
ROW = "NVIDIA A100-SXM4-40GB, Disabled, 400.00, 400.00\n"


def _preflight(checks: dict[str, Any]) -> dict[str, Any]:
    return {"id": "preflight", "action": "preflight", "scope": "Private", "digest": "p", "checks": checks}


def test_nothing_wrong_is_no_finding(tmp_path: Path) -> None:
    checks = {"tools": ["sh"], "volumes": [{"path": str(tmp_path), "minFreeBytes": 1}], "shmBytes": 1, "gpu": None}
    assert preflight.findings(checks) == []
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


class TestSmi:
    """nvidia-smi's rows, good and bad."""

    def test_the_system_as_it_should_be(self) -> None:
        assert preflight.smi_findings(ROW * 2, A100) == []

    @pytest.mark.parametrize(
        ("text", "found"),
        [
            (ROW, ["1 GPUs are visible and the system has 2"]),
            ("", ["0 GPUs are visible and the system has 2"]),
            (
                "No devices were found\n",
                ["nvidia-smi says: No devices were found", "0 GPUs are visible and the system has 2"],
            ),
            (
                ROW + "Unable to determine the device handle for GPU 0000:07:00.0: GPU is lost\n",
                [
                    "nvidia-smi says: Unable to determine the device handle for GPU 0000:07:00.0: GPU is lost",
                    "1 GPUs are visible and the system has 2",
                ],
            ),
            (
                ROW + "NVIDIA A100-SXM4-80GB, Disabled, 400.00, 400.00\n",
                ["GPU 1 is NVIDIA A100-SXM4-80GB and the system has A100-SXM4-40GB"],
            ),
            (ROW + ROW.replace("Disabled", "Enabled"), ["GPU 1 has MIG on; turn it off with nvidia-smi -mig 0"]),
            (
                ROW.replace("400.00,", "225.00,") + ROW,
                ["GPU 0 is limited to 225.00 W and its default is 400.00 W; nvidia-smi -pl sets it"],
            ),
            (ROW.replace("400.00", "[N/A]") * 2, []),
            (ROW.replace("400.00,", "[Not Supported],").replace("Disabled", "[N/A]") * 2, []),
            (ROW.replace("400.00,", "400,") * 2, []),
        ],
    )
    def test_what_differs_is_said(self, text: str, found: list[str]) -> None:
        assert preflight.smi_findings(text, A100) == found

    @pytest.fixture
    def smi(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
        def install(script: str) -> None:
            program = tmp_path / "nvidia-smi"
            program.write_text(f"#!/bin/sh\n{script}\n")
            program.chmod(0o755)

        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        monkeypatch.setattr(preflight, "cuda_findings", lambda _: [])
        return install

    def test_it_is_asked(self, smi: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(preflight, "memlock_findings", list)
        smi(f"printf '{ROW * 2}'".replace("\n", "\\n"))
        assert preflight.findings({"gpu": A100}) == []

    def test_its_refusal_is_told_in_its_own_words(self, smi: Callable[[str], None]) -> None:
        smi("echo NVIDIA-SMI has failed because it could not communicate with the driver; exit 9")
        why = "NVIDIA-SMI has failed because it could not communicate with the driver"
        assert preflight.gpu_findings(A100) == [f"nvidia-smi ended with 9: {why}"]

    def test_its_silence_is_told(self, smi: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(preflight, "_SMI_SECONDS", 0.1)
        smi("exec sleep 30")
        assert preflight.gpu_findings(A100) == ["nvidia-smi does not answer within 0.1 s"]

    def test_its_absence_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "/no/such/folder")
        assert preflight.gpu_findings(A100) == ["nvidia-smi cannot be started: No such file or directory"]


class _Cuda:
    """A CUDA driver library with the given answers."""

    def __init__(self, init: int = 0, count: int = 2, broken: int | None = None) -> None:
        self.init, self.count, self.broken, self.destroyed = init, count, broken, 0

    def cuInit(self, _: int) -> int:  # noqa: N802 - CUDA's name
        return self.init

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        count._obj.value = self.count
        return 0

    def cuDeviceGet(self, device: Any, index: int) -> int:  # noqa: N802
        device._obj.value = index
        return 0

    def cuCtxCreate_v2(self, _: Any, __: int, device: ctypes.c_int) -> int:  # noqa: N802
        return 46 if device.value == self.broken else 0

    def cuCtxDestroy_v2(self, _: Any) -> int:  # noqa: N802
        self.destroyed += 1
        return 0


@pytest.mark.parametrize(
    ("cuda", "found"),
    [
        (_Cuda(), []),
        (
            _Cuda(init=802),
            ["CUDA says 802, system not ready: the fabric manager is not running or not of the driver's version"],
        ),
        (_Cuda(init=100), ["CUDA cannot be initialised: cuInit says 100"]),
        (_Cuda(count=1), ["CUDA sees 1 GPUs (error 0) and the system has 2"]),
        (_Cuda(broken=1), ["no CUDA context can be made on GPU 1: error 46"]),
    ],
)
def test_a_context_on_every_gpu_is_the_proof(monkeypatch: pytest.MonkeyPatch, cuda: _Cuda, found: list[str]) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: cuda)
    assert preflight.cuda_findings(A100) == found


def test_a_container_without_the_driver_library_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: str) -> None:
        raise OSError("libcuda.so.1: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", refused)
    assert "driver library is not in the container" in preflight.cuda_findings(A100)[0]
