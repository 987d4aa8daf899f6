"""docs/security.md names tests that are there, every policy, and every value that opens something."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/security.md").read_text()
NAMED = sorted(set(re.findall(r"`((?:unit|golden|integration|node|e2e)/[\w/]+\.py(?:::\w+)?)`", PAGE)))


def test_the_page_names_tests_for_its_lines() -> None:
    assert len(NAMED) > 30


@pytest.mark.parametrize("named", NAMED)
def test_a_test_that_the_page_names_is_there(named: str) -> None:
    file, _, name = named.partition("::")
    tree = ast.parse((ROOT / "tests" / file).read_text())
    functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert not name or name in functions


def test_every_policy_is_in_the_table() -> None:
    policies = {path.stem for path in (ROOT / "charts/mlperf-operator/templates/policies").glob("*.yaml")}
    assert policies <= set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))


def test_every_value_that_opens_something_is_named() -> None:
    values = yaml.safe_load((ROOT / "charts/mlperf-operator/values.yaml").read_text())
    opening = [name for name in values if name.startswith("allow")]
    assert len(opening) > 5
    assert [name for name in (*opening, "harnessParity", "driver.enabled") if f"`{name}`" not in PAGE] == []
