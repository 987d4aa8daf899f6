"""What the chart brings for Prometheus, Grafana and traces."""

from __future__ import annotations

import json
import re

import pytest
import yaml

from integration.chart import CHART, Object, container, helm, only, render
from integration.prometheus import DASHBOARD, RULES, alerts, queries

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

EVERYTHING: Object = {
    "metrics": {
        "port": 9090,
        "serviceMonitor": {"enabled": True, "interval": "15s", "labels": {"release": "prometheus"}},
        "rules": {"enabled": True, "labels": {"release": "prometheus"}},
        "dashboard": {"enabled": True, "annotations": {"grafana_folder": "MLPerf"}},
    },
    "tracing": {"endpoint": "http://otel-collector.monitoring:4318"},
}


def _variable(objects: list[Object], name: str) -> str:
    return next(
        str(entry["value"]) for entry in container(objects)["env"] if entry["name"] == f"MLPERF_OPERATOR_{name}"
    )


def _ports(objects: list[Object]) -> dict[str, int]:
    return {port["name"]: port["containerPort"] for port in container(objects)["ports"]}


def test_metrics_are_served_and_nothing_is_asked_of_the_prometheus_operator_unless_wanted() -> None:
    objects = render()
    assert _variable(objects, "METRICS_PORT") == "8080"
    assert _ports(objects) == {"health": 8081, "metrics": 8080}
    service = only(objects, "Service")
    assert service["spec"]["ports"] == [{"name": "metrics", "port": 8080, "targetPort": "metrics"}]
    pods = only(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= pods.items()
    assert not [o for o in objects if o["apiVersion"].startswith("monitoring.coreos.com/")]
    assert not [o for o in objects if o["metadata"]["name"].endswith("-dashboard")]


def test_metrics_can_be_off() -> None:
    objects = render({"metrics": {"enabled": False, "serviceMonitor": {"enabled": True}, "rules": {"enabled": True}}})
    assert _variable(objects, "METRICS_PORT") == "0"
    assert _ports(objects) == {"health": 8081}
    assert not [o for o in objects if o["kind"] in ("Service", "ServiceMonitor", "PrometheusRule")]


def test_the_service_monitor_finds_the_service_and_keeps_the_runs_namespace() -> None:
    objects = render(EVERYTHING)
    monitor, service = only(objects, "ServiceMonitor"), only(objects, "Service")
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    [endpoint] = monitor["spec"]["endpoints"]
    assert endpoint == {"port": "metrics", "path": "/metrics", "interval": "15s", "honorLabels": True}
    assert service["spec"]["ports"][0]["port"] == 9090 == _ports(objects)["metrics"]


def test_rules_and_dashboard_are_the_files_of_the_chart() -> None:
    objects = render(EVERYTHING)
    assert only(objects, "PrometheusRule")["spec"] == yaml.safe_load(RULES.read_text())
    dashboard = only(objects, "ConfigMap", "mlperf-operator-dashboard")
    assert json.loads(dashboard["data"]["mlperf-operator.json"]) == json.loads(DASHBOARD.read_text())
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert dashboard["metadata"]["annotations"] == {"grafana_folder": "MLPerf"}


@pytest.mark.parametrize("release", ["mlperf-operator", "bench", "a-name-of-a-release-that-is-as-long-as-helm-permits"])
def test_the_rules_find_the_job_whatever_the_release_is_called(release: str) -> None:
    done = helm("template", release, str(CHART), "--kube-version", "1.35.0", values=EVERYTHING)
    assert done.returncode == 0, done.stderr
    objects = [body for body in yaml.safe_load_all(done.stdout) if body]
    job = only(objects, "Service")["metadata"]["labels"][only(objects, "ServiceMonitor")["spec"]["jobLabel"]]
    asked = " ".join([*queries(), *(rule["expr"] for rule in alerts().values())])
    patterns = set(re.findall(r'job=~"([^"]+)"', asked))
    assert len(patterns) == 1
    assert all(re.fullmatch(pattern, job) for pattern in patterns)


def test_the_endpoint_for_traces_reaches_the_operator() -> None:
    assert _variable(render(EVERYTHING), "TRACING_ENDPOINT") == "http://otel-collector.monitoring:4318"
    assert _variable(render(), "TRACING_ENDPOINT") == ""


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"metrics": {"port": 0}}, "'/metrics/port'"),
        ({"metrics": {"port": 8081}}, "'/metrics/port'"),
        ({"metrics": {"serviceMonitor": {"interval": "often"}}}, "'/metrics/serviceMonitor/interval'"),
        ({"metrics": {"rules": {"label": {}}}}, "additional properties 'label' not allowed"),
        ({"tracing": {"endpoint": "collector:4318"}}, "'/tracing/endpoint'"),
        ({"tracing": {"endpoint": "http://collector:4318/v1/traces"}}, "'/tracing/endpoint'"),
    ],
)
def test_a_wrong_value_is_refused_and_named(values: Object, said: str) -> None:
    done = helm("template", "x", str(CHART), "--kube-version", "1.35.0", values=values)
    assert done.returncode != 0
    assert said in done.stderr


def test_helm_has_nothing_to_complain_about() -> None:
    done = helm("lint", "--strict", str(CHART), values=EVERYTHING)
    assert done.returncode == 0, done.stdout
