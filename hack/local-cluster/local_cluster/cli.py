"""The command line."""

import argparse
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from local_cluster import binaries, cluster, images, packages, teardown
from local_cluster.errors import ClusterError, RefusalError
from local_cluster.external import KUBECONFIG_VARIABLE, External, external_cluster
from local_cluster.layout import DEFAULT_CONTROL_PLANE, DEFAULT_FULL, Layout, existing_layouts, layout_for
from local_cluster.progress import say


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    root = argparse.ArgumentParser(
        prog="local-cluster",
        description="A real Kubernetes on this machine, without Docker.",
        epilog=f"With {KUBECONFIG_VARIABLE}=/path a cluster of your own is used instead. "
        "Exit codes: 0 done, 1 failed, 2 refused.",
    )
    commands = root.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start or repair the cluster; the last line is the path of its kubeconfig")
    up.add_argument("--audit", action="store_true", help="log every API request (its metadata) to logs/audit.log")
    down = commands.add_parser("down", help="end the cluster and leave nothing of it")
    down.add_argument("--all", action="store_true", help="every local cluster of this user, whatever its name")
    status = commands.add_parser("status", help="each process, and whether the cluster can be used (exit code 0 or 1)")
    logs = commands.add_parser("logs", help="print a component's log")
    logs.add_argument("component")
    logs.add_argument("-f", "--follow", action="store_true", help="go on printing what is added")
    load = commands.add_parser("load-image", help="load a docker-archive, or an image that buildah has, into the node")
    load.add_argument("image", help="a .tar file or an image's name")
    build = commands.add_parser("build-image", help="build an image where its files changed, and load it into the node")
    build.add_argument("--file", type=Path, required=True, help="the Dockerfile")
    build.add_argument("--context", type=Path, required=True, help="the folder that the Dockerfile sees")
    build.add_argument("--tag", required=True)
    build.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    build.add_argument("--target", default="", help="the Dockerfile's stage to build, the last one if not given")
    build.add_argument("--no-load", action="store_true", help="build only")
    commands.add_parser("base-image", help="make the base image from Debian packages and print its name")
    tools = commands.add_parser("tools", help="build helm, kubectl and the Kubernetes programs; print their folder")
    tools.add_argument(
        "names", nargs="*", default=[], help="which to build: kube (with kubectl), pause, helm (default: all)"
    )
    for command in (up, down, status, logs, load, build):
        command.add_argument("--control-plane-only", action="store_true", help="no node: no root, no containers")
        command.add_argument("--name", help=f"default: {DEFAULT_FULL}, or {DEFAULT_CONTROL_PLANE} without a node")
    return root


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = parser().parse_args(arguments)
    os.environ["PATH"] = packages.search_path(os.environ.get("PATH", os.defpath))
    try:
        return _run(options)
    except RefusalError as error:
        say(f"refused: {error}")
        return 2
    except ClusterError as error:
        say(f"failed: {error}")
        return 1
    except KeyboardInterrupt:
        say("interrupted; `up` goes on from here, `down` takes everything away")
        return 130


def _run(options: argparse.Namespace) -> int:
    if options.command == "tools":
        print(binaries.ensure_programs(*(options.names or binaries.PROGRAMS)))
        return 0
    if options.command == "base-image":
        print(images.ensure_base_image())
        return 0
    if options.command == "down" and options.all:
        return _down_all()
    external = external_cluster()
    if external:
        return _run_external(options, external)
    name = options.name or (DEFAULT_CONTROL_PLANE if options.control_plane_only else DEFAULT_FULL)
    return _run_local(options, layout_for(name))


def _run_local(options: argparse.Namespace, layout: Layout) -> int:
    match options.command:
        case "up":
            print(cluster.up(layout, full=not options.control_plane_only, audit=options.audit))
        case "down":
            teardown.down(layout)
        case "status":
            return _print_status(layout)
        case "logs":
            return _print_log(layout, options.component, follow=options.follow)
        case "load-image":
            images.load(layout, options.image)
        case "build-image":
            images.build(_build_request(options))
            if not options.no_load:
                images.load_built(layout, options.tag)
    return 0


def _down_all() -> int:
    """Take down every local cluster; one that fails does not keep the others up."""
    layouts = existing_layouts()
    if not layouts:
        say("there is no local cluster")
    code = 0
    for layout in layouts:
        try:
            teardown.down(layout)
        except (ClusterError, RefusalError) as error:
            say(f"failed: {layout.name}: {error}")
            code = 1
    return code


def _run_external(options: argparse.Namespace, external: External) -> int:
    match options.command:
        case "up" | "status":
            external.verify()
            print(external.kubeconfig)
        case "down":
            say(f"{external.kubeconfig} is a cluster of your own; nothing was changed")
        case "build-image" if options.no_load:
            images.build(_build_request(options))
        case _:
            raise RefusalError(
                f"{options.command} works on the local cluster only, and {KUBECONFIG_VARIABLE} names your own: "
                "push images to a registry that it can pull from"
            )
    return 0


def _build_request(options: argparse.Namespace) -> images.BuildRequest:
    for value in options.build_arg:
        if "=" not in value:
            raise RefusalError(f"--build-arg {value!r}: NAME=VALUE is possible")
    return images.BuildRequest(
        options.file, options.context, options.tag, tuple(sorted(options.build_arg)), options.target
    )


def _print_status(layout: Layout) -> int:
    lines = cluster.status(layout)
    for line in lines:
        process = f"process {line.pid}" if line.pid else "-"
        print(
            f"{line.name:<24} {'healthy' if line.healthy else 'NOT HEALTHY':<12} {process:<16} {line.detail}".rstrip()
        )
    print(f"kubeconfig: {layout.kubeconfig}")
    return 0 if all(line.healthy for line in lines) else 1


def _print_log(layout: Layout, component: str, *, follow: bool) -> int:
    cluster.required_spec(layout)
    file = layout.logs / f"{component}.log"
    if not file.exists():
        known = ", ".join(sorted(log.stem for log in layout.logs.glob("*.log"))) or "none yet"
        raise RefusalError(f"there is no log of {component!r}; there are: {known}")
    argv = ["tail", "-n", "200", "-F", str(file)] if follow else ["cat", str(file)]
    return subprocess.run(argv, check=False).returncode
