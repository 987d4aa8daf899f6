"""Sorts logs into the folders of a submission, by the mode that their detail logs say."""

import argparse
import shutil
from pathlib import Path

parser = argparse.ArgumentParser(allow_abbrev=False)
parser.add_argument("--log_dir", type=Path, default=Path("build/logs"))
parser.add_argument("--staging_dir", type=Path, default=Path("build/submission-staging/closed/NVIDIA/results"))
options = parser.parse_known_args()[0]

for detail in sorted(options.log_dir.rglob("mlperf_log_detail.txt")):
    system, variant, scenario = detail.parent.parts[-3:]
    kind = "accuracy" if '"requested_test_mode", "value": "AccuracyOnly"' in detail.read_text() else "performance/run_1"
    target = options.staging_dir / system / variant / scenario / kind
    print(f"{detail.parent} -> {target}")
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(detail.parent, target)
