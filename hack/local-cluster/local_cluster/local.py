"""The provider `local`: a cluster of plain processes on this machine."""

from dataclasses import dataclass
from pathlib import Path

from local_cluster import cluster, images, teardown
from local_cluster.images import BuildRequest
from local_cluster.layout import Condition, Layout


@dataclass(frozen=True)
class Local:
    """One cluster on this machine, with a node (`full`) or without."""

    layout: Layout
    full: bool

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.layout.kubeconfig

    def up(self, *, audit: bool) -> Path:
        """Start or repair the cluster; see `cluster.up`."""
        return cluster.up(self.layout, full=self.full, audit=audit)

    def down(self) -> None:
        """Take the cluster away; see `teardown.down`."""
        teardown.down(self.layout)

    def status(self) -> list[Condition]:
        """Return one line for each process and one for the cluster."""
        return cluster.status(self.layout)

    def load_image(self, image: str) -> None:
        """Load an archive, or an image that buildah has, into the node."""
        images.load(self.layout, image)

    def build_image(self, request: BuildRequest, *, load: bool) -> None:
        """Build an image with buildah, and load it into the node."""
        images.build(request)
        if load:
            images.load_built(self.layout, request.tag)

    def base_image(self) -> str:
        """Return the name of the base image, made first where it is missing."""
        return images.ensure_base_image()
