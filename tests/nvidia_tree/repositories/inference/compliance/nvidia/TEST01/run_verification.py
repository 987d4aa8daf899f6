"""Stand-in for tests: holds a compliance run against the submission's own results, in the words of the real scripts."""

import argparse
import json
import shutil
import sys
from pathlib import Path

TOLERANCE = 0.10


def detail_value(folder: Path, keys: tuple[str, ...]) -> float:
    """Return the first of the keys that a detail log has."""
    for line in (folder / "mlperf_log_detail.txt").read_text().splitlines():
        entry = json.loads(line.partition(":::MLLOG ")[2] or "{}")
        if entry.get("key") in keys:
            return float(entry["value"])
    raise SystemExit(f"{folder} has none of {keys}")


def performance(results: Path, compliance: Path) -> tuple[bool, str]:
    """Say whether the compliance run was about as fast."""
    keys = ("result_samples_per_second", "result_completed_samples_per_sec", "result_90.00_percentile_latency_ns")
    reference, score = (detail_value(f, keys) for f in (results / "performance/run_1", compliance))
    ok = abs(score - reference) <= TOLERANCE * reference
    return ok, f"reference score = {reference}\ntest score = {score}\n"


def accuracy(results: Path, compliance: Path) -> tuple[bool, str]:
    """Say whether the answers of the compliance run are those of the accuracy run."""
    ours, theirs = (
        json.loads((f / "mlperf_log_accuracy.json").read_text()) for f in (compliance, results / "accuracy")
    )
    known = {entry["qsl_idx"]: entry["data"] for entry in theirs}
    different = sum(known[entry["qsl_idx"]] != entry["data"] for entry in ours)
    return bool(ours) and not different, f"num_matches={len(ours) - different}, mismatches={different}\n"


def main() -> None:
    """Hold the two against each other and leave what the real scripts leave."""
    parser = argparse.ArgumentParser()
    for name in ("--results", "--compliance", "--output_dir"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--test")
    parser.add_argument("--fail", action="store_true")
    options = parser.parse_args()
    target = options.output_dir / options.test
    checks = (
        {"performance": performance, "accuracy": accuracy} if options.test == "TEST01" else {"performance": performance}
    )
    run = target / "performance/run_1"
    run.mkdir(parents=True, exist_ok=True)
    for name in ("mlperf_log_summary.txt", "mlperf_log_detail.txt"):
        shutil.copy(options.compliance / name, run / name)
    for what, check in checks.items():
        passed, text = check(options.results, options.compliance)
        passed = passed and not options.fail
        (target / f"verify_{what}.txt").write_text(f"{text}TEST {'PASS' if passed else 'FAIL'}\n")
        if what == "accuracy":
            (target / "accuracy").mkdir(exist_ok=True)
            shutil.copy(options.compliance / "mlperf_log_accuracy.json", target / "accuracy/mlperf_log_accuracy.json")
        print(f"{what.capitalize()} check pass: {passed}")
    print(f"{options.test} verification complete")


if __name__ == "__main__":
    sys.exit(main())
