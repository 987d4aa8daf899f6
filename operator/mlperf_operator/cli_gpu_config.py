"""`mlperf-operator gpu-config`: the harness's configuration values, listed, rendered, and a user's own checked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlperf_operator.cli_common import Output, failure, known_suites, print_items, printable

if TYPE_CHECKING:
    from mlperf_operator.gpu_config_schema import ConfigEntry
    from mlperf_operator.suites import Suite

app = typer.Typer(no_args_is_help=True, help="The harness's configuration values: list, render, check.")

SuiteOption = Annotated[str, typer.Option("--suite", help="Suite.")]
SystemOption = Annotated[str, typer.Option("--system", help="System under test, as the suite names it.")]


@app.command()
def render(  # noqa: PLR0913, PLR0917 - one parameter an option
    system: SystemOption,
    output: Annotated[Path, typer.Option("--output", metavar="DIR", help="Folder, empty or not there yet.")],
    suite: SuiteOption = "nvidia-v4.1",
    benchmark: Annotated[list[str] | None, typer.Option(help="Benchmark; may be repeated. Default: all.")] = None,
    scenario: Annotated[list[str] | None, typer.Option(help="Scenario; may be repeated. Default: all.")] = None,
    config_version: Annotated[str, typer.Option(help="Default, HighAccuracy, ...")] = "Default",
    power_setting: Annotated[str, typer.Option(help="MaxP or MaxQ.")] = "MaxP",
    values: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Your own values; may be repeated, the later wins.")
    ] = None,
    override: Annotated[
        list[str] | None, typer.Option(metavar="BENCHMARK/SCENARIO/FIELD=VALUE", help="One value; may be repeated.")
    ] = None,
) -> None:
    """Write the files that a run's ConfigMap carries. Exit code 2 when there can be no such run."""
    from mlperf_operator.gpu_config_tool import Request, write  # noqa: PLC0415 - `results` should start at once
    from mlperf_operator.gpu_config_tool import render as render_files  # noqa: PLC0415

    request = Request(
        system=system,
        suite=suite,
        benchmarks=benchmark or (),
        scenarios=scenario or (),
        config_version=config_version,
        power_setting=power_setting,
        values=values or (),
        overrides=override or (),
    )
    with _refusals():
        for path in write(render_files(request, known_suites()), output):
            typer.echo(printable(str(path)))


@app.command("list")
def list_configs(
    suite: Annotated[str | None, typer.Option(help="Only this suite.")] = None,
    system: Annotated[str | None, typer.Option(help="Only this system.")] = None,
    output: Annotated[Output, typer.Option("-o", "--output", help="Format; json and yaml hold the values too.")] = (
        Output.TABLE
    ),
) -> None:
    """Print the systems, benchmarks, scenarios, config versions and power settings that have values."""
    from mlperf_operator.gpu_config_schema import ConfigError  # noqa: PLC0415
    from mlperf_operator.gpu_config_tool import listing  # noqa: PLC0415

    with _refusals():
        suites = known_suites()
        found = listing([s for name, s in sorted(suites.items()) if suite in (None, name)], system)
        if not found:
            systems = sorted({name for s in suites.values() for name in s.systems})
            asked = " of ".join(f"{kind} {name}" for kind, name in (("system", system), ("suite", suite)) if name)
            raise ConfigError(
                f"there are no values for {asked}; suites: {', '.join(sorted(suites))}; systems: {', '.join(systems)}"
            )
    if output is Output.TABLE:
        _print_table(found)
        return
    print_items([_item(*row) for row in found], output)


@app.command()
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Values as in gpu_configs/, or a ConfigMap of such.")],
    suite: Annotated[str | None, typer.Option(help="Only this suite. Default: each that the file names.")] = None,
) -> None:
    """Say whether a file of your own values fits. Exit code 1 when not, 2 when it cannot be read."""
    from mlperf_operator.gpu_config_tool import check as check_file  # noqa: PLC0415

    with _refusals():
        told, problems = check_file(file, known_suites(), suite)
    if problems:
        raise failure(*problems, code=1)
    for line in told:
        typer.echo(printable(line))


@contextmanager
def _refusals() -> Iterator[None]:
    """End the program with exit code 2 where something cannot be."""
    from mlperf_operator.gpu_config_schema import ConfigError  # noqa: PLC0415

    try:
        yield
    except ConfigError as error:
        raise failure(str(error)) from error


def _item(suite: Suite, system: str, entry: ConfigEntry) -> dict[str, Any]:
    names = {"suite": suite.name, "system": system, "harnessName": suite.systems[system].harness_name or system}
    return {**names, **entry.model_dump(mode="json", by_alias=True)}


def _print_table(found: list[tuple[Suite, str, ConfigEntry]]) -> None:
    rows = [("SUITE", "SYSTEM", "BENCHMARK", "SCENARIO", "CONFIGVERSION", "POWER", "ORIGIN")]
    for suite, system, entry in found:
        version, power = entry.config_version.value, entry.power_setting.value
        rows.append((suite.name, system, entry.benchmark, entry.scenario.value, version, power, entry.origin))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:-1]
    for row in rows:
        cells = [text.ljust(width) for text, width in zip(row, widths, strict=False)]
        typer.echo(printable("  ".join([*cells, row[-1]])))
    refused = {s.name: s.refused_config_versions for s, _, _ in found if s.refused_config_versions}
    for name, reasons in refused.items():
        for version, reason in reasons.items():
            typer.echo(printable(f"{name} refuses configVersion {version.value}: {reason}"))
