"""The dashboard's structure. Grafana itself is not tried: this is what its schema asks for, as far as it is used."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[3] / "charts/mlperf-operator/dashboards/mlperf-operator.json"
DASHBOARD: dict[str, Any] = json.loads(FILE.read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
SHOWING = [panel for panel in PANELS if panel["type"] != "row"]
SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def test_it_has_what_grafana_needs_to_import_it() -> None:
    assert (DASHBOARD["uid"], DASHBOARD["title"]) == ("mlperf-operator", "MLPerf operator")
    assert DASHBOARD["schemaVersion"] == 39
    assert "id" not in DASHBOARD
    assert {panel["type"] for panel in PANELS} <= {"row", "stat", "table", "timeseries", "bargauge"}


def test_panels_have_ids_of_their_own_and_do_not_cover_each_other() -> None:
    ids = [panel["id"] for panel in PANELS]
    assert len(set(ids)) == len(ids)
    cells: set[tuple[int, int]] = set()
    for panel in PANELS:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        columns = range(place["x"], place["x"] + place["w"])
        own = set(itertools.product(columns, range(place["y"], place["y"] + place["h"])))
        assert not own & cells, panel["title"]
        cells |= own


def test_every_panel_asks_the_chosen_data_source_something() -> None:
    for panel in SHOWING:
        assert panel["title"]
        assert panel["datasource"] == SOURCE
        assert panel["targets"]
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references)
        for target in panel["targets"]:
            assert target["datasource"] == SOURCE
            assert target["expr"].count("(") == target["expr"].count(")")


def test_data_source_namespace_and_node_can_be_chosen_and_are_used() -> None:
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert list(variables) == ["datasource", "namespace", "node"]
    assert (variables["datasource"]["type"], variables["datasource"]["query"]) == ("datasource", "prometheus")
    asked = " ".join(target["expr"] for panel in SHOWING for target in panel["targets"])
    for name in ("namespace", "node"):
        assert variables[name]["datasource"] == SOURCE
        assert f'{name}=~"${name}"' in asked
