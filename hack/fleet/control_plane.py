"""The fleet's control plane: that of hack/local-cluster without a node, audited, with flags of its own where asked."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from local_cluster import api, binaries, processes
from local_cluster.components import Component, components
from local_cluster.errors import RefusalError
from local_cluster.layout import Layout, layout_for

LAUNCHER = Path(__file__).resolve().parents[1] / "local-cluster" / "launcher.py"
HEALTHY_SECONDS = 60.0
REFUSED = 2
"""The launcher's exit code where it cannot work and says why."""

Flags = Mapping[str, Sequence[str]]
"""By component: further flags."""


def up(name: str, flags: Flags | None = None) -> Layout:
    """Start it, or take the one that is there.

    Raises:
        RefusalError: this machine cannot have one.
        RuntimeError: it did not start; the message is the launcher's.
    """
    _launch("up", "--audit", "--control-plane-only", "--name", name)
    layout = layout_for(name)
    for component, further in (flags or {}).items():
        restart(layout, component, further)
    return layout


def down(name: str) -> None:
    """End it and leave nothing of it."""
    _launch("down", "--control-plane-only", "--name", name)


def restart(layout: Layout, name: str, further: Sequence[str] = ()) -> None:
    """Stop one of its components and start it again, with further flags, which count more than those before them.

    Raises:
        RuntimeError: it does not become healthy.
    """
    processes.stop(layout.pids, name)
    start(layout, name, further)


def start(layout: Layout, name: str, further: Sequence[str] = ()) -> None:
    """Start a component that was stopped or killed, and wait until it is healthy.

    Raises:
        RuntimeError: it does not become so.
    """
    component = _component(layout, name)
    processes.start(replace(component, argv=(*component.argv, *further)), layout.pids, layout.logs)
    identity = api.identities(layout.certs)["etcd" if name == "etcd" else "admin"]
    end = time.monotonic() + HEALTHY_SECONDS
    while not api.is_healthy(identity, component.health):
        if time.monotonic() > end:
            raise RuntimeError(f"{name} is not healthy; see {layout.logs}/{name}.log")
        time.sleep(0.1)


def pid(layout: Layout, name: str) -> int:
    """Return the process of a component.

    Raises:
        RuntimeError: it does not run.
    """
    record = processes.running(layout.pids, name)
    if record is None:
        raise RuntimeError(f"{name} does not run")
    return record.pid


def _component(layout: Layout, name: str) -> Component:
    spec = layout.read_spec()
    if spec is None:
        raise RuntimeError(f"there is no control plane {layout.name!r}")
    found = components(layout, spec, binaries.bin_dir())
    return next(component for component in found if component.name == name)


def _launch(*arguments: str) -> None:
    # A cluster that the user points at is not ours to fill with a fleet.
    environment = {key: value for key, value in os.environ.items() if key != "MLPERF_KUBECONFIG"}
    argv = [sys.executable, str(LAUNCHER), *arguments]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, env=environment)
    if done.returncode == REFUSED:
        raise RefusalError(done.stderr.strip().splitlines()[-1])
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
