"""How a step of the driver pod fails: with a reason that somebody can act on."""

from __future__ import annotations

from mlperf_operator.driver_report import GpuUser, Reason


class DriverError(Exception):
    """The host is not as it should be, or could not be made so.

    Args:
        reason: what a program may act on.
        detail: what was seen, in a sentence without the remedy, which belongs to the reason.
        users: with GPU_IN_USE, the processes.
    """

    def __init__(self, reason: Reason, detail: str, *, users: tuple[GpuUser, ...] = ()) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail
        self.users = users
