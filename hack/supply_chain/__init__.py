"""Checks of what this repository is made of and ships: scripts, Dockerfiles, manifests, workflows, dependencies."""
