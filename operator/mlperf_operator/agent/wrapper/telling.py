"""Which lines of a command are remembered until it has ended, and what they tell."""

from __future__ import annotations

import re

from mlperf_operator.agent.wrapper import evidence
from mlperf_operator.agent.wrapper.errors import EXIT_TRANSIENT
from mlperf_operator.agent.wrapper.state import Stage

FINDING = "[preflight] finding: "
"""How preflight.py begins a line that says what is wrong."""

FACTS = "[preflight] facts: "
"""How preflight.py begins the line that says, as JSON, which driver and GPUs it saw."""

MAKE_TRANSIENT = re.compile(rf"^(?:\S*/)?g?make(?:\[\d+\])?: \*\*\* .* Error {EXIT_TRANSIENT}$")
"""make itself ends with 2 whatever its recipe ended with, and tells the recipe's code in this line (GNU make).

Written out from the line's begin: with a gap in the middle, a long line of a harness would take hours to search.
"""

ENVIRONMENT_FINDING, ENVIRONMENT_FACTS = "[environment] finding: ", "[environment] facts: "
"""How snapshot.py begins the line that says why it could not, and the one with what it found."""

_OWN = (FINDING, FACTS, ENVIRONMENT_FINDING, ENVIRONMENT_FACTS)
STATED = re.compile("|".join((MAKE_TRANSIENT.pattern, *map(re.escape, _OWN))))
"""How lines begin that are remembered beside those that tell (evidence.py); searched for in one, both take long."""


def is_remembered(line: str) -> bool:
    """Say whether a line of a command is kept until the command has ended."""
    return STATED.match(line) is not None or evidence.TELLING.search(line) is not None


def telling_of(stage: Stage) -> list[str]:
    """Return the lines of the last command that show why it did not do its work."""
    return evidence.most_telling([*stage.telling, *stage.complaints])


def said(stage: Stage) -> str:
    """Return the last telling line of a command, to be put behind a sentence."""
    lines = telling_of(stage)
    return f": {lines[-1]}" if lines else ""
