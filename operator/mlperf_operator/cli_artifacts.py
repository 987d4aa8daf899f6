"""`mlperf-operator artifacts verify|upload DIR`: a run's folder held against its manifest, and copied to a bucket."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from mlperf_operator.agent.artifacts import MANIFEST, ArtifactsError, Folder, Manifest, Skipped, verify
from mlperf_operator.cli_common import failure, printable

artifacts = typer.Typer(no_args_is_help=True, help="A run's folder on a results volume: verify it, or upload it.")

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="A run's folder: the one with manifest.json.")]


@artifacts.command("verify")
def verify_command(directory: Directory) -> None:
    """Hold a run's folder against its manifest.json. Exit code 1 when it differs, 2 when there is no manifest."""
    manifest = _verified(directory)
    run = manifest.run
    typer.echo(
        printable(
            f"{len(manifest.files)} files of {run['namespace']}/{run['name']} ({run['uid']}) are as the manifest says; "
            f"its sha256 is {manifest.sha256}"
        )
    )
    for item in manifest.skipped:
        typer.echo(printable(f"not part of the artifacts: {item.path}: {item.reason}"))


@artifacts.command()
def upload(
    directory: Directory,
    endpoint: Annotated[str, typer.Option(help="URL of the S3-compatible store, without a path.")],
    bucket: Annotated[str, typer.Option(help="Bucket, which must be there.")],
    prefix: Annotated[str, typer.Option(help="Put before <namespace>/<name>/<uid>/.")] = "",
    region: Annotated[str, typer.Option(help="Region that requests are signed for.")] = "us-east-1",
) -> None:
    """Copy a run's folder to a bucket, as spec.upload does, when that did not work at the time.

    Credentials are the variables AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, if needed, AWS_SESSION_TOKEN;
    S3_CA_BUNDLE may hold certificates (PEM) that the store's own is signed by. What the bucket has already is not
    sent again. Exit code 1 when the copy is not whole, 2 when there is no manifest, or
    credentials or target cannot be used.
    """
    # The library of the upload is loaded where it is needed only.
    from mlperf_operator.agent.upload import Target, Uploader, UploadError  # noqa: PLC0415

    manifest = _verified(directory)
    path = "/".join(manifest.run[key] for key in ("namespace", "name", "uid"))
    target = Target(endpoint=endpoint, bucket=bucket, path=path, prefix=prefix, region=region)
    folder = Folder(directory)
    own = folder.read(MANIFEST)
    if isinstance(own, Skipped):
        raise failure(f"{own.path} {own.reason}", code=1)
    try:
        uploader = Uploader(target, os.environ, lambda: None)
    except UploadError as error:
        raise failure(str(error)) from error
    try:
        uploader.send_all(folder, manifest.files, own, patient=False)
    except (ArtifactsError, UploadError) as error:
        raise failure(str(error), code=1) from error
    typer.echo(target.url)


def _verified(directory: Path) -> Manifest:
    try:
        manifest, problems = verify(Folder(directory))
    except ArtifactsError as error:
        raise failure(str(error)) from error
    if problems:
        raise failure(*problems, code=1)
    return manifest
