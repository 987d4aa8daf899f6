"""The node's lock and record: who is at work, and what was done, whatever ended it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from mlperf_operator.agent.driver import record
from mlperf_operator.agent.driver.errors import DriverError
from mlperf_operator.agent.driver.record import Record
from mlperf_operator.driver_report import Reason
from unit.agent.driver.facts_of import target_of
from unit.agent.driver.played import PlayedHost

KERNEL = "6.1.0-18-amd64"


def of(**changes: object) -> Record:
    fields: dict[str, object] = {"state": "Complete", "digest": "d", "version": "550.54.14", "source": "Packages"}
    return Record.model_validate({**fields, **changes})


def test_a_second_agent_is_told_who_is_at_work(tmp_path: Path) -> None:
    host = PlayedHost(tmp_path)
    with record.locked(host):
        with pytest.raises(DriverError) as caught, record.locked(host):
            pass
        assert caught.value.reason == Reason.NODE_LOCKED
        assert f"process {os.getpid()} holds" in caught.value.detail
    with record.locked(host):
        assert (tmp_path / "run/mlperf-operator/driver.lock").read_text() == f"{os.getpid()}\n"


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    host = PlayedHost(tmp_path)
    assert record.read(host) is None
    written = of(state="Changing", step="Install", held=("a",), previous={"a": "1"}, run_file="0" * 64)
    record.write(host, written)
    assert record.read(host) == written
    document = json.loads((tmp_path / "var/lib/mlperf-operator/driver.json").read_text())
    assert (document["state"], document["step"], document["runFile"]) == ("Changing", "Install", "0" * 64)
    record.write(host, None)
    assert record.read(host) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"state": "Else"}'])
def test_a_record_that_cannot_be_understood_makes_nothing_ours(tmp_path: Path, text: str) -> None:
    host = PlayedHost(tmp_path)
    host.put(record.RECORD, text)
    assert record.read(host) is None
    assert "cannot be understood" in host.said[0]


def test_a_record_that_cannot_be_written_is_a_full_disk(tmp_path: Path) -> None:
    host = PlayedHost(tmp_path)
    host.put("/var/lib/mlperf-operator")
    with pytest.raises(DriverError) as caught:
        record.write(host, of())
    assert caught.value.reason == Reason.DISK_FULL


def test_the_digest_is_of_what_is_wanted_and_not_of_what_is_permitted() -> None:
    digest = record.digest(target_of("Install"), KERNEL)
    assert digest == record.digest(target_of("Adopt"), KERNEL)
    assert digest != record.digest(target_of("Install", "550.90.07"), KERNEL)
    assert digest != record.digest(target_of("Install", toolkit=True), KERNEL)
    assert digest != record.digest(target_of("Install"), "6.1.0-19-amd64")


def test_what_was_undone_is_ours_only_if_it_was_before() -> None:
    changing = of(state="Changing", step="Undo", owned=True, held=("new",), held_before=("old",), previous={"old": "1"})
    assert changing.undone() == of(digest="", owned=False, held=("old",))
    assert changing.model_copy(update={"owned_before": True}).undone().owned
