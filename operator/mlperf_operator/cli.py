"""The command line: `mlperf-operator`. One file a subcommand."""

from __future__ import annotations

import asyncio

import typer

from mlperf_operator import cli_artifacts, cli_bundle, cli_gpu_config, cli_suite
from mlperf_operator.cli_common import failure
from mlperf_operator.cli_results import results

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.command()(results)
app.command()(cli_bundle.bundle)
app.add_typer(cli_artifacts.artifacts, name="artifacts")
app.add_typer(cli_gpu_config.app, name="gpu-config")
app.add_typer(cli_suite.app, name="suite")


@app.command()
def check() -> None:
    """Say whether an installed operator works. Exit code 1 when not, 2 on wrong settings."""
    from mlperf_operator.cli_check import check as run_check  # noqa: PLC0415 - as below

    run_check()


@app.command()
def controller() -> None:
    """Run the operator. Its settings are environment variables MLPERF_OPERATOR_...."""
    import uvloop  # noqa: PLC0415 - `results` should start at once, and needs none of this

    from mlperf_operator.controller import serve  # noqa: PLC0415
    from mlperf_operator.lease import LostLeadershipError  # noqa: PLC0415
    from mlperf_operator.settings import Settings, SettingsError  # noqa: PLC0415

    try:
        settings = Settings.from_environment()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(settings))
    except SettingsError as error:
        raise failure(*str(error).splitlines()) from error
    except LostLeadershipError:
        # It is in the log, and no defect: a new process stands by.
        raise typer.Exit(1) from None


def main() -> None:
    """Entry point of the program."""
    app()
