"""Folders of the node as scratch and results: a run gets the one that it names, and a link leads nowhere else."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.lab import FINISH_SECONDS, Run, manifest, wait_for
from e2e.suites import HOST_PATH
from installation import Cluster, condition

pytestmark = pytest.mark.e2e

MAY_BE_MADE_BY_ALL = 0o777
"""The kubelet gives a folder that it makes the mode of the allowed one, and the reference suite is not root."""


@pytest.fixture
def privileged(operator: Cluster, namespace: str) -> str:
    """A namespace that permits hostPath volumes."""
    operator.ensure_namespace(namespace, pod_security="privileged")
    return namespace


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder below the allowed one on this machine, which is the cluster's node."""
    Path(HOST_PATH).mkdir(exist_ok=True)
    Path(HOST_PATH).chmod(MAY_BE_MADE_BY_ALL)
    found = Path(HOST_PATH, f"team-{uuid.uuid4().hex[:8]}")
    found.mkdir()
    found.chmod(MAY_BE_MADE_BY_ALL)
    yield found
    shutil.rmtree(found)


def on(folder: Path) -> dict[str, dict[str, str]]:
    return {"hostPath": {"path": str(folder)}}


def test_a_run_works_in_the_folders_that_it_names_and_its_results_lie_where_the_status_says(
    operator: Cluster, privileged: str, folder: Path
) -> None:
    body = manifest("on-node", scratch=on(folder / "scratch"), results=on(folder / "results"))
    run = Run.apply(operator, privileged, body)
    ended = run.finished()
    assert condition(ended, "Succeeded")[0] == "True", condition(ended, "Succeeded")
    results = Path(ended["status"]["artifacts"]["path"])
    assert results.is_relative_to(folder / "results")
    assert {"manifest.json", "report.json", "logs"} <= {file.name for file in results.iterdir()}
    assert (folder / "scratch" / ".mlperf" / "runs" / ended["metadata"]["uid"] / "work").is_dir()


@pytest.mark.parametrize("field", ["scratch", "results"])
@pytest.mark.parametrize("dangling", [False, True], ids=["to a folder", "to nothing"])
def test_a_link_that_an_earlier_run_could_have_left_leads_nowhere(
    operator: Cluster, privileged: str, folder: Path, tmp_path: Path, field: str, *, dangling: bool
) -> None:
    outside = tmp_path / "outside"
    if not dangling:
        outside.mkdir()
        outside.chmod(MAY_BE_MADE_BY_ALL)
    (folder / "link").symlink_to(outside)
    body = manifest("led-astray", **{field: on(folder / "link")}, startTimeoutSeconds=20)
    run = Run.apply(operator, privileged, body)
    wait_for("the pod", run.pods)
    ended = run.finished(FINISH_SECONDS)
    status, reason, message = condition(ended, "Succeeded")
    assert (status, reason) == ("False", "FolderRefused"), message
    assert "a link may lead out of the volume" in message
    assert not outside.exists() or not list(outside.iterdir())


def test_a_link_in_place_of_a_folder_of_the_runs_own_leads_nowhere_either(
    operator: Cluster, privileged: str, folder: Path, tmp_path: Path
) -> None:
    # Root of an earlier run may leave it on the scratch that both share.
    (folder / ".mlperf").symlink_to(tmp_path)
    run = Run.apply(operator, privileged, manifest("led-astray", scratch=on(folder), startTimeoutSeconds=20))
    assert condition(run.finished(), "Succeeded")[:2] == ("False", "FolderRefused")
    assert not list(tmp_path.iterdir())
