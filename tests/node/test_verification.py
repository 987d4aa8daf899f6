"""The main container's word follows the truth, both ways, and does not disturb a benchmark."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request

import pytest

from mlperf_operator.catalogue import Repository
from mlperf_operator.driver_report import NodeReport, Reason
from node import packages
from node.node import Node, target, wait_for
from node.repository import Server

pytestmark = pytest.mark.integration

OLD, FIRST = packages.OLD_BRANCH, packages.FIRST
SECONDS = 8.0
"""A change must show within this time: the agent looks every 2 s."""


def ready(port: int) -> tuple[int, str]:
    """Return what the readiness probe gets; 0 while nobody answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except urllib.error.URLError:
        return 0, ""


def reports(node: Node) -> list[NodeReport]:
    """Return the reports that the main container has printed."""
    lines = (node.work / "said").read_text().splitlines()
    return [NodeReport.model_validate_json(line) for line in lines if line.startswith("{")]


def test_readiness_follows_the_fabric_manager_both_ways(old_node: Node, packages_of: Repository, port: int) -> None:
    with old_node.verifying(target(packages_of, OLD), port) as process:
        wait_for(lambda: ready(port)[0] == 200, 20, process)
        old_node.run("systemctl", "stop", "nvidia-fabricmanager")
        wait_for(lambda: ready(port)[0] == 503, SECONDS, process)
        assert NodeReport.model_validate(json.loads(ready(port)[1])).reason == Reason.FABRIC_MANAGER_FAILED
        old_node.run("systemctl", "start", "nvidia-fabricmanager")
        wait_for(lambda: ready(port)[0] == 200, SECONDS, process)
    assert [report.ready for report in reports(old_node)] == [True, False, True]


def test_a_driver_that_somebody_replaced_is_no_longer_ready(
    old_node: Node, packages_of: Repository, server: Server, port: int
) -> None:
    with old_node.verifying(target(packages_of, OLD), port) as process:
        wait_for(lambda: ready(port)[0] == 200, 20, process)
        old_node.run("systemctl", "stop", "nvidia-fabricmanager", "nvidia-persistenced")
        old_node.run("rmmod", "nvidia_modeset", "nvidia_uvm", "nvidia")
        old_node.run("apt-mark", "unhold", *old_node.held())
        old_node.by_hand(server, FIRST)
        wait_for(
            lambda: bool(reports(old_node)) and reports(old_node)[-1].reason == Reason.DRIVER_MISMATCH, SECONDS, process
        )
        assert ready(port)[0] == 503
    assert reports(old_node)[-1].driver == FIRST


def test_nvidia_smi_is_not_asked_while_nothing_changes(old_node: Node, packages_of: Repository, port: int) -> None:
    with old_node.verifying(target(packages_of, OLD), port) as process:
        wait_for(lambda: ready(port)[0] == 200, 20, process)
        time.sleep(1)
        old_node.forget_calls()
        time.sleep(7)
        assert old_node.calls() == []


@pytest.mark.parametrize(("mode", "limit"), [("Install", "400.00"), ("Verify", "225.00")])
def test_a_power_limit_that_a_killed_run_left_is_put_back_where_that_is_permitted(
    old_node: Node, packages_of: Repository, port: int, mode: str, limit: str
) -> None:
    file = old_node.root / "standin/gpu/3/power.limit"
    file.parent.mkdir(parents=True)
    file.write_text("225.00\n")
    old_node.forget_calls()
    wanted = target(packages_of, OLD).model_copy(update={"mode": mode})
    with old_node.verifying(wanted, port) as process:
        wait_for(lambda: ready(port)[0] != 0, 20, process)
        wait_for(lambda: "nvidia-smi" in old_node.calls(), 20, process)
        if limit == "400.00":
            wait_for(lambda: file.read_text().strip() == limit, SECONDS, process)
        time.sleep(3)
    assert file.read_text().strip() == limit
