"""Drivers on a real kubelet: the DaemonSet's pods change a real Debian root by real apt, and the labels follow."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from local_cluster import packages as machine_packages
from local_cluster.errors import RefusalError

from e2e import lab
from e2e.driver_lab import GPU, GPU_IMAGE, GPU_SUITE, GPUS, GpuNode, driver_values, gpu_node, gpu_suite, occupy
from e2e.lab import Run, manifest, processes, send, wait_for
from e2e.suites import OPERATOR_VALUES
from installation import BUILD, NAMESPACE, Cluster, condition, install, launcher, operator_pods
from mlperf_operator import naming
from node import debian_root, repository
from node.node import Node
from node.packages import FIRST, OLD_BRANCH, SECOND, build, everything

pytestmark = pytest.mark.e2e

STANDIN_GPU = Path(__file__).parent / "standin_gpu"
READY_SECONDS = 90.0
FOLLOWS_SECONDS = 10.0
"""How soon the label must follow the truth."""


@pytest.fixture(scope="module")
def server() -> Iterator[repository.Server]:
    """The signed repository of the stand-in packages."""
    try:
        debian_root.refuse()
    except RefusalError as error:
        pytest.skip(str(error))
    with tempfile.TemporaryDirectory() as name, repository.signing_key() as key:
        folder = Path(name)
        repository.index(folder, key, [build(deb, folder) for deb in everything()])
        found = repository.Server(folder, key)
        found.start()
        yield found
        found.stop()


@pytest.fixture(scope="module")
def base() -> Iterator[Path]:
    """A folder with the Debian root as mmdebstrap makes it."""
    archive = debian_root.base_archive()
    with tempfile.TemporaryDirectory(prefix="mlperf-driver-", dir="/var/tmp") as name:
        Path(name).chmod(0o755)
        root = Path(name) / "base"
        debian_root.unpack(archive, root)
        yield root


@pytest.fixture(scope="module")
def gpu_image(images: tuple[str, str]) -> str:
    """The harness's image with stand-ins of nvidia-smi and libcuda."""
    try:
        machine_packages.ensure({"cc": "gcc", "ld": "binutils"})
    except RefusalError as error:
        pytest.skip(str(error))
    context = BUILD / "standin-gpu"
    shutil.rmtree(context, ignore_errors=True)
    shutil.copytree(STANDIN_GPU, context)
    # No C library is used, so none has to be installed to build it.
    argv = ["cc", "-shared", "-fPIC", "-nostdlib", "-ffreestanding", "-o", "libcuda.so.1", "cuda.c"]
    subprocess.run(argv, cwd=context, check=True)
    launcher(
        "build-image",
        *("--file", str(context / "Dockerfile"), "--context", str(context)),
        *("--tag", GPU_IMAGE, "--build-arg", f"BASE_IMAGE={images[1]}"),
    )
    return GPU_IMAGE


class Lab:
    """The operator with driver management over one root, which each test gets fresh."""

    def __init__(self, cluster: Cluster, images: tuple[str, str], base: Path, server: repository.Server) -> None:
        self.cluster = cluster
        self.images = images
        self.server = server
        self.root = base.with_name("root")
        self.base = base

    def install(self, **driver: Any) -> None:
        """Install or upgrade the operator with these values of `driver`."""
        values = {
            "driver": driver_values(self.root, self.server.repository(), **driver),
            "suites": [gpu_suite()],
            "allowedImages": ["localhost/"],
        }
        install(self.cluster, *self.images, values=values)

    def fresh_root(self) -> None:
        if self.root.exists():
            debian_root.remove(self.root)
        debian_root.copy(self.base, self.root)
        debian_root.furnish(self.root)


@pytest.fixture(scope="module")
def managed(
    operator: Cluster, images: tuple[str, str], base: Path, server: repository.Server, gpu_image: str
) -> Iterator[Lab]:
    """The operator with driver management, and everything as the other tests want it at the end."""
    found = Lab(operator, images, base, server)
    found.fresh_root()
    found.install()
    yield found
    install(operator, *images, values=OPERATOR_VALUES)
    if found.root.exists():
        debian_root.remove(found.root)


@pytest.fixture
def node(managed: Lab, tmp_path: Path) -> Iterator[GpuNode]:
    """The node: no driver, eight GPUs advertised, not opted in."""
    managed.server.healthy()
    managed.fresh_root()
    with gpu_node(managed.cluster, Node(managed.root, tmp_path)) as found:
        yield found
    managed.server.healthy()


@pytest.fixture
def space(managed: Lab) -> Iterator[str]:
    """A namespace whose runs may lock memory, as NVIDIA's harness must."""
    with lab.namespace(managed.cluster) as name:
        managed.cluster.ensure_namespace(name, pod_security="privileged")
        yield name


def gpu_run(name: str, version: str = "550", policy: str = "Ensure", **spec: Any) -> dict[str, Any]:
    return manifest(name, suite=GPU_SUITE, driver={"policy": policy, "version": version}, **spec)


def driver_condition(run: Run) -> tuple[str, str, str]:
    return condition(run.get(), "DriverReady")


def test_a_run_gets_its_driver_and_the_proof_stands_in_its_status(node: GpuNode, space: str) -> None:
    node.label(driver_opt_in="install")
    first = Run.apply(node.cluster, space, gpu_run("first"))
    ended = first.finished()
    assert condition(ended, "ResultsValid")[0] == "True", condition(ended, "Succeeded")
    assert condition(ended, "DriverReady")[:2] == ("True", "Verified")
    status = ended["status"]
    assert status["driver"] == {"version": FIRST, "fabricManagerVersion": FIRST, "managedBy": "mlperf-operator"}
    assert status["gpu"] == {"product": "NVIDIA A100-SXM4-40GB", "count": GPUS}
    assert node.labels() == {"opt-in": "install", "wanted": FIRST, "loaded": FIRST, "ready": FIRST}
    assert not node.is_cordoned()
    assert node.host.loaded() == FIRST
    assert node.host.active("nvidia-fabricmanager")
    assert "nvidia" in (node.host.root / "etc/containerd/config.toml").read_text()
    assert node.host.active("containerd")
    before = node.host.fingerprint()
    second = Run.apply(node.cluster, space, gpu_run("second"))
    job = wait_for("the second run's Job", lambda: second.owned("jobs"))[0]
    created = second.get()["metadata"]["creationTimestamp"]
    assert job["metadata"]["creationTimestamp"] <= _later(created, 2)
    assert condition(second.finished(), "ResultsValid")[0] == "True"
    assert node.host.fingerprint() == before


def _later(moment: str, seconds: int) -> str:
    parsed = time.strptime(moment, "%Y-%m-%dT%H:%M:%SZ")
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.mktime(parsed) - time.timezone + seconds))


def test_two_runs_that_want_different_versions_of_one_node_both_end(node: GpuNode, space: str) -> None:
    node.label(driver_opt_in="install")
    one = Run.apply(node.cluster, space, gpu_run("one", FIRST))
    wait_for("the first run's claim", lambda: node.report().get("version") == FIRST)
    other = Run.apply(node.cluster, space, gpu_run("other", OLD_BRANCH))
    wait_for("the conflict", lambda: driver_condition(other)[1] == "NodeDriverConflict")
    assert f"{space}/one" in driver_condition(other)[2]
    assert "NodeDriverConflict" in other.events()
    assert condition(one.finished(), "Succeeded")[0] == "True"
    # The image's nvidia-smi says 550, so the second run's preflight tells the difference and fails fast.
    ended = other.finished()
    assert condition(ended, "DriverReady")[:2] == ("False", "PreflightFailed")
    assert f"the run wants {OLD_BRANCH}" in condition(ended, "DriverReady")[2]
    assert node.host.loaded() == OLD_BRANCH
    assert FIRST not in {version.partition("-")[0] for version in node.host.installed().values()}
    node.wait_ready(OLD_BRANCH)
    assert not node.is_cordoned()


def ready_node(node: GpuNode, space: str, version: str = FIRST) -> None:
    """Make the node ready by a run that is then taken away."""
    node.label(driver_opt_in="install")
    run = Run.apply(node.cluster, space, gpu_run("maker", version))
    node.wait_ready(version, READY_SECONDS)
    run.delete()


def test_the_label_follows_the_truth_both_ways(node: GpuNode, space: str) -> None:
    ready_node(node, space)
    for break_it, mend, reason in (
        ("stop", "start", "FabricManagerFailed"),
        ("hide", "show", "DriverNotLoaded"),
    ):
        _act(node, break_it)
        wait_for(f"the label to go after {break_it}", lambda: not node.labels().get("ready"), FOLLOWS_SECONDS)
        assert node.wait_reason(reason, FOLLOWS_SECONDS)["message"]
        _act(node, mend)
        node.wait_ready(FIRST, FOLLOWS_SECONDS)
    node.advertise(GPUS - 1)
    wait_for("the label to go with a GPU", lambda: not node.labels().get("ready"), FOLLOWS_SECONDS)
    assert f"{GPUS - 1} of {GPUS}" in node.wait_reason("GPUNotAllocatable", FOLLOWS_SECONDS)["message"]
    node.advertise(GPUS)
    node.wait_ready(FIRST, FOLLOWS_SECONDS)


def _act(node: GpuNode, what: str) -> None:
    version = node.host.root / "proc/driver/nvidia/version"
    match what:
        case "start" | "stop":
            node.host.run("systemctl", what, "nvidia-fabricmanager")
        case "hide":
            version.rename(version.with_suffix(".gone"))
        case "show":
            version.with_suffix(".gone").rename(version)


def test_a_repository_that_does_not_answer_is_told_everywhere_and_mended(
    node: GpuNode, space: str, managed: Lab
) -> None:
    managed.server.stop()
    node.label(driver_opt_in="install")
    run = Run.apply(node.cluster, space, gpu_run("gone"))
    report = node.wait_reason("RepositoryUnreachable")
    assert "driver.mirrors" in report["message"]
    wait_for("the run's condition", lambda: driver_condition(run)[:2] == ("False", "RepositoryUnreachable"))
    assert node.name in driver_condition(run)[2]
    assert "RepositoryUnreachable" in run.events()
    assert "RepositoryUnreachable" in node.events()
    assert not node.host.installed()
    wait_for("our cordon to be taken back", lambda: not node.is_cordoned())
    managed.server.start()
    node.wait_ready(FIRST, READY_SECONDS)


def test_a_run_whose_driver_never_comes_ends_with_the_reason_and_leaves_the_node_open(
    node: GpuNode, space: str
) -> None:
    modules = node.host.root / "sys/module/nouveau"
    modules.mkdir(parents=True)
    node.label(driver_opt_in="install")
    run = Run.apply(node.cluster, space, gpu_run("nouveau", startTimeoutSeconds=15))
    ended = run.finished()
    assert condition(ended, "Succeeded")[:2] == ("False", "NouveauLoaded")
    assert "blacklist nouveau" in condition(ended, "DriverReady")[2]
    wait_for("the node to be left", lambda: not node.driver_pods())
    assert not node.is_cordoned()
    assert node.labels() == {"opt-in": "install"}
    assert not node.host.installed()


KILLS = (
    "systemctl stop nvidia-persistenced",
    "preinst nvidia-utils-550-server",
    "preinst nvidia-dkms-550-server",
    "preinst nvidia-driver-550-server",
    "postinst nvidia-utils-550-server",
    "postinst nvidia-dkms-550-server",
    "postinst nvidia-driver-550-server",
    "preinst nvidia-fabricmanager-550",
    "postinst nvidia-fabricmanager-550",
    "modprobe nvidia",
    "systemctl start nvidia-fabricmanager",
)
"""Moments of an upgrade from 535 to 550 at which the driver pod is killed, one after the other."""


def test_an_upgrade_that_is_killed_at_ten_points_ends_well(node: GpuNode, space: str) -> None:
    ready_node(node, space, OLD_BRANCH)
    for moment in KILLS:
        node.host.slow(moment, 20)
    Run.apply(node.cluster, space, gpu_run("killed", FIRST))
    killed: list[str] = []
    deadline = time.monotonic() + 240
    while not node.is_ready(FIRST):
        assert time.monotonic() < deadline, (killed, node.report())
        for moment in [m for m in KILLS if m not in killed and node.host.reached(m)]:
            send(signal.SIGKILL, node.agents())
            node.host.knob_off(moment)
            killed.append(moment)
        time.sleep(0.05)
    assert len(killed) >= 10, killed
    assert node.host.loaded() == FIRST
    assert {state for _, state in node.host.dpkg().values()} == {"installed"}
    assert not node.is_cordoned()


def test_a_killed_operator_and_a_killed_pod_change_nothing_about_the_end(node: GpuNode, space: str) -> None:
    node.label(driver_opt_in="install")
    node.host.slow("postinst nvidia-dkms-550-server", 5)
    run = Run.apply(node.cluster, space, gpu_run("orphan"))
    wait_for("the installation", lambda: node.host.reached("postinst nvidia-dkms-550-server"))
    (pod,) = operator_pods(node.cluster)
    send(signal.SIGKILL, processes(pod, "mlperf-operator"))
    node.wait_ready(FIRST, READY_SECONDS)
    assert condition(run.finished(), "Succeeded")[0] == "True"
    assert not node.is_cordoned()


def test_a_process_that_uses_a_gpu_is_named_and_waited_for(node: GpuNode, space: str) -> None:
    ready_node(node, space)
    user = occupy(node.host.root / "dev/nvidia0")
    try:
        run = Run.apply(node.cluster, space, gpu_run("busy", SECOND))
        report = node.wait_reason("GPUInUse")
        assert str(user.pid) in report["message"]
        assert node.host.loaded() == FIRST
        assert driver_condition(run)[1] == "GPUInUse"
    finally:
        user.kill()
        user.wait()
    node.wait_ready(SECOND, READY_SECONDS)


def gpu_pod(cluster: Cluster, namespace: str, name: str, image: str) -> None:
    container = {
        "name": "main",
        "image": image,
        "command": ["sleep", "600"],
        "resources": {"limits": {GPU: "1"}},
    }
    spec = {"containers": [container], "terminationGracePeriodSeconds": 1}
    cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace}, "spec": spec})
    cluster.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "-n", namespace, "--timeout=60s")


def test_pods_with_gpus_are_waited_for_or_evicted_as_the_administrator_says(
    node: GpuNode, space: str, managed: Lab
) -> None:
    ready_node(node, space)
    gpu_pod(node.cluster, space, "tenant", managed.images[1])
    run = Run.apply(node.cluster, space, gpu_run("patient", SECOND))
    wait_for("the run's reason", lambda: driver_condition(run)[1] == "GPUInUse")
    assert f"{space}/tenant" in driver_condition(run)[2]
    assert "evictGpuPods" in driver_condition(run)[2]
    assert node.is_ready(FIRST)
    managed.install(evictGpuPods=True)
    try:
        node.wait_ready(SECOND, READY_SECONDS)
        assert not [p for p in node.cluster.get("pods", "-n", space)["items"] if p["metadata"]["name"] == "tenant"]
        assert not node.is_cordoned()
    finally:
        managed.install()


def test_a_node_that_somebody_else_takes_over_is_left_alone(node: GpuNode, space: str) -> None:
    ready_node(node, space)
    before = node.host.fingerprint()
    node.set_label({"nvidia.com/gpu.deploy.driver": "true"})
    wait_for("everything of ours to go", lambda: node.labels() == {"opt-in": "install"} and not node.driver_pods())
    assert "gpu.deploy.driver=true" in node.wait_reason("NodeManaged")["message"]
    run = Run.apply(node.cluster, space, gpu_run("late", SECOND))
    wait_for("the run's reason", lambda: driver_condition(run)[1] == "NodeManaged")
    assert not node.driver_pods()
    assert not node.is_cordoned()
    assert node.host.fingerprint() == before
    # As it is gone again, the node is ours to manage again.
    node.set_label({"nvidia.com/gpu.deploy.driver": None})
    node.wait_ready(SECOND, READY_SECONDS)


def test_a_cordon_of_somebody_else_is_never_taken_back(node: GpuNode, space: str) -> None:
    ready_node(node, space)
    node.cluster.kubectl("cordon", node.name)
    run = Run.apply(node.cluster, space, gpu_run("refused", SECOND))
    wait_for("the run's reason", lambda: driver_condition(run)[1] == "NoNodeFits")
    assert "is cordoned" in driver_condition(run)[2]
    assert node.is_cordoned()
    assert node.host.loaded() == FIRST


def test_a_node_to_verify_is_told_about_and_never_changed(node: GpuNode, space: str) -> None:
    ready_node(node, space)
    node.label(driver_opt_in="verify")
    wait_for("the pods to change", lambda: node.labels() == {"opt-in": "verify", "loaded": FIRST, "ready": FIRST})
    before = node.host.fingerprint()
    run = Run.apply(node.cluster, space, gpu_run("looks", "550", "Verify"))
    status = run.finished()["status"]
    assert status["driver"]["fabricManagerVersion"] == FIRST
    assert node.host.fingerprint() == before
    node.host.run("systemctl", "stop", "nvidia-fabricmanager")
    before = node.host.fingerprint()
    wait_for("the label to go", lambda: not node.labels().get("ready"), FOLLOWS_SECONDS)
    ensured = Run.apply(node.cluster, space, gpu_run("ensured", SECOND))
    wait_for("the run's reason", lambda: driver_condition(ensured)[1] == "NoNodeOptedIn")
    assert node.host.fingerprint() == before


def kubectl_as(cluster: Cluster, user: str, *arguments: str, body: dict[str, Any] | None = None) -> str:
    """What the API server answers a user of the namespace; a refusal is an answer."""
    argv = [str(cluster.tools / "kubectl"), f"--as={user}", *arguments]
    text = json.dumps(body) if body is not None else None
    done = subprocess.run(
        argv, env=cluster.environment(), input=text, capture_output=True, text=True, check=False, timeout=60
    )
    return done.stdout + done.stderr


def forged_pod(name: str, node: str) -> dict[str, Any]:
    """A pod that looks like a driver pod that has ended well."""
    labels = {
        naming.COMPONENT_LABEL: naming.DRIVER_AGENT,
        naming.MANAGED_BY_LABEL: naming.MANAGER,
        naming.DRIVER_MODE_LABEL: "Install",
        naming.DRIVER_VERSION_LABEL: FIRST,
    }
    container = {"name": "verify", "image": "localhost/mlperf-reference-harness:dev", "command": ["sleep", "600"]}
    spec = {"nodeName": node, "containers": [container], "hostPID": True}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}


def test_a_namespace_user_cannot_have_anything_installed_without_the_opt_in(node: GpuNode, space: str) -> None:
    cluster, user = node.cluster, f"system:serviceaccount:{space}:user"
    cluster.kubectl("create", "serviceaccount", "user", "-n", space)
    cluster.kubectl(
        "create", "rolebinding", "user", "-n", space, "--clusterrole=admin", f"--serviceaccount={space}:user"
    )
    before = node.host.fingerprint()
    own, wanted = ("-n", space, "apply", "-f", "-"), "mlperf.dev/driver-wanted"
    selectors: tuple[dict[str, str], ...] = (
        {},
        {wanted: FIRST},
        {"mlperf.dev/driver-opt-in": "install"},
        {"kubernetes.io/hostname": node.name},
    )
    for index, selector in enumerate(selectors):
        for policy in ("Ensure", "Auto"):
            body = gpu_run(f"try-{index}-{policy.lower()}", policy=policy, nodeSelector=selector)
            body["metadata"]["labels"] = {wanted: FIRST, "mlperf.dev/driver-opt-in": "install"}
            body["spec"]["tolerations"] = [{"operator": "Exists"}]
            assert "created" in kubectl_as(cluster, user, *own, body=body)
    exact = gpu_run("unknown-version", "999.1.1")
    assert "is not in the administrator's catalogue" in kubectl_as(cluster, user, *own, body=exact)
    assert "created" in kubectl_as(cluster, user, *own, body=forged_pod("forged", node.name))
    for argv in (
        ("label", "node", node.name, "mlperf.dev/driver-opt-in=install"),
        ("annotate", "node", node.name, f"{naming.DRIVER_CLAIM_ANNOTATION}={{}}"),
        ("-n", NAMESPACE, "get", "pods"),
        ("-n", NAMESPACE, "get", "configmaps"),
    ):
        assert "forbidden" in kubectl_as(cluster, user, *argv).lower()
    elsewhere = forged_pod("forged", node.name)
    assert "forbidden" in kubectl_as(cluster, user, "-n", NAMESPACE, "apply", "-f", "-", body=elsewhere).lower()
    asked = Run(cluster, space, "try-0-ensure")
    wait_for("the answer", lambda: driver_condition(asked)[1] == "NoNodeOptedIn")
    time.sleep(5)
    assert node.labels() == {}
    assert not node.driver_pods()
    assert not cluster.get("daemonsets", "-A", "-l", f"{naming.COMPONENT_LABEL}={naming.DRIVER_AGENT}")["items"]
    assert not node.is_cordoned()
    assert node.host.fingerprint() == before
