"""Nodes as the informer has them, or as our own last write left them where that is newer."""

from __future__ import annotations

from typing import Any

import pytest

from mlperf_operator.cluster import ApiError
from unit.nodes.api import Api, Operator, new_node

LABELLED: dict[str, Any] = {"metadata": {"labels": {"a": "b"}}}


async def _patched(operator: Operator, name: str = "node-1") -> None:
    node = operator.view.get(name)
    assert node is not None
    await operator.view.patch(node, LABELLED)


def _label(operator: Operator, name: str = "node-1") -> str | None:
    node = operator.view.get(name)
    assert node is not None
    return node.labels.get("a")


async def test_our_own_write_is_seen_before_the_informer_brings_it() -> None:
    api = Api()
    new_node(api)
    new_node(api, "node-2")
    operator = Operator(api)
    await _patched(operator)
    assert _label(operator) == "b"
    assert [node.labels.get("a") for node in operator.view.all()] == ["b", None]
    operator.look()
    assert _label(operator) == "b"


async def test_what_others_wrote_later_wins() -> None:
    api = Api()
    new_node(api)
    operator = Operator(api)
    await _patched(operator)
    del api.node()["metadata"]["labels"]["a"]
    api.put(api.node())
    operator.look()
    assert _label(operator) is None


async def test_a_node_of_the_same_name_that_was_made_anew_is_another_one() -> None:
    api = Api()
    new_node(api)
    operator = Operator(api)
    await _patched(operator)
    api.version = 0
    del api.objects["Node", "", "node-1"]
    new_node(api)
    operator.look()
    assert _label(operator) is None


async def test_a_node_that_is_gone_is_none_and_to_write_it_is_an_error() -> None:
    api = Api()
    new_node(api)
    operator = Operator(api)
    del api.objects["Node", "", "node-1"]
    with pytest.raises(ApiError) as caught:
        await _patched(operator)
    assert caught.value.status == 404
    operator.look()
    assert operator.view.get("node-1") is None
    assert operator.view.all() == []


async def test_a_second_write_from_the_same_record_is_refused() -> None:
    api = Api()
    new_node(api)
    operator = Operator(api)
    node = operator.view.get("node-1")
    assert node is not None
    await operator.view.patch(node, LABELLED)
    with pytest.raises(ApiError) as caught:
        await operator.view.patch(node, LABELLED)
    assert caught.value.status == 409
