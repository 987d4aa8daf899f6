"""Images without a registry: a base from Debian packages, builds by buildah, and the way into the node's containerd."""

import hashlib
import json
import platform
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local_cluster import cluster, containers, context, packages, sources
from local_cluster.errors import ClusterError, RefusalError
from local_cluster.host import refuse_machine
from local_cluster.layout import Layout, cache_dir
from local_cluster.locks import locked
from local_cluster.progress import run_long, say

# Python with its venv module for the wheels that a build brings, make for the harness's contract, and OpenMP's runtime.
BASE_PACKAGES = ("ca-certificates", "libgomp1", "make", "python3", "python3-venv")
_TRIM = ("doc", "man", "info", "locale", "lintian")


@dataclass(frozen=True)
class BuildRequest:
    """One image to build. `build_args` are NAME=VALUE."""

    file: Path
    context: Path
    tag: str
    build_args: tuple[str, ...] = ()
    target: str = ""


def ensure_base_image() -> str:
    """Return the name of the base image, made first where this machine does not have it yet."""
    refuse_machine(full=True)
    packages.ensure(packages.IMAGES)
    suite, mirror = sources.suite(), sources.own_sources()
    recipe = "\0".join([suite, platform.machine(), *BASE_PACKAGES, *_TRIM])
    name = f"localhost/mlperf-base:{hashlib.sha256(recipe.encode()).hexdigest()[:16]}"
    with locked("base-image", "it makes the base image"):
        if _inspect(name) is None:
            _make_base(name, suite, mirror)
    return name


def _make_base(name: str, suite: str, mirror: str) -> None:
    logs = cache_dir()
    with tempfile.TemporaryDirectory(dir=logs, prefix="base-") as folder:
        root = Path(folder)
        # Its user for downloads, _apt, must be able to pass through.
        root.chmod(0o755)
        (root / "sources").write_text(mirror)
        trims = [f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in _TRIM]
        emptied = "--customize-hook=rm -rf $1/var/lib/apt/lists/* $1/var/cache/apt/*.bin $1/var/log/*.log"
        argv = ["mmdebstrap", "--variant=minbase", f"--include={','.join(BASE_PACKAGES)}", *trims, emptied]
        run_long(
            "making the base image", [*argv, suite, str(root / "rootfs.tar"), str(root / "sources")], logs / "base.log"
        )
        dockerfile = root / "Dockerfile"
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        dockerfile.write_text(f'FROM scratch\nADD rootfs.tar /\nENV PATH={path} LANG=C.UTF-8\nCMD ["python3"]\n')
        ignore = root / "ignore"
        ignore.write_text("")
        _buildah_build(BuildRequest(dockerfile, root, name), "base", ignore, layers=False)


def build(request: BuildRequest) -> None:
    """Build an image, unless buildah has it already from the same files.

    Raises:
        RefusalError: no Dockerfile or folder there.
        ClusterError: the build failed; the message carries the end of its output.
    """
    refuse_machine(full=True)
    checked(request)
    packages.ensure(packages.IMAGES)
    with locked("build-image", "it builds an image"):
        digest = context.digest(request.file, request.context, [*_inputs(request), request.target])
        if _context_digest(request.tag) == digest:
            say(f"{request.tag}: nothing changed, not built again")
            return
        _buildah_build(request, digest, context.ignore_file(request.file, request.context), layers=True)


def checked(request: BuildRequest) -> None:
    """Refuse a request without its Dockerfile or folder."""
    if not request.file.is_file() or not request.context.is_dir():
        raise RefusalError(f"{request.file} must be a Dockerfile and {request.context} a folder")


def _inputs(request: BuildRequest) -> list[str]:
    """Return the build arguments, each with the identity of the image that it names, if it names one."""
    known = []
    for argument in request.build_args:
        image = _inspect(argument.split("=", 1)[1])
        known.append(f"{argument}={image['FromImageID'] if image else ''}")
    return known


def _buildah_build(request: BuildRequest, digest: str, ignore: Path | None, *, layers: bool) -> None:
    argv = ["buildah", "bud", "--isolation=chroot", "--format=docker", f"--layers={str(layers).lower()}"]
    argv += [f"--file={request.file}", f"--tag={request.tag}", f"--label={containers.CONTEXT_LABEL}={digest}"]
    argv += [f"--build-arg={argument}" for argument in request.build_args]
    argv += [f"--ignorefile={ignore.absolute()}"] if ignore else []
    argv += [f"--target={request.target}"] if request.target else []
    log = cache_dir() / f"image-{request.tag.rsplit('/', 1)[-1].replace(':', '-')}.log"
    run_long(f"building the image {request.tag}", [*argv, str(request.context)], log)


def load_built(layout: Layout, tag: str) -> None:
    """Load an image that `build` made into the node, unless it is there already."""
    _require_node(layout)
    digest = _context_digest(tag)
    if digest and f"{containers.CONTEXT_LABEL}={digest}" in containers.image_labels(layout).get(tag, ""):
        say(f"{tag}: the node has it already")
        return
    _push_and_import(layout, tag)
    if digest:
        containers.label_image(layout, tag, digest)


def load(layout: Layout, image: str) -> None:
    """Load an archive, or an image that buildah has, into the node.

    Raises:
        RefusalError: there is neither such a file nor such an image, or the cluster has no node.
    """
    _require_node(layout)
    if Path(image).is_file():
        containers.import_archive(layout, Path(image))
        say(f"loaded {image}")
        return
    packages.ensure(packages.IMAGES)
    if _inspect(image) is None:
        raise RefusalError(f"{image!r} is neither a file nor an image that buildah has (`buildah images` lists them)")
    _push_and_import(layout, image)


def _require_node(layout: Layout) -> None:
    spec = cluster.required_spec(layout)
    if not spec.full:
        raise RefusalError(f"the cluster {layout.name!r} has no node, so it takes no images")


def _push_and_import(layout: Layout, tag: str) -> None:
    with tempfile.TemporaryDirectory(dir=cache_dir(), prefix="push-") as folder:
        archive = Path(folder) / "image.tar"
        push = ["buildah", "push", tag, f"docker-archive:{archive}:{tag}"]
        run_long(f"exporting {tag}", push, cache_dir() / "push.log")
        say(f"importing {tag} ({archive.stat().st_size / 1e6:.0f} MB)")
        containers.import_archive(layout, archive)


def _context_digest(tag: str) -> str:
    image = _inspect(tag)
    labels = (image or {}).get("OCIv1", {}).get("config", {}).get("Labels") or {}
    return str(labels.get(containers.CONTEXT_LABEL, ""))


def _inspect(image: str) -> dict[str, Any] | None:
    """Return what buildah knows of an image, None when it has none of this name."""
    argv = ["buildah", "inspect", "--type=image", image]
    answer = subprocess.run(argv, capture_output=True, text=True, check=False)
    if answer.returncode == 0:
        found: dict[str, Any] = json.loads(answer.stdout)
        return found
    if "image not known" in answer.stderr or "no such image" in answer.stderr or "parsing" in answer.stderr:
        return None
    raise ClusterError(f"buildah inspect {image} failed: {answer.stderr.strip()}")
