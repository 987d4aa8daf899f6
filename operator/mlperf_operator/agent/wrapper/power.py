"""The GPUs' power limits: a harness that is stopped leaves the lower one of MaxQ behind."""

from __future__ import annotations

import re
import subprocess

from mlperf_operator.agent.wrapper.output import say

_QUERY = ["nvidia-smi", "--query-gpu=index,power.limit,power.default_limit", "--format=csv,noheader,nounits"]
_ROW = re.compile(r"(\d+), (\d+(?:\.\d+)?), (\d+(?:\.\d+)?)")
_SECONDS = 60.0


def restore_power() -> None:
    """Set every GPU back to its default power limit and say which one was not there.

    NVIDIA's harness does so itself where it comes to its end (code/common/power_limit.py). What cannot be set back
    is said here, and again by the next run's preflight.
    """
    try:
        for row in map(_ROW.fullmatch, _answer(_QUERY).splitlines()):
            if row is not None and float(row[2]) != float(row[3]):
                _answer(["nvidia-smi", "-i", row[1], "-pl", row[3]])
                say(f"GPU {row[1]}: power limit set back from {row[2]} W to {row[3]} W")
    except (OSError, subprocess.SubprocessError) as error:
        say(f"the GPUs' power limits cannot be set back: {error}")


def _answer(argv: list[str]) -> str:
    done = subprocess.run(
        argv, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=_SECONDS, encoding="utf-8"
    )
    return done.stdout
