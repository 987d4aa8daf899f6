# ruff: noqa: A005 - NVIDIA's tree has a package of this name, and config files import it.
"""The module names that config files written for NVIDIA's tree import; the code itself is in harness/."""
