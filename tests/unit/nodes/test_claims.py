"""Claims of a node's driver, and what of them can be read."""

from __future__ import annotations

import pytest

from mlperf_operator.naming import DRIVER_CLAIM_ANNOTATION
from mlperf_operator.nodes import claims
from mlperf_operator.nodes.claims import Claim

TWO = Claim("550.54.14", {"uid-a": "bench/a", "uid-b": "bench/b"})


def test_a_claim_is_read_as_it_was_written() -> None:
    text = claims.write(TWO)
    assert text is not None
    assert claims.read({DRIVER_CLAIM_ANNOTATION: text}) == TWO


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "7",
        '"x"',
        "{}",
        '{"version": "550.54.14"}',
        '{"runs": {"u": "k"}}',
        '{"version": "550.54.14", "runs": ["u"]}',
        '{"version": "550.54.14", "runs": null}',
    ],
)
def test_what_nobody_can_read_is_no_claim(text: str) -> None:
    assert claims.read({DRIVER_CLAIM_ANNOTATION: text}) == Claim()


def test_a_node_without_the_annotation_has_no_claim_and_no_claim_has_no_annotation() -> None:
    assert claims.read({}) == Claim()
    assert claims.write(Claim("550.54.14")) is None


def test_runs_that_ended_leave_and_the_version_stays() -> None:
    assert TWO.pruned(lambda key, uid: (key, uid) == ("bench/b", "uid-b")) == Claim("550.54.14", {"uid-b": "bench/b"})


def test_a_run_that_joins_twice_is_there_once_and_brings_its_version() -> None:
    joined = TWO.joined("uid-c", "bench/c", "535.183.01")
    assert joined == joined.joined("uid-c", "bench/c", "535.183.01")
    assert joined.version == "535.183.01"
    assert set(joined.runs) == {"uid-a", "uid-b", "uid-c"}
