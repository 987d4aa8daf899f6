"""The API server's clock: deadlines are counted from times that it wrote, so the present is read from it too."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

SLOW_SECONDS = 2.0
"""An answer that took longer says too little about the present."""

STEP = timedelta(seconds=5)
"""A difference that no rounding explains: the server's clock was set."""


class ServerClock:
    """The present by the Date of the API server's answers, moved on by the monotonic clock of this machine.

    The wall clock of the operator's node may be wrong, and may be set at any moment; it counts only before the first
    answer.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._zero: datetime | None = None
        """The server's time when the monotonic clock read 0."""
        self._last = ""

    def note(self, date: str | None, seconds: float) -> None:
        """Take over the Date header of an answer, which took so many seconds."""
        if date is None or date == self._last or (seconds > SLOW_SECONDS and self._zero is not None):
            return
        try:
            moment = parsedate_to_datetime(date)
        except ValueError:
            return
        self._last = date
        zero = moment.astimezone(UTC) - timedelta(seconds=self._monotonic())
        # Whole seconds, rounded down: the latest is the truest, unless the clock was set.
        if self._zero is None or zero > self._zero or self._zero - zero > STEP:
            self._zero = zero

    def now(self) -> datetime:
        """Return the present time."""
        if self._zero is None:
            return datetime.now(UTC)
        return self._zero + timedelta(seconds=self._monotonic())
