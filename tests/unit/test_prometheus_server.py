"""Where the tests' Prometheus comes from."""

from __future__ import annotations

from pathlib import Path

import pytest
from local_cluster import host
from local_cluster.errors import RefusalError

import prometheus_server


def test_programs_that_are_there_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in prometheus_server.PROGRAMS:
        (tmp_path / name).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert prometheus_server.programs() == tmp_path


def test_a_system_without_debians_package_is_refused_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(host, "is_debian_like", lambda: False)
    with pytest.raises(RefusalError, match="neither Debian nor Ubuntu"):
        prometheus_server.programs()


def test_what_was_unpacked_before_is_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "mlperf-operator/prometheus").mkdir(parents=True)
    assert prometheus_server.programs() == tmp_path / "mlperf-operator/prometheus"
