"""A cluster with the chart installed as an administrator would for these tests; what cannot run here is skipped."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Generator, Iterator
from typing import Any

import pytest

from e2e import lab
from e2e.session import FOLDER, STASH, Session
from e2e.suites import OPERATOR_VALUES
from installation import LAUNCHER, Cluster, build_images, install, start_cluster

REFUSED = 2
"""The launcher's exit code where it cannot work and says why."""


def pytest_configure(config: pytest.Config) -> None:
    config.stash[STASH] = Session()


def pytest_deselected(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(FOLDER):
            item.config.stash[STASH].left_out.append(item.name)


def pytest_collection_finish(session: pytest.Session) -> None:
    session.config.stash[STASH].collected(session.items, session.config.args)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if not report.passed:
        item.config.stash[STASH].not_passed.append(item.name)
    return report


@pytest.fixture(scope="session")
def session(request: pytest.FixtureRequest) -> Session:
    """What of these tests ran before."""
    return request.config.stash[STASH]


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """The local cluster, with its audit log."""
    if os.environ.get("MLPERF_KUBECONFIG"):
        pytest.skip("these tests kill processes on the node, so they need the local cluster: unset MLPERF_KUBECONFIG")
    done = subprocess.run(
        [sys.executable, str(LAUNCHER), "up", "--audit"], stderr=subprocess.PIPE, text=True, check=False
    )
    if done.returncode == REFUSED:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stderr
    return start_cluster()


@pytest.fixture(scope="session")
def images(cluster: Cluster) -> tuple[str, str]:
    """Names of the operator's and the harness's image, which the node has."""
    return build_images()


@pytest.fixture(scope="session")
def operator(cluster: Cluster, images: tuple[str, str]) -> Iterator[Cluster]:
    """The cluster with the operator in it, and the suites and permissions that these tests need."""
    install(cluster, *images, values=OPERATOR_VALUES)
    yield cluster
    install(cluster, *images)


@pytest.fixture
def namespace(operator: Cluster) -> Iterator[str]:
    """A new namespace under PodSecurity's `restricted`."""
    with lab.namespace(operator) as name:
        yield name
