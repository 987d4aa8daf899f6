"""The log's lines."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from mlperf_operator.logs import JsonFormatter, bind, configure


@pytest.fixture
def lines() -> Iterator[Any]:
    """What a logger of this test's own has written, parsed."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("test.logs")
    logger.addHandler(handler)
    logger.propagate = False
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    logger.removeHandler(handler)
    logger.propagate = True


def test_a_line_says_when_how_grave_who_and_what(lines: Any) -> None:
    logging.getLogger("test.logs").warning("%d of %d", 1, 2)
    [entry] = lines()
    assert entry.pop("ts").endswith("+00:00")
    assert entry == {"level": "warning", "logger": "test.logs", "msg": "1 of 2"}


def test_a_bound_logger_names_its_run(lines: Any) -> None:
    log = bind(logging.getLogger("test.logs"), run="r", namespace="n", uid="u")
    log.error("x", extra={"uid": "other"})
    [entry] = lines()
    assert (entry["run"], entry["namespace"], entry["uid"]) == ("r", "n", "other")


def _fail() -> None:
    raise ValueError("first\nsecond")


def test_an_exception_and_a_message_of_many_lines_stay_one_line(lines: Any) -> None:
    try:
        _fail()
    except ValueError:
        logging.getLogger("test.logs").exception("a\nb")
    [entry] = lines()
    assert entry["msg"] == "a\nb"
    assert "ValueError: first\nsecond" in entry["exception"]


def test_kopfs_loggers_write_the_same_lines_and_only_from_warning_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, kopf = logging.getLogger(), logging.getLogger("kopf")
    handlers, levels = root.handlers[:], (root.level, kopf.level)
    monkeypatch.setattr(root, "handlers", [])
    try:
        configure("INFO")
        logging.getLogger("kopf.objects").info("hidden")
        logging.getLogger("kopf.objects").warning("shown")
        logging.getLogger("mlperf_operator.x").info("ours")
        logging.getLogger("mlperf_operator.x").debug("too much")
        told = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    finally:
        root.handlers = handlers
        root.setLevel(levels[0])
        kopf.setLevel(levels[1])
    assert [entry["msg"] for entry in told] == ["shown", "ours"]
