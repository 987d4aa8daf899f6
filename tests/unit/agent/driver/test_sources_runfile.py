"""The run file: only what has the catalogue's checksum is ever run."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from mlperf_operator.agent.driver.errors import DriverError
from mlperf_operator.agent.driver.sources import runfile
from mlperf_operator.catalogue import RunFileSource
from mlperf_operator.driver_report import Reason
from unit.agent.driver.played import PlayedHost

NAME = "cuda_12.4.0_550.54.14_linux.run"
CONTENT = b"#!/bin/sh\nexit 0\n"
PLACE = f"/var/cache/mlperf-operator/{NAME}"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that it has there
        """Say nothing."""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / NAME).write_bytes(CONTENT)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def host(tmp_path: Path) -> PlayedHost:
    return PlayedHost(tmp_path / "root")


def source(**changes: Any) -> RunFileSource:
    checksum = hashlib.sha256(CONTENT).hexdigest()
    return RunFileSource.model_validate({"os": ("debian",), "sha256": checksum, **changes})


def reason(host: PlayedHost, wanted: RunFileSource) -> Reason:
    with pytest.raises(DriverError) as caught:
        runfile.fetch(host, wanted)
    return caught.value.reason


def test_a_file_is_fetched_once_and_removed_in_the_end(host: PlayedHost, served: str) -> None:
    wanted = source(url=f"{served}/{NAME}")
    runfile.fetch(host, wanted)
    assert host.path(PLACE).read_bytes() == CONTENT
    runfile.fetch(host, source(url=f"http://127.0.0.1:1/{NAME}"))
    runfile.clean(host, wanted)
    assert not host.exists(PLACE)


def test_a_fetched_file_of_another_checksum_is_removed(host: PlayedHost, served: str) -> None:
    assert reason(host, source(url=f"{served}/{NAME}", sha256="0" * 64)) == Reason.CHECKSUM_MISMATCH
    assert not host.exists(PLACE)


def test_a_stale_file_in_the_cache_is_fetched_again(host: PlayedHost, served: str) -> None:
    host.put(PLACE, "half of it")
    runfile.fetch(host, source(url=f"{served}/{NAME}"))
    assert host.path(PLACE).read_bytes() == CONTENT


@pytest.mark.parametrize("path", ["missing.run", None])
def test_a_file_that_cannot_be_fetched_is_an_unreachable_source(
    host: PlayedHost, served: str, path: str | None
) -> None:
    url = f"{served}/{path}" if path else f"http://127.0.0.1:1/{NAME}"
    assert reason(host, source(url=url)) == Reason.REPOSITORY_UNREACHABLE


def test_a_file_of_the_hosts_is_checked_and_stays_whatever_it_is(host: PlayedHost) -> None:
    wanted = source(host_path="/opt/driver.run")
    assert reason(host, wanted) == Reason.REPOSITORY_UNREACHABLE
    host.put("/opt/driver.run", "something else")
    assert reason(host, wanted) == Reason.CHECKSUM_MISMATCH
    host.put("/opt/driver.run", CONTENT.decode())
    runfile.fetch(host, wanted)
    runfile.clean(host, wanted)
    assert host.exists("/opt/driver.run")


def test_a_file_url_names_a_file_of_the_hosts_and_not_of_the_pods(host: PlayedHost) -> None:
    host.put("/srv/driver.run", CONTENT.decode())
    runfile.fetch(host, source(url="file:///srv/driver.run"))


def test_the_installers_log_tells_why_it_failed(host: PlayedHost) -> None:
    host.put(
        "/var/log/nvidia-installer.log",
        "-> Installing\nERROR: Unable to find the kernel source tree for the currently running kernel.\n-> done\n",
    )
    error = runfile.failed(host, "Installation failed. See log at /var/log/cuda-installer.log for details.", 1)
    assert error.reason == Reason.HEADERS_MISSING
    assert "Unable to find the kernel source tree" in error.detail


def test_a_log_of_another_failure_tells_nothing(host: PlayedHost) -> None:
    log = "/var/log/nvidia-installer.log"
    host.put(log, "ERROR: Unable to find the kernel source tree for the currently running kernel.\n")
    os.utime(host.path(log), (1000, 1000))
    error = runfile.failed(host, "Failed to verify gcc version.", 1, since=2000)
    assert (error.reason, error.detail) == (
        Reason.INSTALL_FAILED,
        "the run file failed: Failed to verify gcc version.",
    )


@pytest.mark.parametrize("place", ["/opt/driver.run", "/opt"])
def test_a_file_that_anybody_may_change_is_not_run(host: PlayedHost, place: str) -> None:
    host.put("/opt/driver.run", CONTENT.decode())
    wanted = source(host_path="/opt/driver.run")
    runfile.check(host, wanted)
    host.path(place).chmod(0o777)
    with pytest.raises(DriverError, match="written by others than root") as caught:
        runfile.check(host, wanted)
    assert caught.value.reason == Reason.CHECKSUM_MISMATCH
