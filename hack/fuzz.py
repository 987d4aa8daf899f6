"""`make fuzz`: libFuzzer, by atheris, against everything that reads text of others, FUZZ_SECONDS in all (600).

Each target of tests/unit/fuzzing runs in a process of its own with an equal share of the time, on one core. An input
that makes an exception leave a parser, or takes 5 s, ends the target; it lies in build/fuzz/<target> then. What was
found is a test of its own in tests/unit. The closing line counts executions and findings.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import atheris

if TYPE_CHECKING:
    from unit.fuzzing.targets import Target

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "build" / "fuzz"
MAX_BYTES = 65_536
SLOW_SECONDS = 5
MAX_MEGABYTES = 2048
_EXECUTED = re.compile(r"stat::number_of_executed_units:\s*(\d+)")
_PEAK = re.compile(r"stat::peak_rss_mb:\s*(\d+)")


def run(name: str, seeds: Sequence[bytes], seconds: int) -> tuple[int, bool]:
    """Fuzz one target in a process of its own; return the executions and whether it withstood them."""
    corpus, findings = WORK / name / "corpus", WORK / name / "findings"
    for folder in (corpus, findings):
        folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    options = {
        "max_total_time": seconds,
        "max_len": MAX_BYTES,
        "timeout": SLOW_SECONDS,
        "rss_limit_mb": MAX_MEGABYTES,
        "print_final_stats": 1,
        "verbosity": 0,
        "artifact_prefix": f"{findings}/",
    }
    argv = [sys.executable, __file__, name, *(f"-{key}={value}" for key, value in options.items()), str(corpus)]
    with (WORK / name / "log").open("w+", encoding="utf-8", errors="replace") as log:
        code = subprocess.run(argv, stdout=log, stderr=subprocess.STDOUT, check=False).returncode
        log.seek(0)
        text = log.read()
    executed, peak = _EXECUTED.search(text), _PEAK.search(text)
    count = int(executed[1]) if executed else 0
    print(f"{name}: {count} executions, {peak[1] if peak else '?'} MB, {'finding' if code else 'nothing found'}")
    if code:
        print(text[-4000:])
    return count, code == 0


def fuzz(name: str, options: Sequence[str]) -> None:
    """Be the process of one target, with the package's code instrumented for its coverage."""
    with atheris.instrument_imports(include=["mlperf_operator"]):
        targets = importlib.import_module("unit.fuzzing.targets")
    atheris.Setup([sys.argv[0], *options], targets.TARGETS[name].read)
    atheris.Fuzz()


def main() -> int:
    """Fuzz every target and say what came of it."""
    targets: Mapping[str, Target] = importlib.import_module("unit.fuzzing.targets").TARGETS
    seconds = int(os.environ.get("FUZZ_SECONDS", "600"))
    done = {name: run(name, target.seeds, max(1, seconds // len(targets))) for name, target in targets.items()}
    executions, found = sum(count for count, _ in done.values()), [name for name, (_, ok) in done.items() if not ok]
    ok = not found and all(count for count, _ in done.values())
    print(
        json.dumps(
            {"fuzz": {n: c for n, (c, _) in done.items()}, "executions": executions, "findings": found, "ok": ok}
        )
    )
    return 0 if ok else 1


if __name__ == "__main__":
    if len(sys.argv) > 1:
        fuzz(sys.argv[1], sys.argv[2:])
    else:
        sys.exit(main())
