"""Builds both images into the local cluster."""

from __future__ import annotations

from installation import build_images, say, start_cluster

if __name__ == "__main__":
    start_cluster()
    for image in build_images():
        say(f"{image} is in the cluster")
