"""What a cluster with GPUs does by itself: DaemonSets, driver pods on hosts, device plugin, scheduler and users."""

from __future__ import annotations

from typing import Any

from mlperf_operator import naming
from mlperf_operator.driver_report import NodeReport, encode
from mlperf_operator.nodes import claims
from unit.nodes.api import SYSTEM, Api, finish
from unit.nodes.builders import report

GPUS = 8
Body = dict[str, Any]


class Nature:
    """Moves everything but the operator on, one step at a time."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.hosts: dict[str, str] = {}
        """The driver that each host has."""
        self.ran: dict[str, tuple[str, str]] = {}
        """Node and driver that each run was started with."""
        self.broken: set[str] = set()
        """Nodes whose driver cannot be installed."""
        self.stuck: set[str] = set()
        """Nodes where driver pods cannot start."""
        self.own_plugin = False
        """Whether hosts with a driver offer their GPUs without us."""
        self.made = 0

    # The DaemonSet controller and the garbage collector

    def sync_daemon_sets(self) -> None:
        """Make a driver pod on each node that a DaemonSet selects, and mark those where it does not any more."""
        sets = {body["metadata"]["name"]: body for body in self.api.all("DaemonSet")}
        for pod in self.driver_pods():
            body = sets.get(pod["owner"])
            node = self.api.objects.get(("Node", "", pod["spec"]["nodeName"]))
            if body is None or node is None or not selects(body, node):
                pod["metadata"]["deletionTimestamp"] = "x"
                self.api.put(pod)
        for name, body in sets.items():
            there = {pod["spec"]["nodeName"] for pod in self.driver_pods() if pod["owner"] == name}
            for node in self.api.all("Node"):
                if selects(body, node) and node["metadata"]["name"] not in there:
                    self._make(name, body, node["metadata"]["name"])

    def driver_pods(self) -> list[Body]:
        """Return our driver pods."""
        return [pod for pod in self.api.all("Pod") if "owner" in pod]

    def _make(self, owner: str, body: Body, node: str) -> None:
        self.made += 1
        meta = {"name": f"{owner}-{self.made}", "namespace": SYSTEM}
        labels = dict(body["spec"]["template"]["metadata"]["labels"])
        status = {"initContainerStatuses": [{"name": "ensure", "state": {"waiting": {"reason": "PodInitializing"}}}]}
        pod = {"kind": "Pod", "metadata": {**meta, "labels": labels}, "owner": owner, "spec": {"nodeName": node}}
        self.api.put({**pod, "status": status})

    # Kubelets, and the driver pods on their hosts

    def step_driver_pods(self) -> None:
        """Move each driver pod on by one step."""
        for pod in self.driver_pods():
            init = pod["status"]["initContainerStatuses"][0]
            if "deletionTimestamp" in pod["metadata"]:
                self.remove(pod)
            elif "waiting" in init["state"]:
                stuck = pod["spec"]["nodeName"] in self.stuck
                init["state"] = {"waiting": {"reason": "ImagePullBackOff"}} if stuck else {"running": {}}
                self.api.put(pod)
            elif "running" in init["state"]:
                self._ensure(pod, init)
            elif init["state"]["terminated"]["exitCode"]:
                init.update(lastState=init["state"], state={"running": {}})
                self.api.put(pod)
            else:
                self._verify(pod)

    def remove(self, pod: Body) -> None:
        """Let a pod end."""
        self.api.objects.pop(("Pod", pod["metadata"]["namespace"], pod["metadata"]["name"]), None)

    def _ensure(self, pod: Body, init: Body) -> None:
        node, version = pod["spec"]["nodeName"], _version(pod)
        said, code = self._found(node), 0
        if version and node in self.broken:
            said, code = report(ready=False, reason="DiskFull", driver=self.hosts.get(node)), 1
        elif version and self.hosts.get(node) != version:
            self._check_idle(node)
            self.hosts[node] = version
            said = self._found(node)
        init["state"] = {"terminated": {"exitCode": code, "message": encode(said)}}
        self.api.put(pod)

    def kill_driver_pods(self, node: str, leaves: str) -> None:
        """Kill the driver pods at work on a node: before they changed it, in between, or just before they reported."""
        for pod in [pod for pod in self.driver_pods() if pod["spec"]["nodeName"] == node]:
            init, version = pod["status"]["initContainerStatuses"][0], _version(pod)
            if "running" not in init["state"]:
                continue
            if version and self.hosts.get(node) != version and node not in self.broken and leaves != "as it was":
                self._check_idle(node)
                self.hosts.pop(node, None)
                if leaves == "changed":
                    self.hosts[node] = version
            init["state"] = {"terminated": {"exitCode": 137}}
            self.api.put(pod)

    def _check_idle(self, node: str) -> None:
        assert not self.gpu_pods(node), f"the driver of {node} is changed under {self.gpu_pods(node)}"

    def _found(self, node: str) -> NodeReport:
        has = self.hosts.get(node)
        return report(driver=has, gpus=GPUS) if has else report(ready=False, reason="DriverNotLoaded", driver=None)

    def _verify(self, pod: Body) -> None:
        said, wanted = self._found(pod["spec"]["nodeName"]), _version(pod)
        if wanted and said.driver != wanted:
            said = said.model_copy(update={"ready": False, "reason": "DriverMismatch"})
        self.api.logs[pod["metadata"]["name"]] = encode(said)
        pod["status"]["containerStatuses"] = [{"name": "verify", "ready": said.ready}]
        self.api.put(pod)

    def sync_device_plugin(self) -> None:
        """Let the GPUs of a node be allocatable while our label says that its driver is loaded."""
        for node in self.api.all("Node"):
            loaded = node["metadata"]["labels"].get(naming.DRIVER_LOADED_LABEL)
            offered = loaded or (self.own_plugin and node["metadata"]["name"] in self.hosts)
            allocatable = {"nvidia.com/gpu": str(GPUS)} if offered else {}
            if node["status"]["allocatable"] != allocatable:
                node["status"]["allocatable"] = allocatable
                self.api.put(node)

    # The scheduler, and pods with GPUs

    def gpu_pods(self, node: str) -> list[str]:
        """Return the pods with GPUs on a node."""
        pods = [pod for pod in self.api.all("Pod") if "owner" not in pod and pod["spec"].get("nodeName") == node]
        return [pod["metadata"]["name"] for pod in pods if pod["spec"].get("containers")]

    def start_job(self, name: str, version: str | None) -> None:
        """Make a run's Job and its pod."""
        run = self.api.objects["MLPerfRun", "bench", name]
        run["status"]["jobName"] = name
        self.api.put(run)
        labels = {naming.RUN_UID_LABEL: run["metadata"]["uid"]}
        containers = [{"resources": {"limits": {"nvidia.com/gpu": str(GPUS)}}}]
        meta = {"name": name, "namespace": "bench", "labels": labels}
        self.api.put({"kind": "Pod", "metadata": meta, "asks": version, "spec": {"containers": containers}})

    def schedule(self) -> None:
        """Bind each pod of a run that waits to a node with its driver and with GPUs that nobody has."""
        for pod in [pod for pod in self.api.all("Pod") if "asks" in pod and "nodeName" not in pod["spec"]]:
            for node in self.api.all("Node"):
                name = node["metadata"]["name"]
                if self._is_free(node) and pod["asks"] in (
                    None,
                    node["metadata"]["labels"].get(naming.DRIVER_READY_LABEL),
                ):
                    pod["spec"]["nodeName"] = name
                    self.api.put(pod)
                    self.ran[pod["metadata"]["name"]] = (name, self.hosts.get(name, ""))
                    break

    def _is_free(self, node: Body) -> bool:
        free = bool(node["status"]["allocatable"]) and not self.gpu_pods(node["metadata"]["name"])
        return free and not node["spec"].get("unschedulable")

    def somebody_trains(self, node: str) -> None:
        """Let somebody's pod with a GPU come to a node, if it can."""
        if self._is_free(self.api.node(node)):
            self.made += 1
            limits = {"resources": {"limits": {"nvidia.com/gpu": "1"}}}
            meta = {"name": f"train-{self.made}", "namespace": "team", "labels": {}}
            self.api.put({"kind": "Pod", "metadata": meta, "spec": {"nodeName": node, "containers": [limits]}})

    def training_ends(self) -> None:
        """Let the pods of others end."""
        for pod in [pod for pod in self.api.all("Pod") if pod["metadata"]["namespace"] == "team"]:
            self.remove(pod)

    def end_runs(self) -> None:
        """Let every run that runs end well, and those that asked for no driver end for want of a GPU."""
        for pod in [pod for pod in self.api.all("Pod") if "asks" in pod]:
            if "nodeName" not in pod["spec"] and pod["asks"] is not None:
                continue
            self.end_run(pod["metadata"]["name"])

    def end_run(self, name: str) -> None:
        """Let a run end, however far it is."""
        finish(self.api, name)
        self.api.objects.pop(("Pod", "bench", name), None)

    def living(self) -> set[str]:
        """Return the uids of the runs that have not finished."""
        runs = self.api.all("MLPerfRun")
        return {run["metadata"]["uid"] for run in runs if not run["status"].get("conditions")}


def _version(pod: Body) -> str:
    version: str = pod["metadata"]["labels"][naming.DRIVER_VERSION_LABEL]
    return version


def selects(daemon_set: Body, node: Body) -> bool:
    """Say whether a DaemonSet's required node affinity selects a node."""
    affinity = daemon_set["spec"]["template"]["spec"]["affinity"]["nodeAffinity"]
    [term] = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    labels = node["metadata"]["labels"]
    for rule in term["matchExpressions"]:
        value = labels.get(rule["key"])
        matches = {
            "In": value in rule.get("values", ()),
            "NotIn": value not in rule.get("values", ()),
            "DoesNotExist": value is None,
        }
        if not matches[rule["operator"]]:
            return False
    return True


def claim_of(node: Body) -> claims.Claim:
    """Return the claim that a node carries."""
    return claims.read(node["metadata"].get("annotations") or {})
