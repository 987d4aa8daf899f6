"""A suite is data: image, code tree, stages, run command, benchmarks and scenarios.

The built-in suites are in this package, one file each; an administrator adds others as YAML of the same schema.
"""

from __future__ import annotations

from collections.abc import Mapping

from mlperf_operator.suites.model import (
    STAGE_ORDER,
    CodeSource,
    ConfigRule,
    FieldType,
    MakeStep,
    Postcondition,
    Prebuild,
    StageSpec,
    Suite,
    SuiteBenchmark,
    SystemSpec,
)
from mlperf_operator.suites.nvidia_v4_1 import NVIDIA_V4_1
from mlperf_operator.suites.reference_cpu import REFERENCE_CPU

BUILT_IN: Mapping[str, Suite] = {suite.name: suite for suite in (NVIDIA_V4_1, REFERENCE_CPU)}

__all__ = [
    "BUILT_IN",
    "NVIDIA_V4_1",
    "REFERENCE_CPU",
    "STAGE_ORDER",
    "CodeSource",
    "ConfigRule",
    "FieldType",
    "MakeStep",
    "Postcondition",
    "Prebuild",
    "StageSpec",
    "Suite",
    "SuiteBenchmark",
    "SystemSpec",
]
