"""containerd learns the runtime once, is restarted only for news, and runs with its old file where it must."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlperf_operator.agent.driver import toolkit
from mlperf_operator.agent.driver.errors import DriverError
from mlperf_operator.catalogue import ContainerToolkit
from mlperf_operator.driver_report import Reason
from unit.agent.driver.facts_of import target_of
from unit.agent.driver.played import Answer, PlayedHost

CONFIG, DROP_IN = "/etc/containerd/config.toml", "/etc/containerd/conf.d/99-nvidia.toml"


class Containerd(PlayedHost):
    """nvidia-ctk writes; containerd starts unless a word of its files is one that it rejects."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.rejects = "nothing"
        self.put(CONFIG, "version = 2\n")
        self.path(CONFIG).chmod(0o600)
        self.answers = {("nvidia-ctk",): self._configure, ("systemctl",): self._systemctl}

    def _configure(self, words: tuple[str, ...]) -> Answer:
        if "nvidia" not in (self.read(CONFIG) or ""):
            self.write(CONFIG, f"{self.read(CONFIG)}[nvidia]\n", 0o600)
            self.put(DROP_IN, "[nvidia]\n")
        return 0, ""

    def _systemctl(self, words: tuple[str, ...]) -> Answer:
        bad = self.rejects in (self.read(CONFIG) or "")
        return (1, "failed") if bad else (0, "")


@pytest.fixture
def host(tmp_path: Path) -> Containerd:
    return Containerd(tmp_path)


@pytest.fixture
def wanted() -> ContainerToolkit:
    toolkit = target_of(toolkit=True).toolkit
    assert toolkit is not None
    return toolkit


def test_news_for_containerd_is_news_once(host: Containerd, wanted: ContainerToolkit) -> None:
    assert toolkit.configure(host, wanted)
    toolkit.restart(host, wanted)
    assert not toolkit.configure(host, wanted)
    assert not host.exists(toolkit.BACKUP)
    assert host.programs()[0] == f"nvidia-ctk runtime configure --runtime=containerd --config={CONFIG}"


def test_the_runtime_becomes_the_default_where_that_is_wanted(host: Containerd, wanted: ContainerToolkit) -> None:
    toolkit.configure(host, wanted.model_copy(update={"set_as_default": True}))
    assert host.ran[0][-1] == "--set-as-default"


def test_news_that_an_ended_attempt_wrote_is_still_news(host: Containerd, wanted: ContainerToolkit) -> None:
    assert toolkit.configure(host, wanted)
    assert toolkit.configure(host, wanted)


def test_a_containerd_that_does_not_start_gets_its_old_files_back(host: Containerd, wanted: ContainerToolkit) -> None:
    toolkit.configure(host, wanted)
    host.rejects = "nvidia"
    with pytest.raises(DriverError, match="it runs with that") as caught:
        toolkit.restart(host, wanted)
    assert caught.value.reason == Reason.TOOLKIT_FAILED
    assert host.read(CONFIG) == "version = 2\n"
    assert host.path(CONFIG).stat().st_mode & 0o777 == 0o600
    assert not host.exists(DROP_IN)
    assert not host.exists(toolkit.BACKUP)


def test_a_containerd_that_does_not_start_at_all_is_told_as_that(host: Containerd, wanted: ContainerToolkit) -> None:
    toolkit.configure(host, wanted)
    host.rejects = "version"
    with pytest.raises(DriverError, match="does not run with that either"):
        toolkit.restart(host, wanted)


def test_a_toolkit_that_fails_leaves_the_files_as_they_were(host: Containerd, wanted: ContainerToolkit) -> None:
    def fail(words: tuple[str, ...]) -> Answer:
        host.put(CONFIG, "half")
        return 1, "unable to flush config"

    host.answers["nvidia-ctk",] = fail
    with pytest.raises(DriverError, match="unable to flush config"):
        toolkit.configure(host, wanted)
    assert host.read(CONFIG) == "version = 2\n"


PLUGINS = """TYPE                                  ID                       PLATFORMS      STATUS
io.containerd.snapshotter.v1          zfs                      linux/amd64    skip
io.containerd.grpc.v1                 introspection            -              ok
io.containerd.grpc.v1                 cri                      linux/amd64    {status}
io.containerd.snapshotter.v1          blockfile                linux/amd64    error
"""


def test_a_containerd_that_runs_without_its_cri_gets_its_old_files_back(
    host: Containerd, wanted: ContainerToolkit
) -> None:
    host.put("/usr/bin/ctr")
    host.answers["ctr", "plugins", "ls"] = (0, PLUGINS.format(status="error"))
    toolkit.configure(host, wanted)
    with pytest.raises(DriverError, match=r"runs without io\.containerd\.grpc\.v1\.cri, which the kubelet needs"):
        toolkit.restart(host, wanted)
    assert host.read(CONFIG) == "version = 2\n"
    assert not host.exists(DROP_IN)


def test_plugins_that_the_kubelet_does_not_need_may_fail(host: Containerd, wanted: ContainerToolkit) -> None:
    host.put("/usr/bin/ctr")
    host.answers["ctr", "plugins", "ls"] = (0, PLUGINS.format(status="ok"))
    toolkit.configure(host, wanted)
    toolkit.restart(host, wanted)
    assert host.exists(DROP_IN)
