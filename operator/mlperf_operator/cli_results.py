"""`mlperf-operator results DIR`: the typed results under a folder."""

from __future__ import annotations

import json
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from pydantic.alias_generators import to_camel
from rich.console import Console
from rich.table import Table

from mlperf_operator.results import Result, find_results


class Output(StrEnum):
    """How results are printed."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


def results(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder that is searched to the bottom.")],
    output: Annotated[Output, typer.Option("-o", "--output", help="Format.")] = Output.TABLE,
) -> None:
    """Print the results of MLPerf Inference logs under a folder. Exit code 2 when there are none."""
    if not folder.is_dir():
        raise _refusal(f"{folder} is no folder")
    found = list(find_results(folder))
    if not found:
        raise _refusal(f"there is no result under {folder}: no mlperf_log_summary.txt, metadata.json or accuracy.txt")
    items = [to_item(result) for result in found]
    if output is Output.JSON:
        typer.echo(json.dumps(items, indent=2, ensure_ascii=False))
    elif output is Output.YAML:
        typer.echo(yaml.safe_dump(items, sort_keys=False, allow_unicode=True), nl=False)
    else:
        print_table(found)


def _refusal(text: str) -> typer.Exit:
    typer.echo(f"Error: {text}", err=True)
    return typer.Exit(2)


def to_item(result: Result) -> dict[str, Any]:
    """Return a result as an item of the printed list: camelCase keys, `error` only where there is one."""
    item = {to_camel(key): value for key, value in asdict(result).items()}
    item["accuracy"], item["warnings"] = list(item["accuracy"]), list(item["warnings"])
    if result.error is None:
        del item["error"]
    return item


def print_table(found: list[Result]) -> None:
    """Print one row a result, and warnings and errors below."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("PATH", "BENCHMARK", "SCENARIO", "MODE", "VALID", "RESULT", "ACCURACY"):
        table.add_column(heading, overflow="fold")
    for result in found:
        table.add_row(
            result.path,
            result.variant or "-",
            result.scenario or "-",
            result.mode or "-",
            "ERROR" if result.error else result.validity or "-",
            metric_text(result),
            accuracy_text(result),
        )
    console = Console(soft_wrap=True)
    console.print(table)
    for result in found:
        for text in (*result.warnings, *([result.error] if result.error else [])):
            console.print(f"{result.path}: {text}", markup=False, highlight=False)


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
