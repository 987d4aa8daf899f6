"""NVIDIA Container Toolkit: containerd told of it, and put back where it does not come up with that."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import PurePosixPath

from mlperf_operator.agent.driver import services
from mlperf_operator.agent.driver.errors import DriverError
from mlperf_operator.agent.driver.host import Host
from mlperf_operator.catalogue import ContainerToolkit
from mlperf_operator.driver_report import Reason

BACKUP = "/var/lib/mlperf-operator/containerd-before.json"
"""containerd's files as they were before the change, until containerd runs with the new ones."""

CONTAINERD = "containerd"
_CTK_SECONDS = 60.0


def configure(host: Host, toolkit: ContainerToolkit) -> bool:
    """Let the toolkit write containerd's configuration, and say whether containerd has yet to read it.

    Raises:
        DriverError: it failed; the configuration is as it was.
    """
    if not host.exists(BACKUP):
        host.write(BACKUP, json.dumps(configuration(host, toolkit.containerd_config)), 0o600)
    argv = ["nvidia-ctk", "runtime", "configure", "--runtime=containerd", f"--config={toolkit.containerd_config}"]
    if toolkit.set_as_default:
        argv.append("--set-as-default")
    done = host.run(argv, seconds=_CTK_SECONDS)
    if not done.ok:
        put_back(host, toolkit)
        raise DriverError(Reason.TOOLKIT_FAILED, f"nvidia-ctk cannot configure containerd: {done.tail()}")
    # A killed attempt may have written it already: the backup is from before that one.
    before: Mapping[str, str] = json.loads(host.read(BACKUP) or "{}")
    changed = configuration(host, toolkit.containerd_config) != before
    if not changed:
        host.remove(BACKUP)
    return changed


def restart(host: Host, toolkit: ContainerToolkit) -> None:
    """Restart containerd, whose containers go on meanwhile, and wait until it runs.

    Raises:
        DriverError: it does not run with the new configuration; it runs with the old one again, or the words say that
            it does not.
    """
    done = services.systemctl(host, "restart", CONTAINERD)
    runs = done.ok and services.wait_active(host, CONTAINERD)
    failed = failed_plugins(host) if runs else ()
    if runs and not failed:
        host.remove(BACKUP)
        return
    words = services.last_words(host, CONTAINERD)
    if failed:
        words = f"it runs without {', '.join(failed)}, which the kubelet needs: {words}"
    put_back(host, toolkit)
    again = services.systemctl(host, "restart", CONTAINERD)
    outcome = "its old configuration is back and it runs with that"
    if not again.ok or not services.wait_active(host, CONTAINERD):
        outcome = f"its old configuration is back, and it does not run with that either: {again.tail()}"
    raise DriverError(Reason.TOOLKIT_FAILED, f"containerd did not start with the runtime nvidia: {words}; {outcome}")


def failed_plugins(host: Host) -> tuple[str, ...]:
    """Return the kubelet's plugins that containerd could not load, none where the host has no ctr to ask with.

    containerd runs without them, whatever is wrong with their configuration; the node is then NotReady. nvidia-ctk
    has written such files: github.com/NVIDIA/k8s-device-plugin/pull/1145.
    """
    if not host.has("ctr"):
        return ()
    # TYPE  ID  PLATFORMS  STATUS; `io.containerd.grpc.v1  cri`, and from 2.0 on `io.containerd.cri.v1  runtime`, too.
    rows = [line.split() for line in host.run(["ctr", "plugins", "ls"]).output.splitlines()]
    return tuple(
        f"{row[0]}.{row[1]}"
        for row in rows
        if len(row) >= 3 and row[-1] == "error" and (row[1] == "cri" or row[0].startswith("io.containerd.cri."))
    )


def configuration(host: Host, config: str) -> dict[str, str]:
    """Return the text of containerd's file and of those beside it that it may import, by path."""
    folder = PurePosixPath(config).parent / "conf.d"
    paths = [config, *(str(folder / name) for name in host.names(str(folder)) if name.endswith(".toml"))]
    texts = {path: host.read(path) for path in paths}
    return {path: text for path, text in texts.items() if text is not None}


def put_back(host: Host, toolkit: ContainerToolkit) -> None:
    """Write containerd's files as the backup has them, and remove those that were not there."""
    text = host.read(BACKUP)
    if text is None:
        return
    before: Mapping[str, str] = json.loads(text)
    now = configuration(host, toolkit.containerd_config)
    for path in now.keys() - before.keys():
        host.remove(path)
    for path, old in before.items():
        if now.get(path) != old:
            mode = host.path(path).stat().st_mode & 0o777 if path in now else 0o644
            host.write(path, old, mode)
    host.remove(BACKUP)
