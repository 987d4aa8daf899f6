"""The harness's log."""

from __future__ import annotations

import logging
import sys

LOG = logging.getLogger("standin")


def configure() -> None:
    """Print everything to standard output, as the real harness does."""
    form = "[%(asctime)s %(filename)s:%(lineno)d %(levelname)s] %(message)s"
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format=form, datefmt="%Y-%m-%d %H:%M:%S,000")
