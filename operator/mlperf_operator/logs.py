"""Structured logs: one JSON object a line."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any

from mlperf_operator.api.v1alpha1 import MLPerfRun

_FIELDS = ("run", "namespace", "uid", "node")


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON: ts, level, logger, msg, and the run it is about."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as JSON."""
        entry: dict[str, Any] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": record.getMessage(),
        }
        entry |= {name: getattr(record, name) for name in _FIELDS if hasattr(record, name)}
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


class RunLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger whose lines name their run."""

    def process(self, msg: str, kwargs: MutableMapping[str, Any]) -> tuple[str, MutableMapping[str, Any]]:
        """Add the run to the record."""
        kwargs["extra"] = {**(self.extra or {}), **kwargs.get("extra", {})}
        return msg, kwargs


def bind(logger: logging.Logger, **fields: str) -> RunLogger:
    """Return a logger whose lines carry these fields: run, namespace, uid; or node."""
    return RunLogger(logger, fields)


def of_run(logger: logging.Logger, run: MLPerfRun) -> RunLogger:
    """Return a logger whose lines are about a run."""
    meta = run.metadata
    return bind(logger, run=meta.name, namespace=meta.namespace, uid=meta.uid)


def configure(level: str) -> None:
    """Send every logger's records, kopf's too, to stderr as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # kopf tells of every event that it passes on, which is all that it does here.
    logging.getLogger("kopf").setLevel(max(logging.WARNING, logging.getLogger().level))
