"""`mlperf-operator suite`: the suites that there are, and the image that makes a suite's prebuild needless."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlperf_operator.cli_common import Output, failure, known_suites, print_items, printable

if TYPE_CHECKING:
    from mlperf_operator.suites import Suite

app = typer.Typer(no_args_is_help=True, help="Benchmark suites: list, dockerfile.")


@app.command("list")
def list_suites(
    output: Annotated[Output, typer.Option("-o", "--output", help="Format.")] = Output.TABLE,
) -> None:
    """Print the suites, the administrator's beside the built-in ones: image, systems, benchmarks, config versions."""
    items = [_item(suite) for _, suite in sorted(known_suites().items())]
    if output is not Output.TABLE:
        print_items(items, output)
        return
    for item in items:
        typer.echo(printable(item["name"]))
        for key, value in list(item.items())[1:]:
            typer.echo(printable(f"  {key}: {', '.join(value) if isinstance(value, list) else value}"))


@app.command()
def dockerfile(
    suite: Annotated[str, typer.Option("--suite", help="Suite.")] = "nvidia-v4.1",
    tree_path: Annotated[
        Path | None, typer.Option("--tree-path", metavar="DIR", help="Code tree, to see whether it has the scripts.")
    ] = None,
) -> None:
    """Print the Dockerfile of an image for environment.strategy Image, and how to build and push it.

    Exit code 2 when the suite needs no such image or the tree is not its tree.
    """
    from mlperf_operator.limits import no_suite  # noqa: PLC0415 - `results` should start at once

    suites = known_suites()
    found = suites.get(suite)
    if found is None:
        raise failure(no_suite(suite, suites))
    if found.prebuild is None:
        raise failure(f"the prebuild of suite {suite} installs nothing: its image {found.image} is complete as it is")
    folder = found.prebuild.folder
    if tree_path is not None:
        absent = [name for name in found.prebuild.scripts if not (tree_path / folder / name).is_file()]
        absent += [name for name in found.prebuild.files if not list((tree_path / folder).glob(name))]
        if absent:
            raise failure(f"{tree_path} is not the code tree of suite {suite}: {folder} has no {', '.join(absent)}")
    typer.echo(render(found, str(tree_path / folder) if tree_path else f"TREE/{folder}"), nl=False)


def render(suite: Suite, context: str) -> str:
    """Return the Dockerfile of an image that has what the suite's prebuild installs.

    Args:
        suite: A suite with a prebuild.
        context: The folder of scripts in a checkout, for the command that builds it.
    """
    from mlperf_operator.rendering import template  # noqa: PLC0415 - `results` should start at once

    return template("Dockerfile.j2").render(suite=suite, context=shlex.quote(printable(context)))


def _item(suite: Suite) -> dict[str, Any]:
    return {
        "name": suite.name,
        "image": suite.image,
        "systems": sorted(suite.systems),
        "benchmarks": [
            f"{name} ({', '.join(scenario.value for scenario in benchmark.scenarios)})"
            for name, benchmark in suite.benchmarks.items()
        ],
        "configVersions": [version.value for version in suite.config_versions],
        "prebuild": "installs what the image lacks" if suite.prebuild is not None else "installs nothing",
    }
