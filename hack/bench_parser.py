"""`make bench-parser`: how fast logs are read on one core, and how much memory a detail log of 1 GB takes.

The corpus has the lines and the sizes of official submissions: most detail logs of some 40 kB, with LoadGen's own
source hashes, git log and loaded samples, each tenth of half a megabyte with warnings of late queries. Every process
that measures is bound to one core.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import bench
from mlperf_operator.results import find_results, read_result

FOLDERS = 600
ROUNDS = 5
SMALL, LARGE = 10**7, 10**9
"""Bytes of the two detail logs whose memory is compared."""

GOALS = {
    "mb_per_second": {"min": 20},
    "large_log_mb_per_second": {"min": 20},
    "memory_growth_mib": {"max": 16},
}

_SCENARIOS = ("Offline", "Server", "SingleStream", "MultiStream")
_SUMMARY = """\
================================================
MLPerf Results Summary
================================================
SUT name : BERT SERVER
Scenario : {scenario}
Mode     : PerformanceOnly
{headline}
Result is : VALID
  Performance constraints satisfied : Yes
  Min duration satisfied : Yes
  Min queries satisfied : Yes
  Early stopping satisfied: Yes
Early Stopping Result:
 * Processed at least 64 queries (30865).
 * Would discard 2962 highest latency queries.
 * Early stopping 99.0th percentile estimate: 19805034

================================================
Additional Stats
================================================
Scheduled samples per second : 5598.2
{percentiles}

================================================
Test Parameters Used
================================================
samples_per_query : 1
target_qps : 5600
target_latency (ns): 130000000
min_duration (ms): 600000
max_duration (ms): 0
min_query_count : 270336
qsl_rng_seed : 3066443479025735752
performance_sample_count : 10833

8684 warnings encountered. See detailed log.

No errors encountered during test.
"""
_HEADLINES = {
    "Offline": "Samples per second: 70116.2",
    "Server": "Completed samples per second    : 55982.68",
    "SingleStream": "90.0th percentile latency (ns) : 1654722",
    "MultiStream": "99.0th percentile latency (ns) : 10237769",
}
_PERCENTILES = ("50.00", "90.00", "95.00", "97.00", "99.00", "99.90")


def line(key: str, value: object, *, warning: bool = False) -> str:
    """Return one line as LoadGen's AsyncLog writes it (loadgen/logging.cc)."""
    body = {
        "key": key,
        "value": value,
        "time_ms": 689273.81508,
        "namespace": "mlperf::logging",
        "event_type": "POINT_IN_TIME",
        "metadata": {
            "is_error": False,
            "is_warning": warning,
            "file": "/work/build/inference/loadgen/results.cc",
            "line_no": 412,
            "pid": 1,
            "tid": 1,
        },
    }
    return f":::MLLOG {json.dumps(body)}\n"


def head(scenario: str) -> Iterator[str]:
    """Yield what a detail log begins with."""
    yield line("loadgen_version", "4.1 @ 2ed9555be0")
    yield line("loadgen_git_commit_date", "2024-07-31T10:12:14-05:00")
    yield line("loadgen_git_log_message", "\n".join(f"{n:040x} Update the log parser (#{n})" for n in range(90)))
    yield line("loadgen_file_sha1", {f"/file_{n}.cc": f"{n:040x}" for n in range(45)})
    yield line("test_datetime", "2024-08-01T11:37:26Z")
    for kind in ("requested", "effective"):
        yield line(f"{kind}_scenario", scenario)
        yield line(f"{kind}_test_mode", "PerformanceOnly")
        yield line(f"{kind}_min_duration_ms", 600000)
        yield from (line(f"{kind}_setting_{n}", n * 1_000_003) for n in range(22))
    yield line("loaded_qsl_set", [n * 7919 % 10833 for n in range(2000)])


def tail(scenario: str) -> Iterator[str]:
    """Yield what a detail log ends with."""
    yield line("result_validity", "VALID")
    yield from (
        line(f"{what}_met", value=True) for what in ("result_min_duration", "result_min_queries", "early_stopping")
    )
    yield line("early_stopping_result", " * Processed at least 64 queries (30865).")
    yield from (line(f"early_stopping_latency_{name}", 19805034) for name in ("ss", "ms"))
    yield from (line(f"result_{share}_percentile_latency_ns", 19648256) for share in _PERCENTILES)
    yield line("result_completed_samples_per_sec" if scenario == "Server" else "result_samples_per_second", 55982.68)
    yield from (line(f"logger_statistic_{n}", n) for n in range(20))
    yield line("num_errors", 0)


def warnings(count: int) -> str:
    """Return the lines of a log that grows with the run."""
    text = "Query latency was above the limit: the SUT did not keep up with the schedule."
    return "".join(line("warning_generic_message", f"{text} Query {n}.", warning=True) for n in range(count))


def write_corpus(root: Path) -> int:
    """Write the folders of a submission and return their bytes."""
    late = warnings(1200)
    percentiles = "\n".join(f"{share} percentile latency (ns)   : 19648256" for share in _PERCENTILES)
    written = 0
    for number in range(FOLDERS):
        scenario = _SCENARIOS[number % len(_SCENARIOS)]
        folder = root / f"system-{number // 8}" / f"bert-{number % 8}" / scenario / "performance" / "run_1"
        folder.mkdir(parents=True)
        detail = "".join([*head(scenario), late if number % 10 == 0 else "", *tail(scenario)])
        summary = _SUMMARY.format(scenario=scenario, headline=_HEADLINES[scenario], percentiles=percentiles)
        written += (folder / "mlperf_log_detail.txt").write_text(detail, encoding="utf-8")
        written += (folder / "mlperf_log_summary.txt").write_text(summary, encoding="utf-8")
    return written


def write_detail(folder: Path, size: int) -> None:
    """Write a folder with a detail log of about `size` bytes."""
    folder.mkdir()
    block = warnings(20_000)
    with (folder / "mlperf_log_detail.txt").open("w", encoding="utf-8") as file:
        file.writelines(head("Server"))
        while file.tell() < size:
            file.write(block)
        file.writelines(tail("Server"))


def measure(folder: Path) -> dict[str, float]:
    """Read one folder in a process of its own and return its seconds and its peak of memory in MiB."""
    argv = [sys.executable, __file__, str(folder)]
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def read_one(folder: Path) -> int:
    """Be the process that `measure` starts."""
    start = time.perf_counter()
    result = read_result(folder)
    seconds = time.perf_counter() - start
    if result.metric is None or result.metric.value != 55982.68:
        raise SystemExit(f"the log was not read: {result}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "peak_mib": peak}))
    return 0


def _read_all(root: Path) -> float:
    start = time.perf_counter()
    found = [result for result in find_results(root) if result.validity == "VALID" and result.metric is not None]
    seconds = time.perf_counter() - start
    if len(found) != FOLDERS:
        raise SystemExit(f"{len(found)} of {FOLDERS} results were read")
    return seconds


def main() -> None:
    """Measure, and compare with the goals."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with TemporaryDirectory() as temporary:
        root = Path(temporary)
        (root / "corpus").mkdir()
        size = write_corpus(root / "corpus")
        seconds = [_read_all(root / "corpus") for _ in range(ROUNDS)]
        for name, length in (("small", SMALL), ("large", LARGE)):
            write_detail(root / name, length)
        small, large = measure(root / "small"), measure(root / "large")
        length = (root / "large" / "mlperf_log_detail.txt").stat().st_size
    middle = statistics.median(seconds)
    figures = {
        "mb_per_second": round(size / middle / 1e6, 1),
        "folders_per_second": round(FOLDERS / middle),
        "spread": round((max(seconds) - min(seconds)) / middle, 3),
        "large_log_mb_per_second": round(length / large["seconds"] / 1e6, 1),
        "peak_mib_10_mb": round(small["peak_mib"], 1),
        "peak_mib_1_gb": round(large["peak_mib"], 1),
        "memory_growth_mib": round(large["peak_mib"] - small["peak_mib"], 1),
        "corpus_mb": round(size / 1e6, 1),
        "rounds": ROUNDS,
    }
    bench.close("parser", figures, GOALS)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(read_one(Path(sys.argv[1])))
    main()
