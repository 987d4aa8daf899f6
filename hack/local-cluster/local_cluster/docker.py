"""The Docker engine, where one answers: its images are those of a cluster of kind."""

import hashlib
import os
import subprocess
from pathlib import Path

from local_cluster.errors import ClusterError, RefusalError
from local_cluster.images import BASE_PACKAGES, BuildRequest, checked
from local_cluster.layout import cache_dir
from local_cluster.progress import run_long

BASE = "debian:bookworm-slim"


def problem() -> str:
    """Say why no Docker engine can be used, empty when one answers."""
    try:
        answer = subprocess.run(
            ["docker", "version", "--format={{.Server.Version}}"], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return "there is no program docker"
    if answer.returncode == 0 and answer.stdout.strip():
        return ""
    return answer.stderr.strip().rpartition("\n")[2] or "its engine does not answer"


def require() -> None:
    """Refuse where no Docker engine answers."""
    why = problem()
    if why:
        raise RefusalError(f"the provider kind needs a Docker engine: {why}")


def has_image(image: str) -> bool:
    """Say whether the engine has an image."""
    argv = ["docker", "image", "inspect", "--format={{.Id}}", image]
    answer = subprocess.run(argv, capture_output=True, text=True, check=False)
    if answer.returncode != 0 and "no such image" not in answer.stderr.lower():
        raise ClusterError(f"docker image inspect {image} failed: {answer.stderr.strip()}")
    return answer.returncode == 0


def build_argv(request: BuildRequest) -> list[str]:
    """Return the command that builds an image; what has not changed comes from Docker's own cache."""
    argv = ["docker", "build", f"--file={request.file}", f"--tag={request.tag}"]
    argv += [f"--build-arg={argument}" for argument in request.build_args]
    argv += [f"--target={request.target}"] if request.target else []
    return [*argv, str(request.context)]


def build(request: BuildRequest) -> None:
    """Build an image.

    Raises:
        RefusalError: no Dockerfile, folder or Docker engine there.
        ClusterError: the build failed; the message carries the end of its output.
    """
    checked(request)
    require()
    log = cache_dir() / f"image-{request.tag.rsplit('/', 1)[-1].replace(':', '-')}.log"
    # An ignore file named after the Dockerfile is known to BuildKit only.
    env = {**os.environ, "DOCKER_BUILDKIT": "1"}
    run_long(f"building the image {request.tag}", build_argv(request), log, env=env)


def base_dockerfile() -> str:
    """Return the base image's Dockerfile: what the local cluster's base has, from the distribution's own image."""
    install = f"apt-get install --yes --no-install-recommends {' '.join(BASE_PACKAGES)}"
    return (
        f"FROM {BASE}\nRUN apt-get update && {install} && rm -rf /var/lib/apt/lists/*\n"
        'ENV LANG=C.UTF-8\nCMD ["python3"]\n'
    )


def ensure_base_image() -> str:
    """Return the name of the base image, made first where the engine does not have it yet."""
    require()
    text = base_dockerfile()
    name = f"localhost/mlperf-base:docker-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    if not has_image(name):
        folder = cache_dir() / "docker-base"
        folder.mkdir(parents=True, exist_ok=True)
        dockerfile = Path(folder / "Dockerfile")
        dockerfile.write_text(text)
        build(BuildRequest(dockerfile, folder, name))
    return name
