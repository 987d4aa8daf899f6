"""What every benchmark ends with: a table, and one JSON line with figures, goals and whether they are met."""

from __future__ import annotations

import json
import operator
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path

_COMPARE = {"min": operator.ge, "max": operator.le}

Goals = Mapping[str, Mapping[str, float]]
"""By figure: its bounds, min or max."""


def machine() -> str:
    """Describe this machine in a few words."""
    fields = (line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines())
    model = next((value.strip() for key, _, value in fields if key.strip() == "model name"), platform.machine())
    return f"{os.cpu_count()} cores of {model}"


def missed(figures: Mapping[str, float], goals: Goals) -> list[str]:
    """Return the figures that do not meet their goal."""
    return [
        name
        for name, bounds in goals.items()
        if not all(_COMPARE[kind](figures[name], bound) for kind, bound in bounds.items())
    ]


def close(bench: str, figures: Mapping[str, float], goals: Goals) -> None:
    """Print the figures as a table and the closing line, and end the process: 0 when every goal is met, else 1."""
    print(f"\n| {bench} | value | goal |\n|---|---|---|")
    for name, value in figures.items():
        goal = ", ".join(f"{kind} {bound:g}" for kind, bound in goals.get(name, {}).items())
        print(f"| {name} | {value:g} | {goal} |")
    ok = not missed(figures, goals)
    print(json.dumps({"bench": bench, **figures, "machine": machine(), "goals": goals, "ok": ok}))
    sys.exit(0 if ok else 1)
