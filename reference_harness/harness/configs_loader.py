"""Imports the configs of a pair: the tree's own, or only those of the override folder."""

from __future__ import annotations

import importlib

from harness.constants import Benchmark, Scenario
from harness.systems import load_file, override_folder


def load_configs(benchmark: Benchmark, scenario: Scenario) -> None:
    """Import the configs of one pair into the registry.

    With MLPINF_CUSTOM_DEFINITION_PATH set, the pair's custom.py is all that is imported, and a pair without one has
    no config: NVIDIA's v4.1 tree does the same.
    """
    folder = override_folder()
    if folder is None:
        importlib.import_module(f"configs.{benchmark.value}.{scenario.value}")
        return
    path = folder / "custom_configs" / benchmark.value / scenario.value / "custom.py"
    if path.is_file():
        load_file(f"custom_configs.{benchmark.value}.{scenario.value}.custom", path)
