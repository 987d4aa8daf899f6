"""`mlperf-operator bundle RUN_DIR...`: runs laid out as MLCommons' submission checker expects."""

from __future__ import annotations

import json
import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from mlperf_operator.bundle.make import TODO, make_bundle
from mlperf_operator.bundle.runs import BundleError
from mlperf_operator.cli_common import failure, printable


class Division(StrEnum):
    """MLCommons' divisions that one node can be submitted to."""

    CLOSED = "closed"
    OPEN = "open"


class Status(StrEnum):
    """Whether the system can be bought."""

    AVAILABLE = "available"
    PREVIEW = "preview"
    RDI = "rdi"


class SystemType(StrEnum):
    """What the system is submitted as."""

    DATACENTER = "datacenter"
    EDGE = "edge"
    BOTH = "datacenter,edge"


def bundle(  # noqa: PLR0913 - a command's options
    runs: Annotated[list[Path], typer.Argument(metavar="RUN_DIR...", help="Runs' folders, each with manifest.json.")],
    *,
    submitter: Annotated[str, typer.Option(help="Organisation, as its folder is called: letters, digits, _ - .")],
    output: Annotated[Path, typer.Option(help="Folder to make; it must not be there yet.")],
    division: Annotated[Division, typer.Option(help="Division.")] = Division.CLOSED,
    status: Annotated[
        Status | None,
        typer.Option(help="Availability of the system. Default: what --system-json says, else available."),
    ] = None,
    system_type: Annotated[
        SystemType | None, typer.Option(help="Category. Default: what --system-json says, else datacenter.")
    ] = None,
    system_json: Annotated[
        Path | None, typer.Option(help="JSON object with fields of the system's description.")
    ] = None,
    allow_incomplete: Annotated[
        bool, typer.Option("--allow-incomplete", help="Lay out also results that could not be submitted, and say so.")
    ] = False,
) -> None:
    """Lay runs out as a submission to MLPerf Inference, and say what it still lacks.

    Exit code 1, and nothing laid out, when a folder is no complete run's, results are refused (INVALID, too short,
    testRun, accuracy missed or missing) or the output is there already; 2 when another option cannot be used.
    """
    if not re.fullmatch(r"[A-Za-z0-9][-A-Za-z0-9_.]{0,63}", submitter):
        raise failure(f"{submitter!r} cannot name a submitter's folder: letters, digits, _ - . are possible")
    own = {"division": division, "submitter": submitter, "status": status, "system_type": system_type}
    given = _system(system_json) | {name: str(value) for name, value in own.items() if value is not None}
    try:
        made = make_bundle(runs, output, given, allow_incomplete=allow_incomplete)
    except BundleError as error:
        raise failure(*str(error).splitlines(), code=1) from error
    for pair in made.pairs:
        typer.echo(printable(f"{pair.variant} {pair.scenario} on {pair.system}, from {pair.run.name}"))
    for text in made.refused:
        typer.echo(printable(f"NOT SUBMITTABLE: {text}"))
    for text in made.lacks:
        typer.echo(printable(f"to do: {text}"))
    typer.echo(f"{output}: see {TODO} in it")


def _system(path: Path | None) -> dict[str, Any]:
    """Return the description's fields that the submitter gives, with defaults of those that decide about others."""
    value: Any = {}
    if path is not None:
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise failure(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise failure(f"{path} must hold a JSON object with fields of a system's description")
    fields = {"status": Status.AVAILABLE.value, "system_type": SystemType.DATACENTER.value, **value}
    for name, kind in (("status", Status), ("system_type", SystemType)):
        if fields[name] not in list(kind):
            raise failure(f"{path}: {name} {fields[name]!r} is none of {'; '.join(kind)}")
    return fields
