"""A run that is really there, with what its operator's account makes for it; no operator is at work."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from golden.cases import Case, objects
from integration.admission import Wall, fresh, run_of
from integration.chart import Object
from mlperf_operator.api.v1alpha1 import MLPerfRun

POD_SECONDS = 60


@dataclass(frozen=True)
class _Stored(Case):
    body: Object

    @property
    def run(self) -> MLPerfRun:
        return MLPerfRun.model_validate({"metadata": self.body["metadata"], "spec": self.spec})


def started(wall: Wall, namespace: str, **spec: Any) -> str:
    """Create a run, its ConfigMaps, claims and Job, and return its name."""
    [name] = fresh("run")
    assert wall.administrator.create(run_of(namespace, name, **spec), dry=False) == ""
    body = wall.administrator.get("MLPerfRun", namespace, name)
    made = objects(_Stored(name, body["spec"], body), children_policy=wall.children_policy())
    del made[f"job-{name}-collect"]
    for found in made.values():
        assert wall.operator.create(found, dry=False) == ""
    return name


def pod_of(wall: Wall, namespace: str, name: str) -> Object:
    """Return the run's pod, which the real controller of Jobs makes."""
    deadline = time.monotonic() + POD_SECONDS
    while True:
        found = wall.administrator.get("Pod", namespace, query=f"?labelSelector=mlperf.dev/run={name}")["items"]
        if found:
            return dict(found[0])
        assert time.monotonic() < deadline, f"no pod of {name}"
        time.sleep(0.2)
