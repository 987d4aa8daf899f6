"""`make release-dry-run`: everything of a release that this machine can make, held against what it should be."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import yaml
from local_cluster.binaries import ensure_programs

from go_programs import ClusterError, RefusalError
from release import artifacts, images, versions
from supply_chain import sbom
from supply_chain.outcome import REPOSITORY, Outcome, Status, judged, run, said, skipped

DIGEST = "sha256:" + "0123456789abcdef" * 4
"""Stands for that of an image in a registry, which only a push tells."""

ELSEWHERE = (
    ("push to ghcr.io", "images and chart are pushed by the workflow alone; buildx puts both machines under one name"),
    ("cosign, attestations", "keyless signatures need GitHub's identity of the workflow"),
    ("the workflows", "only GitHub runs them; actionlint and the pins are checked by make supply-chain"),
)


def main() -> int:
    """Make it all and print a table; the exit code is 1 when a part failed."""
    made: list[Outcome] = []
    dist = clean_dist()
    for part in (
        version,
        repeatable_packages,
        installed,
        description,
        chart,
        rendered,
        *images.PARTS,
        bills,
        checksums,
    ):
        made.append(attempt(part, dist))
        print(made[-1].text(), flush=True)
    for name, reason in ELSEWHERE:
        print(skipped(name, reason).text())
    count = {status: sum(outcome.status is status for outcome in made) for status in Status}
    print(", ".join(f"{number} {status}" for status, number in count.items()) + f"; {len(ELSEWHERE)} only on GitHub")
    return 1 if count[Status.FAILED] else 0


def attempt(part: Callable[[Path], Outcome], dist: Path) -> Outcome:
    """Make a part; what stands in its way is an outcome too."""
    try:
        return part(dist)
    except artifacts.ReleaseError as error:
        return Outcome(part.__name__, Status.FAILED, "cannot be made", tuple(str(error).splitlines()))
    except (ClusterError, RefusalError) as error:
        return skipped(part.__name__, str(error))


def clean_dist() -> Path:
    """Empty dist/, where the files of the release go, and return it."""
    shutil.rmtree(artifacts.DIST, ignore_errors=True)
    artifacts.DIST.mkdir()
    return artifacts.DIST


def version(dist: Path) -> Outcome:
    """Hold the versions against each other, and write the notes."""
    texts = versions.read(REPOSITORY)
    number = versions.project_version(texts.pyproject)
    notes = versions.notes(texts.changelog, number)
    # Before the release its changes are under Unreleased.
    text = notes or versions.notes(texts.changelog, versions.UNRELEASED)
    (dist / "NOTES.md").write_text(f"{text}\n")
    wrong = versions.inconsistencies(texts, f"v{number}" if notes else "")
    wrong += [] if text else ["CHANGELOG.md tells of no change"]
    state = "" if notes else f"; before its tag, CHANGELOG.md's Unreleased becomes [{number}] - <date>"
    return judged("version, notes", f"{number}{state}", wrong)


def repeatable_packages(dist: Path) -> Outcome:
    """Build sdist and wheel twice."""
    first = {path.name: artifacts.digest(path) for path in artifacts.packages(dist)}
    with tempfile.TemporaryDirectory(prefix="second-build-") as folder:
        second = {path.name: artifacts.digest(path) for path in artifacts.packages(Path(folder))}
    wrong = [f"{name}: another content the second time" for name in first if first[name] != second.get(name)]
    return judged("sdist, wheel", f"{', '.join(first)}: the same bytes twice", wrong)


def installed(dist: Path) -> Outcome:
    """Install the wheel where nothing else is, with what uv.lock pins, and call its program."""
    wheel = only(dist, "*.whl")
    with tempfile.TemporaryDirectory(prefix="installed-") as folder:
        python = Path(folder) / "bin/python"
        commands: list[tuple[str | Path, ...]] = [
            ("uv", "venv", "--quiet", "--python", "3.11", folder),
            ("uv", "pip", "install", "--quiet", "--python", python, wheel),
            ("uv", "pip", "check", "--quiet", "--python", python),
            (Path(folder) / "bin/mlperf-operator", "--help"),
            (Path(folder) / "bin/mlperf-operator", "gpu-config", "list"),
        ]
        for argv in commands:
            done = run(*argv)
            if done.returncode:
                return judged("installed wheel", " ".join(map(str, argv)), said(done))
    return judged("installed wheel", "in a fresh environment, mlperf-operator runs", [])


def description(dist: Path) -> Outcome:
    """Hold the metadata of sdist and wheel against what PyPI takes."""
    files = [only(dist, "*.whl"), only(dist, "*.tar.gz")]
    twine = ("uv", "run", "--quiet", "--isolated", "--frozen", "--only-group=release", "twine")
    done = run(*twine, "check", "--strict", *files)
    return judged("twine check", "sdist and wheel", said(done) if done.returncode else [])


def chart(dist: Path) -> Outcome:
    """Package the chart twice with the images of a release."""
    number = versions.project_version(versions.read(REPOSITORY).pyproject)
    names = [f"ghcr.io/example/mlperf-operator{part}:{number}@{DIGEST}" for part in ("", "/reference-harness")]
    first = artifacts.digest(artifacts.chart(dist, names[0], names[1]))
    with tempfile.TemporaryDirectory(prefix="second-chart-") as folder:
        again = artifacts.chart(Path(folder), names[0], names[1])
        wrong = [] if artifacts.digest(again) == first else ["two archives of the same chart differ"]
        return judged("chart", f"{again.name}: linted strictly, the same bytes twice", wrong)


def rendered(dist: Path) -> Outcome:
    """Render the chart from its archive and hold the images in it against those of the release."""
    helm = ensure_programs("helm") / "helm"
    archive = only(dist, "mlperf-operator-*.tgz")
    done = run(helm, "template", "mlperf-operator", archive, "--namespace=mlperf-system", "--kube-version=1.35.0")
    if done.returncode:
        return judged("chart's images", archive.name, said(done))
    deployments = [body for body in yaml.safe_load_all(done.stdout) if body and body["kind"] == "Deployment"]
    (container,) = deployments[0]["spec"]["template"]["spec"]["containers"]
    environment = {entry["name"]: entry.get("value", "") for entry in container["env"]}
    said_images = {
        "the operator's pod": container["image"],
        "collect's": environment["MLPERF_OPERATOR_IMAGE"],
        "the reference suite's": environment["MLPERF_OPERATOR_SUITE_IMAGES"],
    }
    wrong = [
        f"{what} image is {name!r}, without the digest" for what, name in said_images.items() if DIGEST not in name
    ]
    return judged("chart's images", "operator, collect and reference harness by digest", wrong)


def bills(dist: Path) -> Outcome:
    """Write the bills of materials; the operator's must hold each wheel of its image's build folder."""
    files = artifacts.bills(dist)
    wheels = images.OPERATOR_CONTEXT / "wheels"
    built = sbom.of_wheels(wheels)
    missing = built - sbom.packages(sbom.from_lock("mlperf-operator"))
    wrong = [f"{name} {number} is in the image, but not in its bill" for name, number in sorted(missing)]
    return judged("SBOM", f"{len(files)} bills; all {len(built)} wheels of the image are in its own", wrong)


def checksums(dist: Path) -> Outcome:
    """Write the checksums of all of it."""
    files = [path for path in dist.iterdir() if path.is_file()]
    written = artifacts.checksums(files, dist)
    return judged("checksums", f"{len(files)} files in {written.relative_to(REPOSITORY)}", [])


def only(folder: Path, pattern: str) -> Path:
    """Return the one file of this pattern.

    Raises:
        ReleaseError: there is none, or more than one.
    """
    found = list(folder.glob(pattern))
    if len(found) != 1:
        raise artifacts.ReleaseError(f"{folder} must have one file {pattern}, it has {len(found)}")
    return found[0]
