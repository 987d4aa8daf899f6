"""Every action of every workflow is pinned by a commit: a tag can be moved under us."""

import re

import pytest
import yaml

from supply_chain import workflows

SHA = "0123456789abcdef0123456789abcdef01234567"


def test_every_action_of_this_repository_is_pinned() -> None:
    files = workflows.files()
    assert {path.name for path in files} >= {"test.yml", "release.yml"}
    for path in files:
        assert workflows.unpinned(path.read_text()) == [], path.name
        assert f"@{'0' * 40}" not in path.read_text()


def test_an_action_has_one_pin_everywhere() -> None:
    pins: dict[str, set[str]] = {}
    for path in workflows.files():
        for action, pin in re.findall(r"uses: ([\w./-]+)@(\S+ # \S+)", path.read_text()):
            pins.setdefault(action, set()).add(pin)
    assert pins
    assert {action: found for action, found in pins.items() if len(found) > 1} == {}


@pytest.mark.parametrize(
    "line",
    [
        "- uses: actions/checkout@v7",
        "uses: actions/checkout@main",
        f"- uses: actions/checkout@{SHA}",
        f"- uses: actions/checkout@{SHA} # main",
        f"- uses: actions/checkout@{SHA[:12]} # v7.0.1",
        "- uses: docker://alpine:3",
        "- uses: actions/checkout",
    ],
)
def test_an_action_that_could_change_is_named(line: str) -> None:
    assert workflows.unpinned(f"steps:\n  {line}\n")[0].startswith("2: ")


@pytest.mark.parametrize(
    "line",
    [
        f"- uses: actions/checkout@{SHA} # v7.0.1",
        f"uses: github/codeql-action/init@{SHA} # v4.0.0",
        "- uses: ./.github/actions/own",
        f"- uses: docker://alpine@sha256:{'a' * 64}",
    ],
)
def test_a_pinned_action_is_fine(line: str) -> None:
    assert workflows.unpinned(line) == []


def test_each_workflow_asks_for_no_more_than_its_jobs_need() -> None:
    for path in workflows.files():
        workflow = yaml.safe_load(path.read_text())
        assert workflow["permissions"] in ({}, {"contents": "read"}), path.name
        assert workflow["concurrency"], path.name
        for name, job in workflow["jobs"].items():
            assert job["timeout-minutes"] <= 120, f"{path.name}: {name}"
