"""Services are stopped only where they run, and one that does not come up is a failure with its last words."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlperf_operator.agent.driver import services
from mlperf_operator.agent.driver.errors import DriverError
from mlperf_operator.driver_report import Reason
from unit.agent.driver.played import PlayedHost, PlayedNode

FABRIC = "nvidia-fabricmanager"
JOURNAL = ("journalctl", "-u", FABRIC, "-n", "20", "--no-pager", "-o", "cat")


def test_only_a_service_that_is_known_and_runs_is_running(tmp_path: Path) -> None:
    node = PlayedNode(tmp_path)
    node.active |= {"nvidia-persistenced", FABRIC}
    node.put(f"/usr/lib/systemd/system/{FABRIC}.service")
    assert services.running(node) == (FABRIC,)


def test_a_service_that_does_not_stop_keeps_the_gpus(tmp_path: Path) -> None:
    host = PlayedHost(tmp_path)
    host.answers["systemctl", "stop"] = (1, "Job for nvidia-fabricmanager.service canceled.")
    with pytest.raises(DriverError, match="canceled") as caught:
        services.stop(host, [FABRIC])
    assert caught.value.reason == Reason.GPU_IN_USE


def test_the_fabric_manager_is_started_for_every_boot(tmp_path: Path) -> None:
    host = PlayedHost(tmp_path)
    services.start_fabric_manager(host)
    assert host.programs() == [
        *("systemctl daemon-reload", f"systemctl enable --now {FABRIC}", f"systemctl is-active {FABRIC}"),
    ]


def test_a_fabric_manager_that_fails_is_told_with_its_last_words(tmp_path: Path) -> None:
    host = PlayedHost(tmp_path)
    host.answers["systemctl", "enable"] = (1, "Job for nvidia-fabricmanager.service failed.")
    host.answers[JOURNAL] = (0, "one\ntwo\nfailed to initialize all the available NVSwitches\n")
    with pytest.raises(DriverError, match="all the available NVSwitches") as caught:
        services.start_fabric_manager(host)
    assert caught.value.reason == Reason.FABRIC_MANAGER_FAILED


def test_a_service_is_waited_for_while_it_activates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host, answers = PlayedHost(tmp_path), iter([(3, "activating"), (3, "activating"), (0, "active")])
    host.answers["systemctl", "is-active"] = lambda _: next(answers)
    monkeypatch.setattr(services, "_PAUSE_SECONDS", 0.0)
    assert services.wait_active(host, FABRIC)


def test_a_service_that_activates_for_ever_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = PlayedHost(tmp_path)
    host.answers["systemctl", "is-active"] = (3, "activating")
    monkeypatch.setattr(services, "_UP_SECONDS", 0.0)
    assert not services.wait_active(host, FABRIC)


def test_a_persistence_daemon_that_does_not_start_is_only_said(tmp_path: Path) -> None:
    host = PlayedHost(tmp_path)
    services.start_persistenced(host)
    assert host.ran == []
    host.put("/lib/systemd/system/nvidia-persistenced.service")
    host.answers["systemctl", "start"] = (1, "")
    services.start_persistenced(host)
    assert "nvidia-persistenced did not start" in host.said[0]
