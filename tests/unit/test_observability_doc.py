"""docs/observability.md names every metric, alert and Event reason that there is, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from prometheus_client.core import Metric

from mlperf_operator.fleet_metrics import Fleet
from mlperf_operator.metrics import Metrics
from mlperf_operator.metrics_server import Informers

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/observability.md").read_text()
RULES = ROOT / "charts/mlperf-operator/rules/mlperf-operator.rules.yaml"
EVENTS = ROOT / "operator/mlperf_operator/events.py"


def _rows(pattern: str) -> dict[str, list[str]]:
    """Return the table rows whose first cell has such a word, as their other cells."""
    found = {}
    for line in PAGE.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        named = re.fullmatch(f"`({pattern})`", cells[0])
        if line.startswith("|") and named:
            found[named[1]] = cells[1:]
    return found


def _families() -> list[Metric]:
    metrics = Metrics()
    metrics.about_process()
    return [*metrics.registry.collect(), *Informers([]).collect(), *Fleet(set()).families()]


def _shown(family: Metric) -> str:
    return {"counter": f"{family.name}_total", "info": f"{family.name}_info"}.get(family.type, family.name)


def test_every_metric_is_in_a_table_and_every_metric_of_a_table_is_there() -> None:
    ours = {_shown(family) for family in _families()}
    libraries = {name for name in ours if name.startswith(("process_", "python_"))}
    assert len(libraries) > 5
    assert set(_rows("(?:mlperf|controller|workqueue|rest|leader)_[a-z_]+")) == ours - libraries


def test_every_metric_has_a_text() -> None:
    assert all(family.documentation for family in _families())


def test_every_alert_is_in_the_table_with_its_severity() -> None:
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    documented = {name: cells[0] for name, cells in _rows("MLPerf[A-Za-z]+").items()}
    assert documented == {rule["alert"]: rule["labels"]["severity"] for rule in rules}


def test_the_reasons_of_events_are_explained() -> None:
    said = set(re.findall(r'Note\("\w+", "([A-Za-z]+)"', EVENTS.read_text()))
    assert said
    assert said <= set(re.findall(r"`([A-Z][A-Za-z]+)`", PAGE))


def test_the_chart_values_are_named() -> None:
    values = yaml.safe_load((ROOT / "charts/mlperf-operator/values.yaml").read_text())
    for name in values["metrics"]:
        assert f"`metrics.{name}" in PAGE
    assert "`tracing.endpoint`" in PAGE
