"""The command line."""

import argparse
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from local_cluster import binaries, cluster, images, packages, providers
from local_cluster.errors import ClusterError, RefusalError
from local_cluster.external import KUBECONFIG_VARIABLE, External
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
    status.add_argument("--all", action="store_true", help="every local cluster of this user, whatever its name")
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
    base = commands.add_parser("base-image", help="make the base image from Debian packages and print its name")
    tools = commands.add_parser("tools", help="build helm, kubectl and the Kubernetes programs; print their folder")
    tools.add_argument(
        "names", nargs="*", default=[], help="which to build: kube (with kubectl), pause, helm (default: all)"
    )
    for command in (up, down, status, logs, load, build, base):
        command.add_argument("--control-plane-only", action="store_true", help="no node: no root, no containers")
        command.add_argument("--name", help=f"default: {DEFAULT_FULL}, or {DEFAULT_CONTROL_PLANE} without a node")
        command.add_argument(
            "--provider",
            choices=providers.NAMES,
            help=f"who makes a cluster with a node (or {providers.PROVIDER_VARIABLE}; default: local where it can run, "
            "else kind where a Docker engine answers)",
        )
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
    if options.command == "down" and options.all:
        return _down_all()
    if options.command == "status" and options.all:
        return _status_all()
    name = options.name or (DEFAULT_CONTROL_PLANE if options.control_plane_only else DEFAULT_FULL)
    layout = layout_for(name)
    making = options.command in ("up", "build-image", "base-image")
    provider = providers.choose(layout, full=not options.control_plane_only, named=options.provider, may_be_new=making)
    return _run_on(options, layout, provider)


def _run_on(options: argparse.Namespace, layout: Layout, provider: providers.Provider) -> int:
    match options.command:
        case "up":
            print(provider.up(audit=options.audit))
        case "down":
            provider.down()
        case "status":
            return _print_status(provider)
        case "logs":
            return _print_log(layout, provider, options.component, follow=options.follow)
        case "load-image":
            provider.load_image(options.image)
        case "build-image":
            provider.build_image(_build_request(options), load=not options.no_load)
        case "base-image":
            print(provider.base_image())
    return 0


def _down_all() -> int:
    """Take down every local cluster; one that fails does not keep the others up."""
    layouts = existing_layouts()
    if not layouts:
        say("there is no local cluster")
    code = 0
    for layout in layouts:
        try:
            providers.of_existing(layout).down()
        except (ClusterError, RefusalError) as error:
            say(f"failed: {layout.name}: {error}")
            code = 1
    return code


def _status_all() -> int:
    """Print the status of every local cluster; the exit code is 0 only when all are healthy."""
    layouts = [layout for layout in existing_layouts() if providers.present_provider(layout)]
    if not layouts:
        say("there is no local cluster")
    codes = []
    for layout in layouts:
        print(f"# {layout.name}")
        codes.append(_print_status(providers.of_existing(layout)))
    return max(codes, default=0)


def _build_request(options: argparse.Namespace) -> images.BuildRequest:
    for value in options.build_arg:
        if "=" not in value:
            raise RefusalError(f"--build-arg {value!r}: NAME=VALUE is possible")
    return images.BuildRequest(
        options.file, options.context, options.tag, tuple(sorted(options.build_arg)), options.target
    )


def _print_status(provider: providers.Provider) -> int:
    lines = provider.status()
    for line in lines:
        process = f"process {line.pid}" if line.pid else "-"
        print(
            f"{line.name:<24} {'healthy' if line.healthy else 'NOT HEALTHY':<12} {process:<16} {line.detail}".rstrip()
        )
    print(f"kubeconfig: {provider.kubeconfig}")
    return 0 if all(line.healthy for line in lines) else 1


def _print_log(layout: Layout, provider: providers.Provider, component: str, *, follow: bool) -> int:
    if isinstance(provider, External):
        raise provider.refusal("logs")
    if providers.present_provider(layout) != "kind":
        cluster.required_spec(layout)
    file = layout.logs / f"{component}.log"
    if not file.exists():
        known = ", ".join(sorted(log.stem for log in layout.logs.glob("*.log"))) or "none yet"
        raise RefusalError(f"there is no log of {component!r}; there are: {known}")
    argv = ["tail", "-n", "200", "-F", str(file)] if follow else ["cat", str(file)]
    return subprocess.run(argv, check=False).returncode
