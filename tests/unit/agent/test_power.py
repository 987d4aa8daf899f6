"""A lower power limit of MaxQ does not outlast its measurement."""

from __future__ import annotations

from pathlib import Path

import pytest

from unit.agent.bench import Bench

LIMITS = "0, 225.00, 400.00\n1, 400.00, 400.00\n2, [N/A], [N/A]\n"


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An nvidia-smi that tells limits and notes what else it is asked."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "nvidia-smi"
    program.write_text(
        f'#!/bin/sh\ncase "$1" in --query*) printf "{LIMITS}" ;; *) echo "$*" >> {tmp_path}/asked ;; esac\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return program


def _measure(bench: Bench, script: str | None, *, max_q: bool) -> int:
    harness = bench.harness("PerformanceOnly", script)
    if max_q:
        harness["result"]["powerSetting"] = "MaxQ"
    return bench.run(harness, name="run")


@pytest.mark.parametrize(("script", "code"), [(None, 0), ("exit 1", 65), ("kill -TERM $PPID; sleep 30", 143)])
def test_a_limit_is_set_back_however_the_measurement_ended(
    bench: Bench, smi: Path, capfd: pytest.CaptureFixture[str], script: str | None, code: int
) -> None:
    assert _measure(bench, script, max_q=True) == code
    assert (smi.parents[1] / "asked").read_text() == "-i 0 -pl 400.00\n"
    assert "GPU 0: power limit set back from 225.00 W to 400.00 W" in capfd.readouterr().out


def test_other_measurements_leave_the_limits_alone(bench: Bench, smi: Path) -> None:
    assert _measure(bench, None, max_q=False) == 0
    assert not (smi.parents[1] / "asked").exists()


def test_a_limit_that_cannot_be_set_back_is_said_and_changes_no_verdict(
    bench: Bench, smi: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    smi.write_text("#!/bin/sh\nexit 4\n")
    assert _measure(bench, None, max_q=True) == 0
    assert "the GPUs' power limits cannot be set back" in capfd.readouterr().out
