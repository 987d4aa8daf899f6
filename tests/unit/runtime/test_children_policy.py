"""The uid by which the pods of runs are told from those of Jobs that somebody made before the admission policies."""

from __future__ import annotations

from typing import Any, cast

import pytest

from mlperf_operator.children_policy import TRUSTED_SECONDS, ChildrenPolicy
from mlperf_operator.cluster import Cluster, Resource


class Bindings:
    """A cluster with one binding, or none, that counts how often it is asked."""

    def __init__(self, uid: str | None) -> None:
        self.uid = uid
        self.asked = 0
        self.time = 1000.0

    async def get(self, resource: Resource, namespace: None, name: str) -> dict[str, Any] | None:
        assert (resource.plural, namespace, name) == ("validatingadmissionpolicybindings", None, "children")
        self.asked += 1
        return None if self.uid is None else {"metadata": {"uid": self.uid}}


@pytest.fixture
def bindings() -> Bindings:
    return Bindings("1")


def policy(bindings: Bindings, name: str = "children") -> ChildrenPolicy:
    return ChildrenPolicy(cast("Cluster", bindings), name, lambda: bindings.time)


async def test_the_binding_is_asked_once_for_many_runs(bindings: Bindings) -> None:
    found = policy(bindings)
    assert [await found.uid() for _ in range(3)] == ["1", "1", "1"]
    assert bindings.asked == 1


async def test_a_binding_that_was_made_anew_is_seen_after_a_while(bindings: Bindings) -> None:
    found = policy(bindings)
    await found.uid()
    bindings.uid = "2"
    bindings.time += TRUSTED_SECONDS + 1
    assert await found.uid() == "2"


async def test_a_binding_that_is_not_there_is_looked_for_again_at_once(bindings: Bindings) -> None:
    found = policy(bindings)
    bindings.uid = None
    assert await found.uid() == ""
    bindings.uid = "1"
    assert await found.uid() == "1"


async def test_without_the_policies_nothing_is_asked(bindings: Bindings) -> None:
    assert await policy(bindings, "").uid() == ""
    assert bindings.asked == 0
