"""The images of a release as far as buildah builds them here: from the folders that the workflow takes too."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

from installation import BUILD, launcher, only_caller
from operator_context import fill
from release.artifacts import ReleaseError
from supply_chain import sbom
from supply_chain.outcome import REPOSITORY, Outcome, judged, run, said, skipped

MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
OPERATOR_CONTEXT = BUILD / "release-operator"
HARNESS_CONTEXT = BUILD / "release-reference-harness"
OPERATOR = "localhost/mlperf-operator:release"
HARNESS = "localhost/mlperf-reference-harness:release"
LIST_PACKAGES = "import importlib.metadata as m; [print(d.name, d.version, sep='==') for d in m.distributions()]"
EMULATORS = Path("/proc/sys/fs/binfmt_misc")


def contexts(_: Path) -> Outcome:
    """Fill the folders that images are built from: the operator's with the wheels of both machines."""
    with only_caller(BUILD):
        fill(OPERATOR_CONTEXT, "3.11", list(MACHINES))
        script = REPOSITORY / "reference_harness/make_context.py"
        made = run(sys.executable, script, HARNESS_CONTEXT)
    wheels = [path.name for path in (OPERATOR_CONTEXT / "wheels").glob("*.whl")]
    own = [sum(name.endswith(f"_{machine}.whl") for name in wheels) for machine in MACHINES]
    wrong = said(made) if made.returncode else []
    wrong += [] if own[0] == own[1] else [f"{own[0]} wheels for x86_64, {own[1]} for aarch64"]
    return judged(
        "build folders", f"{len(wheels)} wheels, {own[0]} of them for each of {' and '.join(MACHINES)}", wrong
    )


def operator_image(dist: Path) -> Outcome:
    """Build the operator's image for this machine, look into it, and add its Debian packages to its bill."""
    build(OPERATOR, OPERATOR_CONTEXT)
    inside = in_image(OPERATOR, "mlperf-operator", "--help")
    listed = in_image(OPERATOR, "python", "-c", LIST_PACKAGES)
    debian = in_image(OPERATOR, "dpkg-query", "--show", "--showformat=${Package} ${Version}\\n")
    wrong = [line for done in (inside, listed, debian) if done.returncode for line in said(done)]
    bom = sbom.from_lock("mlperf-operator")
    missing = {part for part in sbom.pinned(listed.stdout.split()) if part[0] != "mlperf-operator"} - sbom.packages(bom)
    wrong += [f"{name} {version} is in the image, but not in its bill" for name, version in sorted(missing)]
    packages = [(name, version) for name, _, version in (line.partition(" ") for line in debian.stdout.splitlines())]
    whole = sbom.with_packages(bom, packages)
    wrong += sbom.invalid(sbom.repeatable(whole, sbom.epoch()))
    path = sbom.write("mlperf-operator-image", whole)
    (dist / path.name).write_bytes(path.read_bytes())
    return judged("operator's image", f"{machine()}: it runs, {len(packages)} Debian packages in {path.name}", wrong)


def harness_image(_: Path) -> Outcome:
    """Build the reference harness's image for this machine."""
    build(HARNESS, HARNESS_CONTEXT)
    done = in_image(HARNESS, "python3", "-c", "import mlcommons_loadgen, onnxruntime, numpy")
    return judged("harness's image", f"{machine()}: its libraries load", said(done) if done.returncode else [])


def other_machine(_: Path) -> Outcome:
    """Say how far the image of the other machine can be made here."""
    other = next(name for name in MACHINES if name != platform.machine())
    name = f"image for {MACHINES[other]}"
    if not (EMULATORS / f"qemu-{other}").exists():
        return skipped(name, f"its wheels are there, but RUN needs an emulator of {other} (qemu-user-static)")
    return skipped(name, f"its wheels are there and {other} is emulated, but there is no base image of it here")


PARTS = (contexts, operator_image, harness_image, other_machine)


def machine() -> str:
    """Return this machine as images name it."""
    return MACHINES.get(platform.machine(), platform.machine())


def build(tag: str, context: Path) -> None:
    """Build an image on the local base image.

    Raises:
        ReleaseError: the build failed.
    """
    base = f"BASE_IMAGE={launcher('base-image')}"
    options = ("--file", str(context / "Dockerfile"), "--context", str(context), "--tag", tag, "--build-arg", base)
    argv = [sys.executable, str(REPOSITORY / "hack/local-cluster/launcher.py"), "build-image", "--no-load", *options]
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    if done.returncode:
        raise ReleaseError(done.stderr.strip())


def in_image(image: str, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a container of the image, as its user.

    Raises:
        ReleaseError: buildah has no such image.
    """
    made = run("buildah", "from", "--pull-never", image)
    if made.returncode:
        raise ReleaseError(made.stderr.strip())
    container = made.stdout.strip()
    try:
        return run("buildah", "run", "--isolation=chroot", container, "--", *command)
    finally:
        run("buildah", "rm", container)
