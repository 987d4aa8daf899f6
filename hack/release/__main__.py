"""Make the parts of a release: `make release-dry-run`, and the steps of .github/workflows/release.yml.

python -m release check [--tag vX.Y.Z]       one version everywhere
python -m release notes [--tag vX.Y.Z]       what the changelog says of it
python -m release packages                   dist/: sdist and wheel
python -m release chart OPERATOR HARNESS     dist/: the chart with these images
python -m release contexts                   build/release-*: what the images are built from
python -m release bills                      dist/: bills of materials
python -m release checksums                  dist/SHA256SUMS
python -m release dry-run                    all that can be made here, and held against what it should be
"""

from __future__ import annotations

import argparse
import sys

from release import artifacts, dry_run, images, versions
from supply_chain.outcome import REPOSITORY, Status


def main(arguments: list[str]) -> int:
    """Carry out one step and return the exit code."""
    options = parser().parse_args(arguments)
    try:
        return step(options)
    except artifacts.ReleaseError as error:
        sys.stderr.write(f"release: {error}\n")
        return 1


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    root = argparse.ArgumentParser(
        prog="release", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    steps = root.add_subparsers(dest="step", required=True)
    for name in ("check", "notes"):
        steps.add_parser(name).add_argument("--tag", default="")
    images = steps.add_parser("chart")
    images.add_argument("operator", help="REPOSITORY:TAG@sha256:...")
    images.add_argument("harness", help="REPOSITORY:TAG@sha256:...")
    for name in ("packages", "contexts", "bills", "checksums", "dry-run"):
        steps.add_parser(name)
    return root


def step(options: argparse.Namespace) -> int:
    """Carry out the step.

    Raises:
        ReleaseError: it cannot be carried out.
    """
    texts = versions.read(REPOSITORY)
    match options.step:
        case "check":
            wrong = versions.inconsistencies(texts, options.tag)
            sys.stderr.writelines(f"{line}\n" for line in wrong)
            return 1 if wrong else 0
        case "notes":
            section = options.tag.removeprefix("v") or versions.UNRELEASED
            print(versions.notes(texts.changelog, section))
        case "packages":
            print(*artifacts.packages(artifacts.DIST), sep="\n")
        case "chart":
            print(artifacts.chart(artifacts.DIST, options.operator, options.harness))
        case "contexts":
            outcome = images.contexts(artifacts.DIST)
            print(outcome.text())
            return 1 if outcome.status is Status.FAILED else 0
        case "bills":
            print(*artifacts.bills(artifacts.DIST), sep="\n")
        case "checksums":
            files = [path for path in artifacts.DIST.iterdir() if path.is_file() and path.name != artifacts.CHECKSUMS]
            print(artifacts.checksums(files, artifacts.DIST))
        case _:
            return dry_run.main()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
