"""Compliance tests: a measurement under LoadGen's audit.config, then the verification against the staged results."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from standin import harness
from standin.faults import faults
from standin.log import LOG
from standin.request import BUILD, TREE, Measurement
from standin.results import write_metadata

EXEMPT = ("TEST04", "TEST06")
COMPLIANCE = BUILD / "inference/compliance/nvidia"
STAGED = BUILD / "submission-staging/closed/NVIDIA/results"


def log_folder(test: str) -> Path:
    """Return where a test's logs go, whatever LOG_DIR says."""
    return BUILD / "compliance_logs" / test


def run(measurement: Measurement, test: str) -> None:
    """Run a test; one that the benchmark does not have counts as passed.

    Raises:
        RuntimeError: the test failed.
    """
    if test in EXEMPT:
        pair = f"{measurement.benchmark.value}-{measurement.scenario.value}"
        LOG.info("=> Compliance test %s is exempted for %s.", test, pair)
        return
    LOG.info("=> Running compliance harness for test %s", test)
    own = COMPLIANCE / test / measurement.benchmark.value / "audit.config"
    config = TREE / "audit.config"
    shutil.copyfile(own if own.is_file() else COMPLIANCE / test / "audit.config", config)
    try:
        harness.measure(measurement)
        passed = _verify(measurement, test)
    finally:
        config.unlink()
    path = measurement.folder / "metadata.json"
    write_metadata(measurement.folder, {**json.loads(path.read_text()), "audit_test": test, "audit_success": passed})
    LOG.info("=> Submission checker: Audit test %s %s", test, "PASS" if passed else "FAIL")
    if not passed and "fails-quietly" not in faults(f"audit/{test}"):
        raise RuntimeError("Run audit harness failed!")


def _verify(measurement: Measurement, test: str) -> bool:
    results = STAGED / measurement.system_name / measurement.variant / measurement.scenario.value
    argv = [sys.executable, str(COMPLIANCE / test / "run_verification.py"), f"--test={test}", f"--results={results}"]
    argv += [f"--compliance={measurement.folder}", f"--output_dir={measurement.folder}"]
    argv += ["--fail"] if faults(f"audit/{test}") & {"fails", "fails-quietly"} else []
    said = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout
    print(said)
    return "check pass: False" not in said and "check pass: True" in said
