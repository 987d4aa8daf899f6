"""A real Prometheus for the tests, and the rules and the dashboard that the chart ships."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from local_cluster.errors import ClusterError, RefusalError

import prometheus_server
from integration.chart import CHART

RULES = CHART / "rules/mlperf-operator.rules.yaml"
DASHBOARD = CHART / "dashboards/mlperf-operator.json"
VARIABLES = {"$namespace": ".*", "$node": ".*", "$__rate_interval": "1m"}

Object = dict[str, Any]


@cache
def programs() -> Path:
    """Return the folder with prometheus and promtool; skip the test where they cannot be had."""
    try:
        return prometheus_server.programs()
    except (ClusterError, RefusalError) as error:
        pytest.skip(str(error).splitlines()[0])


def alerts() -> dict[str, Object]:
    """Return the alert rules by name."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def dashboard() -> Object:
    """Return the dashboard."""
    return dict(json.loads(DASHBOARD.read_text()))


def queries() -> list[str]:
    """Return every query of the dashboard, with its variables filled in as for all namespaces and nodes."""
    found = [target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", ())]
    return [_filled(query) for query in found]


def _filled(query: str) -> str:
    for name, text in VARIABLES.items():
        query = query.replace(name, text)
    return query


_WORD = re.compile(r"\b(?:mlperf_|controller_runtime_|workqueue_|rest_client_|leader_election_|process_)\w+")


def metrics_in(expression: str) -> set[str]:
    """Return the names of metrics in a PromQL expression."""
    return set(_WORD.findall(expression))
