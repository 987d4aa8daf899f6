"""What the subcommands have in common: how they print, how they refuse, and which suites they know."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import typer
import yaml

if TYPE_CHECKING:
    from mlperf_operator.suites import Suite


class Output(StrEnum):
    """How items are printed."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


def print_items(items: list[dict[str, Any]], output: Output) -> None:
    """Print items as JSON or YAML."""
    if output is Output.JSON:
        typer.echo(json.dumps(items, indent=2, allow_nan=False))
    else:
        typer.echo(yaml.safe_dump(items, sort_keys=False), nl=False)


def printable(text: str) -> str:
    """Return a text that is safe on a terminal: logs and names on disk may hold anything."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def failure(*lines: str, code: int = 2) -> typer.Exit:
    """Say what is wrong, and return what ends the program with that exit code when it is raised."""
    for line in lines:
        typer.echo(f"Error: {printable(line)}", err=True)
    return typer.Exit(code)


def known_suites() -> dict[str, Suite]:
    """Return the suites by name: the built-in ones, and those of MLPERF_OPERATOR_SUITES_FILE.

    Raises:
        typer.Exit: the settings of the environment are wrong.
    """
    from mlperf_operator.settings import Settings, SettingsError  # noqa: PLC0415 - `results` should start at once

    try:
        return Settings.from_environment().suites()
    except SettingsError as error:
        raise failure(*str(error).splitlines()) from error
