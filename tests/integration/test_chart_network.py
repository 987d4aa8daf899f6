"""The chart's NetworkPolicy. No network here enforces it: what it says is held against what the operator listens on."""

from __future__ import annotations

import pytest

from integration.chart import CHART, Object, container, helm, only, render
from mlperf_operator.settings import Settings

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

PEER = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
COLLECTOR = {"to": [PEER], "ports": [{"protocol": "TCP", "port": 4318}]}


def spec(**values: object) -> Object:
    return dict(only(render({"networkPolicy": values}), "NetworkPolicy")["spec"])


def ports(rule: Object) -> list[int]:
    return [found["port"] for found in rule["ports"]]


def test_it_is_about_the_operators_pods_and_no_others() -> None:
    objects = render({"driver": {"enabled": True, "devicePlugin": {"enabled": True}}})
    selected = only(objects, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"]
    assert selected == only(objects, "Deployment")["spec"]["selector"]["matchLabels"]
    # `helm test` and the device plugin have the network that they had.
    assert not only(objects, "Pod")["metadata"]["labels"].items() >= selected.items()
    plugin = only(objects, "DaemonSet")["spec"]["template"]["metadata"]["labels"]
    assert not plugin.items() >= selected.items()


def test_whatever_the_operator_listens_on_can_be_reached_and_nothing_else() -> None:
    rules = spec()["ingress"]
    listens = {found["containerPort"] for found in container(render())["ports"]}
    assert {port for rule in rules for port in ports(rule)} == listens
    assert ports(rules[0]) == [Settings().health_port]
    assert all("from" not in rule for rule in rules)


def test_metrics_are_for_whom_the_administrator_says() -> None:
    health, metrics = spec(metricsFrom=[PEER])["ingress"]
    assert "from" not in health
    assert metrics["from"] == [PEER]


def test_the_operator_reaches_names_and_the_api_server_alone() -> None:
    names, server = spec()["egress"]
    assert names == {"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]}
    assert (ports(server), server.get("to")) == ([443, 6443], None)


def test_the_api_servers_place_and_further_ones_can_be_named() -> None:
    _, server, further = spec(apiServerPorts=[16443], apiServerCidrs=["10.0.0.1/32"], extraEgress=[COLLECTOR])["egress"]
    assert (ports(server), server["to"]) == ([16443], [{"ipBlock": {"cidr": "10.0.0.1/32"}}])
    assert further == COLLECTOR


def test_it_can_be_left_out() -> None:
    assert not [o for o in render({"networkPolicy": {"enabled": False}}) if o["kind"] == "NetworkPolicy"]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"enable": True}, "additional properties 'enable' not allowed"),
        ({"apiServerPorts": []}, "'/networkPolicy/apiServerPorts': minItems: got 0, want 1"),
        ({"apiServerPorts": ["https"]}, "'/networkPolicy/apiServerPorts/0': got string, want integer"),
        ({"apiServerCidrs": ["10.0.0.1"]}, "'/networkPolicy/apiServerCidrs/0': '10.0.0.1' does not match"),
        ({"metricsFrom": ["monitoring"]}, "'/networkPolicy/metricsFrom/0': got string, want object"),
    ],
)
def test_a_wrong_value_is_refused_and_named(values: Object, said: str) -> None:
    done = helm("template", "x", str(CHART), "--kube-version", "1.35.0", values={"networkPolicy": values})
    assert done.returncode != 0
    assert said in done.stderr
