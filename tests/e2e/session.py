"""Which of the end-to-end tests this pytest session ran, for the tests that are about all of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent


@dataclass
class Session:
    """What is known of the session so far."""

    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    left_out: list[str] = field(default_factory=list)
    """Tests and files that were not asked for."""
    not_passed: list[str] = field(default_factory=list)
    """Tests that were skipped or failed."""

    def collected(self, items: list[pytest.Item], arguments: list[str]) -> None:
        """Remember what is missing of what is collected."""
        files = {file.name for file in FOLDER.glob("test_*.py")} - {item.path.name for item in items}
        self.left_out += [*sorted(files), *(argument for argument in arguments if "::" in argument)]

    def incomplete(self) -> str:
        """Say why not all tests have run and passed, empty when they have."""
        if self.left_out:
            return f"{len(self.left_out)} files or tests were left out, such as {self.left_out[0]}"
        return f"{len(self.not_passed)} tests did not pass, such as {self.not_passed[0]}" if self.not_passed else ""


STASH = pytest.StashKey[Session]()
