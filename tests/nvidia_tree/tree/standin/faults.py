"""Things that go wrong, on demand.

STANDIN_FAULTS holds `where=what` words, and `where` is a pattern such as bert/Offline/AccuracyOnly, bert/Server/engine,
audit/TEST01 or download/models/bert/vocab.txt. A `what` that ends in `-once` happens once a scratch.
`python3 -m standin.faults WHERE WHAT` ends with 0 where it is due.
"""

from __future__ import annotations

import os
import sys
from fnmatch import fnmatchcase
from pathlib import Path

ONCE = "-once"


def faults(where: str) -> set[str]:
    """Return what is to go wrong in a place."""
    found = set()
    for word in os.environ.get("STANDIN_FAULTS", "").split():
        pattern, _, what = word.rpartition("=")
        if fnmatchcase(where, pattern) and not (what.endswith(ONCE) and _has_happened(word)):
            found.add(what.removesuffix(ONCE))
    return found


def _has_happened(word: str) -> bool:
    note = Path(os.environ["MLPERF_SCRATCH_PATH"]) / "standin-faults" / word.replace("/", "_")
    if note.exists():
        return True
    note.parent.mkdir(exist_ok=True)
    note.touch()
    return False


if __name__ == "__main__":
    sys.exit(0 if sys.argv[2] in faults(sys.argv[1]) else 1)
