"""Where a cluster comes from: this machine, kind, or the user. All have the same few methods."""

import os
from pathlib import Path
from typing import Protocol

from local_cluster import docker, host
from local_cluster.errors import RefusalError
from local_cluster.external import KUBECONFIG_VARIABLE, external_cluster
from local_cluster.images import BuildRequest
from local_cluster.kind import Kind, is_kind
from local_cluster.layout import Condition, Layout
from local_cluster.local import Local

PROVIDER_VARIABLE = "MLPERF_CLUSTER_PROVIDER"
NAMES = ("local", "kind")


class Provider(Protocol):
    """What can be done with a cluster. Each method raises RefusalError or ClusterError with one sentence."""

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""

    def up(self, *, audit: bool) -> Path:
        """Start or repair the cluster, wait until it can be used, and return its kubeconfig."""

    def down(self) -> None:
        """Take the cluster away and leave nothing of it. Safe to repeat."""

    def status(self) -> list[Condition]:
        """Return what runs and whether the cluster can be used."""

    def load_image(self, image: str) -> None:
        """Load an archive or an image into the node."""

    def build_image(self, request: BuildRequest, *, load: bool) -> None:
        """Build an image, and load it into the node."""

    def base_image(self) -> str:
        """Return the name of the base image, made first where it is missing."""


def choose(layout: Layout, *, full: bool, named: str | None, may_be_new: bool) -> Provider:
    """Return the provider of a cluster: the user's own, that of an existing cluster, the named one, or what can run.

    `named` is what the command line says; the environment may name one too. `may_be_new` allows the search for one that
    can run here; otherwise a cluster that does not exist counts as local.

    Raises:
        RefusalError: the named provider does not exist, or the cluster is another one's.
    """
    external = external_cluster()
    if external:
        return external
    wanted = named or os.environ.get(PROVIDER_VARIABLE) or None
    if wanted not in (None, *NAMES):
        raise RefusalError(
            f"the provider {wanted!r} is not possible: {' and '.join(NAMES)} are, or {KUBECONFIG_VARIABLE}"
        )
    present = present_provider(layout)
    if present and wanted not in (None, present) and full:
        raise RefusalError(f"the cluster {layout.name!r} is one of the provider {present}; choose another --name")
    if full and (present or wanted or (default_provider() if may_be_new else "local")) == "kind":
        return Kind(layout)
    return Local(layout, full)


def present_provider(layout: Layout) -> str | None:
    """Return whose an existing cluster is, None when there is none."""
    if is_kind(layout):
        return "kind"
    return "local" if layout.spec_file.exists() else None


def of_existing(layout: Layout) -> Provider:
    """Return the provider of a cluster that has left files here."""
    return Kind(layout) if is_kind(layout) else Local(layout, full=True)


def default_provider() -> str:
    """Return `local` where it can run, else `kind` where a Docker engine answers, else `local`, which says why not."""
    try:
        host.refuse_machine(full=True)
    except RefusalError:
        return "local" if docker.problem() else "kind"
    return "local"
