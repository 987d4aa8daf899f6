"""What preflight finds out by CUDA on every GPU, from programs that may never answer, and how the status gets it."""

from __future__ import annotations

import ctypes
import json
import time
from typing import Any

import pytest

from mlperf_operator.agent.wrapper import preflight
from mlperf_operator.agent.wrapper.preflight import Answer
from unit.agent.bench import Bench
from unit.agent.standin_gpus import A100, Cuda, Gpus, rows


class TestCuda:
    """A context on every GPU, the proof that the driver and the fabric manager work."""

    @pytest.mark.parametrize(
        ("cuda", "found"),
        [
            (Cuda(), []),
            (
                Cuda(init=802),
                [
                    "CUDA cannot be initialised: cuInit says 802, system not ready: the fabric manager is not running "
                    "or not of the driver's version"
                ],
            ),
            (Cuda(init=3), ["CUDA cannot be initialised: cuInit says 3"]),
            (Cuda(count=1), ["CUDA sees 1 GPUs and the system has 2"]),
            (Cuda(count=0), ["CUDA sees 0 GPUs and the system has 2"]),
            (
                Cuda(codes={0: 46, 1: 46}),
                ["GPU 0, 1: no CUDA context: error 46, another process has the GPU for itself"],
            ),
            (
                Cuda(count=1, codes={0: 719}),
                ["CUDA sees 1 GPUs and the system has 2", "GPU 0: no CUDA context: error 719"],
            ),
        ],
    )
    def test_a_context_is_made_on_every_gpu_and_given_back(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], cuda: Cuda, found: list[str]
    ) -> None:
        monkeypatch.setattr(ctypes, "CDLL", lambda _: cuda)
        code = preflight.main(["cuda"])
        assert preflight.cuda_findings(Answer(code, capsys.readouterr().out), A100) == found
        assert cuda.open == 0

    @pytest.mark.parametrize(
        ("silent", "where"), [(-1, "cuInit, no GPU was tried"), (1, "GPU 1, those after it were not tried")]
    )
    def test_a_gpu_that_does_not_answer_is_named_and_does_not_hold_preflight(
        self, gpus: Gpus, monkeypatch: pytest.MonkeyPatch, silent: int, where: str
    ) -> None:
        monkeypatch.setattr(preflight, "_GPU_SECONDS", 3)
        gpus.smi(rows())
        gpus.cuda(silent=silent)
        begun = time.monotonic()
        found, _ = preflight.look_at_gpus(A100)
        assert found == [f"CUDA does not answer within 3 s at {where}; see the Xid messages in the node's dmesg"]
        assert time.monotonic() - begun < 10

    def test_a_gpu_that_crashes_cuda_is_named(self, gpus: Gpus) -> None:
        gpus.smi(rows())
        gpus.cuda(codes={0: 2}, crash=1)
        found, _ = preflight.look_at_gpus(A100)
        assert found == [
            "CUDA ended the probe with -11 at GPU 1, those after it were not tried; see the Xid messages in the node's "
            "dmesg",
            "GPU 0: no CUDA context: error 2, out of memory: another process uses the GPU",
        ]

    def test_what_a_library_prints_besides_is_passed_over(self) -> None:
        noise = "cuInit 0\nGPUs 2\nwarning: GPU 7 3 is hot\nGPU 0 0\nGPU 1 0\n"
        assert preflight.cuda_findings(Answer(0, noise), A100) == []


class TestPrograms:
    """Asking a program: in time, or not at all."""

    def test_one_that_is_silent_is_ended(self, gpus: Gpus, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(preflight, "_GPU_SECONDS", 1.5)
        gpus.smi(script="exec sleep 30")
        gpus.cuda()
        found, _ = preflight.look_at_gpus({**A100, "driver": None})
        assert found == ["nvidia-smi does not answer within 1.5 s; see the Xid messages in the node's dmesg"]

    def test_one_that_cannot_be_ended_is_left(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # A child that keeps the pipe open stands for a process that the driver holds.
        monkeypatch.setattr(preflight, "_END_SECONDS", 0.2)
        process = preflight.start(["sh", "-c", "echo GPUs 2; sleep 3 & wait"])
        assert not isinstance(process, Answer)
        with process:
            begun = time.monotonic()
            assert preflight.answer(process, begun) == Answer(None, "GPUs 2\n")
            assert time.monotonic() - begun < 2.5

    def test_one_that_ended_while_another_was_waited_for_has_answered(self) -> None:
        process = preflight.start(["sh", "-c", "echo late; exit 3"])
        assert preflight.answer(process, time.monotonic() - 5) == Answer(3, "late\n")


class TestThroughTheStage:
    """The stage's termination message brings what preflight saw."""

    @staticmethod
    def step(**checks: Any) -> dict[str, Any]:
        return {"id": "preflight", "action": "preflight", "scope": "Private", "digest": "p", "checks": checks}

    def test_a_healthy_node_is_told_in_facts(self, bench: Bench, gpus: Gpus) -> None:
        gpus.smi(rows())
        gpus.cuda()
        facts = {"driver": "550.54.14", "product": "NVIDIA A100-SXM4-40GB", "count": 2, "gpuFindings": 0}
        for _ in range(2):
            # No marker spares the look: another pod may be on another node.
            assert bench.run(self.step(gpu=A100)) == 0
            assert (bench.told["reason"], bench.told["facts"]) == ("Completed", facts)
            bench.termination.unlink()

    @pytest.mark.parametrize("count", [10, 60])
    def test_facts_survive_more_findings_than_fit(self, bench: Bench, gpus: Gpus, count: int) -> None:
        gpus.smi(rows(mig="Enabled", driver="535.161.08", name="NVIDIA \x1b" + "é" * 200))
        gpus.cuda()
        tools = [f"tool-that-is-not-there-{number}" for number in range(count)]
        assert bench.run(self.step(tools=tools, gpu=A100)) == 64
        assert bench.told["facts"]["driver"] == "535.161.08"
        assert bench.told["facts"]["count"] == 2
        assert len(bench.told["facts"]["product"]) == 96
        assert len(bench.termination.read_bytes()) <= 1000

    def test_without_gpus_there_are_no_facts(self, bench: Bench) -> None:
        assert bench.run(self.step(gpu=None)) == 0
        assert "facts" not in bench.told

    def test_facts_are_the_last_line(self, gpus: Gpus, capsys: pytest.CaptureFixture[str]) -> None:
        gpus.smi(rows(1))
        gpus.cuda()
        assert preflight.main([json.dumps({"gpu": A100})]) == 1
        last = capsys.readouterr().out.splitlines()[-1]
        facts = {"driver": "550.54.14", "product": "NVIDIA A100-SXM4-40GB", "count": 1, "gpuFindings": 1}
        assert last == f"[preflight] facts: {json.dumps(facts)}"
