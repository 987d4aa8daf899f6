"""Everything that is rendered from a run, against files that a person has read. UPDATE_GOLDEN=1 writes them."""

from __future__ import annotations

import difflib
import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from golden.cases import CASES, Case, objects

FILES = Path(__file__).parent / "files"
UPDATE = os.environ.get("UPDATE_GOLDEN") == "1"


class _Readable(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Readable.add_representer(str, _text)


def readable(body: dict[str, Any]) -> str:
    """Return an object as YAML; plan.json is shown as a structure, a Makefile, which has tabs, by its lines."""
    data = dict(body.get("data", {}))
    if "plan.json" in data:
        body = {**body, "data": {**data, "plan.json": json.loads(data["plan.json"])}}
    if "Makefile.docker" in data:
        body = {**body, "data": {**data, "Makefile.docker": data["Makefile.docker"].splitlines()}}
    return yaml.dump(body, Dumper=_Readable, sort_keys=False, width=120, allow_unicode=True)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_run_renders_as_its_golden_files_say(case: Case) -> None:
    folder = FILES / case.name
    made = {f"{name}.yaml": readable(body) for name, body in objects(case).items()}
    if UPDATE:
        folder.mkdir(parents=True, exist_ok=True)
        for stale in {file.name for file in folder.iterdir()} - set(made):
            (folder / stale).unlink()
        for name, text in made.items():
            (folder / name).write_text(text)
    kept = {file.name: file.read_text() for file in folder.glob("*.yaml")}
    assert sorted(made) == sorted(kept), "run `UPDATE_GOLDEN=1 pytest tests/golden` and read the difference"
    differences = [
        line
        for name in sorted(made)
        for line in difflib.unified_diff(
            kept[name].splitlines(), made[name].splitlines(), f"kept/{case.name}/{name}", "made", lineterm=""
        )
    ]
    if differences:
        pytest.fail("\n".join(differences), pytrace=False)


def test_no_golden_file_is_left_of_a_case_that_went() -> None:
    # Those of drivers are of test_driver_daemonset.py.
    kept = {folder.name for folder in FILES.iterdir() if not folder.name.startswith("driver-")}
    assert kept == {case.name for case in CASES}
