"""run_harness: LoadGen, the accuracy script, metadata.json. A verdict never changes the exit code."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import tempfile
import traceback
from pathlib import Path

from standin import engine, loadgen, results
from standin.faults import faults
from standin.log import LOG
from standin.names import AccuracyTarget
from standin.request import Measurement

OLD_DATE = "2024-08-01T12:00:00Z"
OLD_SECONDS = 1_722_513_600


def measure(measurement: Measurement) -> None:
    """Measure a pair in one mode.

    Raises:
        RuntimeError: the measurement did not run to its end.
        Exception: the accuracy script failed.
    """
    limit = measurement.fields.get("power_limit")
    if limit is not None:
        subprocess.run(["sudo", "nvidia-smi", "-pl", str(limit)], check=True)
    what = faults(measurement.place)
    if "rebuilt-engine" in what:
        engine.generate(measurement)
    try:
        engine.check(measurement)
        folder = _folder_for(measurement, what)
        loadgen.run(measurement, folder)
        if what & {"partial-logs", "old-logs", "partial-summary", "no-metadata"}:
            _spoil(measurement, folder, what)
            return
        found = results.metadata_of(measurement, results.read_detail(folder / "mlperf_log_detail.txt"))
    except Exception:  # noqa: BLE001 - the real harness prints whatever it was and only then fails
        traceback.print_exc()
        raise RuntimeError("Run harness failed!") from None
    LOG.info("Result: %s", found.get("summary_string", "Accuracy run detected."))
    if measurement.mode == "AccuracyOnly":
        found |= results.accuracy_of(measurement, folder / "mlperf_log_accuracy.json")
    if "other-variant" in what:
        found["benchmark_full"] = folder.parent.name
    results.write_metadata(folder, found)


def _folder_for(measurement: Measurement, what: set[str]) -> Path:
    folder = measurement.folder
    if "old-logs" in what:
        return Path(tempfile.mkdtemp())
    if "other-variant" in what:
        other = dataclasses.replace(measurement.setting, accuracy_target=AccuracyTarget.k_99_9)
        folder = dataclasses.replace(measurement, setting=other).folder
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _spoil(measurement: Measurement, folder: Path, what: set[str]) -> None:
    """Leave what a test leaves that was cut off, or logs of long ago, and go on as if all were well."""
    detail, summary = folder / "mlperf_log_detail.txt", folder / "mlperf_log_summary.txt"
    if "old-logs" in what:
        found = results.metadata_of(measurement, results.read_detail(detail))
        if measurement.mode == "AccuracyOnly":
            found |= results.accuracy_of(measurement, folder / "mlperf_log_accuracy.json")
        results.write_metadata(folder, found)
        text = detail.read_text()
        dates = [json.loads(line.partition(":::MLLOG ")[2]) for line in text.splitlines() if "test_datetime" in line]
        for entry in dates:
            text = text.replace(str(entry["value"]), OLD_DATE)
        detail.write_text(text)
        measurement.folder.mkdir(parents=True, exist_ok=True)
        for file in folder.iterdir():
            os.utime(file, (OLD_SECONDS, OLD_SECONDS))
            shutil.copy2(file, measurement.folder / file.name)
    if "partial-logs" in what:
        lines = detail.read_text().splitlines(keepends=True)
        detail.write_text("".join(lines[: len(lines) // 2])[:-20])
        summary.unlink()
    if "partial-summary" in what:
        text = summary.read_text()
        summary.write_text(text[: text.index("Result is")])
        detail.unlink()
