"""How folders of the node are mounted: the outermost allowed one, and what lies below it as a subPath."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest

from mlperf_operator.api.v1alpha1 import MLPerfRun
from mlperf_operator.host_paths import lies_under, outermost
from mlperf_operator.resources.confine import HostPathError, confined
from mlperf_operator.resources.job import Bounds, job, recovery_job
from mlperf_operator.resources.volumes import artifacts
from mlperf_operator.suites import BUILT_IN
from unit.core.builders import IMAGES, UID, a100

PREFIXES = ("/mnt/nvme/team", "/mnt/nvme", "/mnt/nvmes", "/data/")
PRIVATE = f".mlperf/runs/{UID}"


def pods(run: MLPerfRun, allowed: tuple[str, ...] = PREFIXES) -> list[dict[str, Any]]:
    """Return the specs of the run's pod and of the one that reads results again."""
    suite = BUILT_IN[run.spec.suite]
    bodies = [
        job(run, suite, IMAGES, [], "digest", bounds=Bounds(allowed)),
        recovery_job(run, suite, IMAGES, "node-1", Bounds(allowed)),
    ]
    return [body["spec"]["template"]["spec"] for body in bodies]


def folders(pod: dict[str, Any]) -> dict[str, str]:
    """Return the pod's folders of the node by volume."""
    return {v["name"]: v["hostPath"]["path"] for v in pod["volumes"] if "hostPath" in v}


def on_node(pod: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Return by container, and by where it is mounted, the folder of the node that the kubelet mounts."""
    roots = folders(pod)
    return {
        container["name"]: {
            mount["mountPath"]: "/".join([roots[mount["name"]], *([mount["subPath"]] if "subPath" in mount else [])])
            for mount in container["volumeMounts"]
            if mount["name"] in roots
        }
        for container in [*pod.get("initContainers", []), *pod["containers"]]
    }


def on(scratch: str, results: str | None = None) -> MLPerfRun:
    volumes = {"scratch": scratch, **({"results": results} if results else {})}
    return a100(**{field: {"hostPath": {"path": path}} for field, path in volumes.items()})


@pytest.mark.parametrize("prefixes", list(permutations(PREFIXES)))
def test_the_outermost_of_nested_folders_counts_in_whatever_order_they_are_named(prefixes: tuple[str, ...]) -> None:
    assert outermost("/mnt/nvme/team/a", prefixes) == "/mnt/nvme"
    assert outermost("/mnt/nvme", prefixes) == "/mnt/nvme"
    assert outermost("/mnt/nvmes/a", prefixes) == "/mnt/nvmes"
    assert outermost("/data", prefixes) == "/data/"


@pytest.mark.parametrize("path", ["/mnt", "/", "/mnt/nvme/../etc", "/mnt/nvme/..", "//mnt/nvme", "/mnt/nv", "mnt/nvme"])
def test_what_lies_beside_above_or_climbs_out_lies_under_none(path: str) -> None:
    assert outermost(path, PREFIXES) is None
    assert not any(lies_under(path, prefix) for prefix in PREFIXES)


def test_every_mount_of_every_container_leads_to_the_folder_that_the_run_names() -> None:
    scratch, results = "/mnt/nvme/team/a", "/data/results"
    pod, again = pods(on(scratch, results))
    assert folders(pod) == {"scratch": "/mnt/nvme", "results": "/data"}
    assert folders(again) == {"results": "/data"}
    own = f"{results}/bench/demo/{UID}"
    for name, mounts in {**on_node(pod), **on_node(again)}.items():
        harness = {
            "/scratch": scratch,
            "/work": f"{scratch}/{PRIVATE}/work",
            "/state": f"{scratch}/{PRIVATE}/state",
        }
        assert mounts == {**({} if name == "collect" else harness), "/results": own}, name


def test_results_on_scratch_are_found_again_where_the_status_says() -> None:
    run = on("/mnt/nvme/team/a/")
    told = artifacts(run)
    assert (told.claim, told.path) == (None, f"/mnt/nvme/team/a/{PRIVATE}/results")
    for pod in pods(run):
        assert folders(pod) == {"scratch": "/mnt/nvme"}
        assert {mounts["/results"] for mounts in on_node(pod).values()} == {told.path}


def test_a_folder_that_is_itself_the_outermost_one_is_mounted_whole() -> None:
    pod = pods(on("/data"))[0]
    assert folders(pod) == {"scratch": "/data"}
    [mount] = [m for m in pod["containers"][0]["volumeMounts"] if m["mountPath"] == "/scratch"]
    assert mount == {"name": "scratch", "mountPath": "/scratch"}
    assert on_node(pod)["run"]["/work"] == f"/data/{PRIVATE}/work"


@pytest.mark.parametrize("path", ["/data/./a//b/", "/data/a/b"])
def test_a_subpath_is_plain_and_relative_however_the_path_is_written(path: str) -> None:
    mounts = pods(on(path))[0]["containers"][0]["volumeMounts"]
    paths = {m["mountPath"]: m["subPath"] for m in mounts if m["name"] == "scratch"}
    assert paths["/scratch"] == "a/b"
    assert paths["/state"] == f"a/b/{PRIVATE}/state"


def test_the_outermost_folder_alone_may_be_made_by_the_kubelet_as_a_host_path() -> None:
    for pod in pods(on("/data/a")):
        assert [v["hostPath"] for v in pod["volumes"] if "hostPath" in v] == [
            {"path": "/data", "type": "DirectoryOrCreate"}
        ]


def test_what_is_not_allowed_or_not_any_more_is_not_mounted() -> None:
    told = r"host path /mnt/nvme/a is not allowed \(chart value allowedHostPaths\)"
    for allowed in ((), ("/mnt/other",)):
        with pytest.raises(HostPathError, match=told):
            pods(on("/mnt/nvme/a"), allowed)


def test_claims_devices_and_all_else_stay_as_they_are() -> None:
    run = a100(securityProfile="HarnessParity", results={"claimTemplate": {"size": "1Gi"}})
    pod = pods(run)[0]
    assert confined(pod, ()) == pod
    assert {"name": "device-0", "hostPath": {"path": "/dev/fuse", "type": "CharDevice"}} in pod["volumes"]
