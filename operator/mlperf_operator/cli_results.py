"""`mlperf-operator results DIR`: the typed results under a folder."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic.alias_generators import to_camel

from mlperf_operator.cli_common import Output, failure, print_items, printable
from mlperf_operator.results import Result, find_results

_MAX_WIDTH = 40
"""Characters that a column of the table is filled up to; a longer text pushes only its own row."""


def results(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder that is searched to the bottom.")],
    output: Annotated[Output, typer.Option("-o", "--output", help="Format.")] = Output.TABLE,
) -> None:
    """Print the results of MLPerf Inference logs under a folder. Exit code 2 when there are none that can be read."""
    try:
        is_folder, exists = folder.is_dir(), folder.exists()
    except OSError as error:
        raise failure(f"{folder} cannot be read: {error.strerror}") from error
    if not is_folder:
        raise failure(f"{folder} is a file; name the folder that it lies in" if exists else f"there is no {folder}")
    found = list(find_results(folder))
    if not found:
        raise failure(
            f"there is no result under {folder}: no mlperf_log_summary.txt, mlperf_log_detail.txt, "
            "metadata.json or accuracy.txt"
        )
    if output is Output.TABLE:
        print_table(found)
    else:
        print_items([to_item(result) for result in found], output)
    if all(result.error for result in found):
        raise failure(f"none of the {len(found)} results under {folder} can be read")


def to_item(result: Result) -> dict[str, Any]:
    """Return a result as an item of the printed list: camelCase keys, `error` only where there is one."""
    item = {to_camel(key): _wire(value) for key, value in asdict(result).items()}
    if result.error is None:
        del item["error"]
    return item


def _wire(value: object) -> object:
    if isinstance(value, dict):
        return {to_camel(key): _wire(inner) for key, inner in value.items()}
    return [_wire(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def print_table(found: list[Result]) -> None:
    """Print one row a result, and reasons, warnings and errors below.

    The path comes last: it may be long, and what is to be compared should stand below each other.
    """
    rows: list[tuple[str, ...]] = [("BENCHMARK", "SCENARIO", "MODE", "VALID", "RESULT", "ACCURACY", "PATH")]
    for result in found:
        texts = (
            result.variant or result.benchmark or "-",
            result.scenario or "-",
            result.mode or "-",
            "ERROR" if result.error else result.validity or "-",
            metric_text(result),
            accuracy_text(result),
            result.path,
        )
        rows.append(tuple(printable(text) for text in texts))
    widths = [min(max(map(len, column)), _MAX_WIDTH) for column in zip(*rows, strict=True)]
    for row in rows:
        typer.echo("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    for result in found:
        said = [
            *([result.reason] if result.reason else []),
            *result.warnings,
            *([result.error] if result.error else []),
        ]
        for text in said:
            typer.echo(printable(f"{result.path}: {text}"))


def metric_text(result: Result) -> str:
    """Return the metric as a person reads it."""
    if result.metric is None:
        return "-"
    if result.metric.value is None:
        return "no estimate"
    if result.metric.unit == "ns":
        return f"{result.metric.value / 1e6:.6g} ms"
    return f"{result.metric.value:.10g} {result.metric.unit}"


def accuracy_text(result: Result) -> str:
    """Return the accuracy as a person reads it."""
    words = {True: " passed", False: " FAILED", None: ""}
    return ", ".join(f"{item.name} {item.value:.6g}{words[item.passed]}" for item in result.accuracy) or "-"
