"""One version everywhere, and a release's notes."""

from pathlib import Path

import pytest

from release import versions
from release.versions import Sources, inconsistencies, notes

PYPROJECT = '[project]\nname = "x"\nversion = "1.2.0"\n'
CHART = 'version: 1.2.0\nappVersion: "1.2.0"\n'
CHANGELOG = """# Changelog

## [Unreleased]

- Later.

## [1.2.0] - 2026-12-01

### Added

- A thing.

## [1.1.0] - 2026-11-01

- Older.
"""
RELEASE = Sources(PYPROJECT, CHART, CHANGELOG)


def test_one_version_everywhere_is_a_release() -> None:
    assert inconsistencies(RELEASE, "v1.2.0") == []


@pytest.mark.parametrize(
    ("texts", "tag", "named"),
    [
        (
            RELEASE._replace(chart=CHART.replace("version: 1.2.0\n", "version: 1.1.0\n", 1)),
            "v1.2.0",
            "version is '1.1.0'",
        ),
        (RELEASE._replace(chart=CHART.replace('"1.2.0"', '"1.1.0"')), "v1.2.0", "appVersion is '1.1.0'"),
        (RELEASE, "1.2.0", "v1.2.0 is possible"),
        (RELEASE, "v1.3.0", "v1.2.0 is possible"),
        (RELEASE._replace(changelog=CHANGELOG.replace(" - 2026-12-01", "")), "v1.2.0", "YYYY-MM-DD"),
        (RELEASE._replace(changelog="## [1.2.0] - 2026-12-01\n\n## [1.1.0] - 2026-11-01\n"), "v1.2.0", "nothing under"),
        (Sources('[project]\nversion = "1.2"\n', "version: '1.2'\nappVersion: '1.2'\n", CHANGELOG), "", "X.Y.Z"),
    ],
)
def test_what_differs_is_named(texts: Sources, tag: str, named: str) -> None:
    assert any(named in line for line in inconsistencies(texts, tag))


def test_before_a_tag_the_changelog_may_still_say_unreleased() -> None:
    assert inconsistencies(RELEASE._replace(changelog="## [Unreleased]\n\n- A thing.\n")) == []


def test_notes_are_the_section_of_the_version_alone() -> None:
    assert notes(CHANGELOG, "1.2.0") == "### Added\n\n- A thing."
    assert notes(CHANGELOG, "1.1.0") == "- Older."
    assert notes(CHANGELOG, versions.UNRELEASED) == "- Later."


def test_a_version_that_is_not_in_the_changelog_has_no_notes() -> None:
    assert notes(CHANGELOG, "1.3.0") == ""


def test_this_checkout_has_one_version() -> None:
    assert inconsistencies(versions.read(Path(__file__).parents[3])) == []
