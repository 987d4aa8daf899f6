"""The admission policy that keeps everybody else from making what carries a run's labels, and what proves its age."""

from __future__ import annotations

import time
from collections.abc import Callable

from mlperf_operator.cluster import POLICY_BINDINGS, Cluster

TRUSTED_SECONDS = 60.0
"""How long a uid is taken as the present one: a binding that was made anew refuses pods that carry the earlier uid."""


class ChildrenPolicy:
    """The binding of the chart's policy `children`.

    Pods of runs carry its uid where their namespace permits privileges for runs alone, and the policy `origin` compares
    (charts/mlperf-operator/templates/policies/origin.yaml). The API server chose it when the binding was made: a Job
    that somebody made before cannot have it, and since then nobody else makes one with a run's labels.
    """

    def __init__(self, cluster: Cluster, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._cluster = cluster
        self._name = name
        self._clock = clock
        self._uid = ""
        self._read_at = 0.0

    async def uid(self) -> str:
        """Return the binding's uid, or nothing where there is none.

        Raises:
            ApiError: it cannot be read.
        """
        if not self._name:
            return ""
        if not self._uid or self._clock() > self._read_at + TRUSTED_SECONDS:
            found = await self._cluster.get(POLICY_BINDINGS, None, self._name)
            self._uid = str(found["metadata"]["uid"]) if found is not None else ""
            self._read_at = self._clock()
        return self._uid
