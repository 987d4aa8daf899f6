"""Prints the results below LOG_DIR; it finds none without a word, and always ends with 0."""

import json
import os
from pathlib import Path

for path in sorted(Path(os.environ["LOG_DIR"]).rglob("metadata.json")):
    found = json.loads(path.read_text())
    print("\n======================== Result summaries: ========================\n")
    print(f" {found['config_name']}:\n   {found['benchmark_full']}: {found['summary_string']}")
