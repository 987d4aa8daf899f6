"""The Debian root, the packages and their repository, each made once; each test has its own copy of the root."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_cluster.errors import RefusalError
from local_cluster.ports import free_port

from mlperf_operator.catalogue import Repository
from node import debian_root, packages, repository
from node.node import Node, target


@pytest.fixture(scope="session")
def base() -> Iterator[Path]:
    """The root as mmdebstrap makes it."""
    try:
        archive = debian_root.base_archive()
    except RefusalError as error:
        pytest.skip(str(error))
    with tempfile.TemporaryDirectory(dir=debian_root.fast_folder(), prefix="node-") as folder:
        root = Path(folder) / "base"
        debian_root.unpack(archive, root)
        yield root


@pytest.fixture
def node(base: Path, tmp_path: Path) -> Iterator[Node]:
    """A node with 8 A100s and 6 NVSwitches, and no driver."""
    root = base.with_name(uuid.uuid4().hex[:8])
    debian_root.copy(base, root)
    debian_root.furnish(root)
    yield Node(root, tmp_path)
    debian_root.remove(root)


@pytest.fixture(scope="session")
def server_of_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[repository.Server]:
    """The repository with every stand-in package."""
    folder = tmp_path_factory.mktemp("repository")
    with repository.signing_key() as key:
        repository.index(folder, key, [packages.build(deb, folder) for deb in packages.everything()])
        server = repository.Server(folder, key)
        server.start()
        yield server
        server.stop()


@pytest.fixture
def server(base: Path, server_of_session: repository.Server) -> Iterator[repository.Server]:
    """The repository, healthy at the start of each test."""
    server_of_session.healthy()
    yield server_of_session
    server_of_session.healthy()


@pytest.fixture(scope="session")
def old_base(base: Path, server_of_session: repository.Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A node on which the agent has installed the old branch's driver."""
    root = base.with_name("old")
    debian_root.copy(base, root)
    debian_root.furnish(root)
    server_of_session.healthy()
    made = Node(root, tmp_path_factory.mktemp("old"))
    made.made_ready(target(server_of_session.repository(), packages.OLD_BRANCH))
    made.forget_calls()
    return root


@pytest.fixture
def old_node(old_base: Path, tmp_path: Path) -> Iterator[Node]:
    """A copy of that node for one test."""
    root = old_base.with_name(uuid.uuid4().hex[:8])
    debian_root.copy(old_base, root)
    yield Node(root, tmp_path)
    debian_root.remove(root)


@pytest.fixture
def packages_of(server: repository.Server) -> Repository:
    """The repository as a catalogue names it."""
    return server.repository()


@pytest.fixture
def port() -> int:
    """A port of 127.0.0.1 that nobody uses."""
    return free_port()
