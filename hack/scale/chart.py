"""How the figures grow with the number of runs: a table, and a plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from scale.rounds import Round

COLUMNS = ("runs", "bare_s", "runs_s", "ratio", "cpu_s_per_run", "requests_per_run", "p50_s", "p99_s", "rss_mb")


def _cells(found: Round) -> tuple[str, ...]:
    return (
        str(found.runs),
        f"{found.bare_seconds:.0f}",
        f"{found.seconds:.0f}",
        f"{found.ratio:.3f}",
        f"{found.cpu_seconds / found.runs:.4f}",
        f"{found.requests.counted() / found.runs:.2f}",
        f"{found.quantile(0.5):.3f}",
        f"{found.quantile(0.99):.3f}",
        f"{found.resident_mb:.0f}",
    )


def table(rounds: Sequence[Round]) -> str:
    """Return one line for each number of runs, as Markdown."""
    lines = [COLUMNS, ("---",) * len(COLUMNS), *map(_cells, rounds)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def plot(rounds: Sequence[Round], path: Path) -> None:
    """Draw time, processor time and latency over the number of runs."""
    import matplotlib as mpl  # noqa: PLC0415 - of the group `bench`, which the other benchmarks do without

    mpl.use("svg")
    # Without these the same figures make another file each time.
    mpl.rcParams["svg.hashsalt"] = "scale"
    from matplotlib import pyplot as plt  # noqa: PLC0415

    counts = [found.runs for found in rounds]
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    axes[0].plot(counts, [r.seconds for r in rounds], marker="o", label="runs")
    axes[0].plot(counts, [r.bare_seconds for r in rounds], marker="s", linestyle="--", label="bare pairs")
    axes[0].set_title("seconds until all are complete")
    axes[1].plot(counts, [r.cpu_seconds for r in rounds], marker="o", label="operator")
    axes[1].set_title("operator's CPU seconds")
    axes[2].plot(counts, [r.quantile(0.5) for r in rounds], marker="o", label="p50")
    axes[2].plot(counts, [r.quantile(0.99) for r in rounds], marker="s", linestyle="--", label="p99")
    axes[2].set_title("seconds from run to Job")
    for axis in axes:
        axis.set_xlabel("runs at once")
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
        axis.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
