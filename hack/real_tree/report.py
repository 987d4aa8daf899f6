"""What was checked, and what was wrong."""

from __future__ import annotations

from collections import Counter


class Report:
    """Collects checks by group, and prints them at the end."""

    def __init__(self) -> None:
        self.passed: Counter[str] = Counter()
        self.failed: list[str] = []

    def expect(self, group: str, what: str, *, holds: bool, found: object = "") -> None:
        """Count a check; where it does not hold, say what was found instead."""
        if holds:
            self.passed[group] += 1
            return
        self.fail(group, f"{what}: {found}" if found != "" else what)

    def fail(self, group: str, text: str) -> None:
        """Count a check that does not hold."""
        self.failed.append(f"{group}: {text}")

    def summary(self) -> str:
        """Return the outcome, one line a group and one a failure."""
        groups = [f"  {count:4} {group}" for group, count in self.passed.items()]
        lines = [f"{sum(self.passed.values())} checks hold:", *groups]
        if self.failed:
            lines += [f"{len(self.failed)} do not:", *(f"  {text}" for text in self.failed)]
        else:
            lines.append("NVIDIA's tree takes what mlperf-operator gives it.")
        return "\n".join(lines)
