"""What every part of plan.json is made of: mount points, digests, and the pairs that a run asks for."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from mlperf_operator.api.v1alpha1 import BenchmarkRequest, MLPerfRun, Scenario
from mlperf_operator.suites import Suite

PATHS = {"scratch": "/scratch", "work": "/work", "state": "/state", "results": "/results"}
"""Mount points, the same in every container: NVIDIA's tree bakes absolute paths into what it builds."""

OVERRIDES_PATH = "/overrides"
AGENT_PATH = "/agent"
CODE_PATH = "/code"
"""Where the container `code` sees spec.code.claimName."""

Pair = tuple[str, Scenario]
Step = dict[str, Any]


def digest(value: object) -> str:
    """Return the sha256, in hex, of a value's canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def requested_pairs(run: MLPerfRun, suite: Suite) -> list[Pair]:
    """Return the requested benchmark and scenario pairs in running order; no scenarios means all of the suite's."""
    return [(request.name, scenario) for request in run.spec.benchmarks for scenario in _scenarios(request, suite)]


def _scenarios(request: BenchmarkRequest, suite: Suite) -> tuple[Scenario, ...]:
    own = suite.benchmarks[request.name].scenarios
    return tuple(s for s in own if request.scenarios is None or s in request.scenarios)
