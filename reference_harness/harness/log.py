"""Log lines in the shape of NVIDIA's harness: time, file, line and level in brackets."""

from __future__ import annotations

import logging
import sys

LOG = logging.getLogger("harness")


def configure_logging() -> None:
    """Send the harness's log to stdout, where the Makefile copies it to LOG_DIR/stdout.txt."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("[%(asctime)s %(filename)s:%(lineno)d %(levelname)s] %(message)s"))
    LOG.handlers = [handler]
    LOG.setLevel(logging.INFO)
    LOG.propagate = False
