"""The chart's admission policies in force on a real API server, and the accounts that meet them."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import yaml
from kubernetes import config

from integration.chart import CHART, Object, kubectl, render
from mlperf_operator.cluster import BY_KIND, POLICY_BINDINGS

JOB_CONTROLLER = "system:serviceaccount:kube-system:job-controller"
DAEMON_SET_CONTROLLER = "system:serviceaccount:kube-system:daemon-set-controller"
REPLICA_SET_CONTROLLER = "system:serviceaccount:kube-system:replicaset-controller"

IN_FORCE_SECONDS = 30
"""The API server reads its policies anew every second or so."""

_RBAC = "rbac.authorization.k8s.io"


@cache
def _client(kubeconfig: str) -> Any:
    return config.new_client_from_config(kubeconfig)  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Account:
    """Somebody who asks the API server for something."""

    kubeconfig: str
    name: str = ""
    """Empty: the kubeconfig's own user, who is of the group system:masters."""
    group: str = ""

    def ask(self, method: str, path: str, body: object = None, how: str = "application/json") -> tuple[int, str]:
        """Return the API server's status and answer."""
        api = _client(self.kubeconfig)
        headers = {"Content-Type": how, "Accept": "application/json"}
        if self.name:
            headers |= {"Impersonate-User": self.name}
        if self.group:
            headers |= {"Impersonate-Group": self.group}
        api.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        url, data = api.configuration.host + path, None if body is None else json.dumps(body)
        answer = api.rest_client.pool_manager.request(method, url, headers=headers, body=data)
        return answer.status, answer.data.decode()

    def get(self, kind: str, namespace: str, name: str = "", query: str = "") -> Object:
        """Return an object, or the list of a namespace's."""
        status, answer = self.ask("GET", BY_KIND[kind].url(namespace, name or None) + query)
        assert status == 200, answer
        return dict(json.loads(answer))

    def create(self, body: Object, *, dry: bool = True) -> str:
        """Create an object, or only ask whether it could be; return why a policy refused, or nothing."""
        url = BY_KIND[body["kind"]].url(body["metadata"].get("namespace"))
        return _refusal(*self.ask("POST", f"{url}?dryRun=All" if dry else url, body))

    def change(
        self, kind: str, namespace: str, name: str, patch: Object, *, dry: bool = True, how: str = "merge-patch"
    ) -> str:
        """Merge a patch into an object; return why a policy refused, or nothing."""
        url = BY_KIND[kind].url(namespace, name)
        return _refusal(*self.ask("PATCH", f"{url}?dryRun=All" if dry else url, patch, f"application/{how}+json"))

    def delete(self, kind: str, namespace: str, name: str, *, dry: bool = True) -> str:
        """Delete an object, or only ask whether it could be; return why a policy refused, or nothing."""
        options = {"dryRun": ["All"]} if dry else {}
        return _refusal(*self.ask("DELETE", BY_KIND[kind].url(namespace, name), options))


def _refusal(status: int, answer: str) -> str:
    if status < 400:
        return ""
    _, policy, why = json.loads(answer)["message"].partition(" denied request: ")
    assert policy, answer
    return str(why)


@dataclass(frozen=True)
class Wall:
    """The policies in force, and who meets them."""

    kubeconfig: str
    release_namespace: str
    rendered: list[Object]
    """All that the chart makes."""

    @property
    def objects(self) -> list[Object]:
        """The part that is applied."""
        return [o for o in self.rendered if o["kind"] in _APPLIED]

    @property
    def administrator(self) -> Account:
        return Account(self.kubeconfig)

    @property
    def operator(self) -> Account:
        return self.account(f"system:serviceaccount:{self.release_namespace}:mlperf-operator")

    @property
    def user(self) -> Account:
        """Somebody with the role `admin` in every namespace of the test, the operator's too, and nothing beyond."""
        return self.account("alice")

    def account(self, name: str, *namespaces: str) -> Account:
        """Somebody, with the role `admin` in some namespaces."""
        self.apply(*(_admin_of(namespace, name) for namespace in namespaces))
        for namespace in namespaces:
            self.wait_for_rights(name, namespace=namespace, verb="patch", group="batch", resource="jobs")
        return Account(self.kubeconfig, name)

    def wait_for_rights(self, name: str, **asked: str) -> None:
        """Wait until the API server has seen that somebody may do something."""
        spec = {"user": name, "resourceAttributes": asked}
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
        path, deadline = "/apis/authorization.k8s.io/v1/subjectaccessreviews", time.monotonic() + IN_FORCE_SECONDS
        while not json.loads(self.administrator.ask("POST", path, body)[1])["status"]["allowed"]:
            assert time.monotonic() < deadline, f"{name} may not {asked}"
            time.sleep(0.1)

    def children_policy(self) -> str:
        """Return the uid that pods carry whose Job was made under these policies."""
        status, answer = self.administrator.ask("GET", POLICY_BINDINGS.url(None, CHILDREN))
        assert status == 200, answer
        return str(json.loads(answer)["metadata"]["uid"])

    def add_namespace(self, name: str) -> None:
        """Make another namespace of the user's."""
        self.apply(_namespace(name), _admin_of(name, "alice"))

    def apply(self, *bodies: Object) -> None:
        """Apply objects as the administrator."""
        if bodies:
            administer(self.kubeconfig, "apply", "-f", "-", stdin=yaml.safe_dump_all(bodies))


@contextmanager
def in_force(kubeconfig: str, values: Object, release_namespace: str, namespaces: Iterable[str]) -> Iterator[Wall]:
    """Apply the chart's policies and roles, without an operator, and take them away again."""
    wall = Wall(kubeconfig, release_namespace, render(values, namespace=release_namespace))
    everywhere = [release_namespace, *namespaces]
    # The probe's policy last: when it is in force, so are the others.
    ordered = sorted(wall.objects, key=lambda o: o["metadata"]["name"] == CHILDREN)
    administer(kubeconfig, "apply", "--server-side", "--force-conflicts", "-f", str(_CRD))
    administer(kubeconfig, "wait", "--for=condition=Established", "-f", str(_CRD))
    try:
        wall.apply(*map(_namespace, everywhere), *ordered, *(_admin_of(name, "alice") for name in everywhere))
        _wait(wall, refused=True)
        yield wall
    finally:
        own = [o for o in wall.objects if "namespace" not in o["metadata"]]
        administer(kubeconfig, "delete", "--ignore-not-found", "-f", "-", stdin=yaml.safe_dump_all(own))
        _wait(wall, refused=False)
        administer(kubeconfig, "delete", "namespace", "--wait=false", "--ignore-not-found", *everywhere)


_APPLIED = (
    *("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"),
    *("ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"),
)
_CRD = CHART / "crd/mlperf.dev_mlperfruns.yaml"
CHILDREN = "mlperf-operator-children"
"""The policy about what carries a run's labels, and its binding."""


def _wait(wall: Wall, *, refused: bool) -> None:
    """Wait until a request that the policies refuse is refused, or no more."""
    probe = config_map("probe", wall.release_namespace, {"mlperf.dev/run": "probe"})
    deadline = time.monotonic() + IN_FORCE_SECONDS
    while bool(wall.user.create(probe)) != refused:
        assert time.monotonic() < deadline, f"policies are not {'in' if refused else 'out of'} force"
        time.sleep(0.2)


def administer(kubeconfig: str, *arguments: str, stdin: str = "") -> None:
    """Run kubectl as the administrator."""
    done = kubectl(*arguments, kubeconfig=kubeconfig, stdin=stdin)
    assert done.returncode == 0, done.stderr


def _namespace(name: str) -> Object:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def _admin_of(namespace: str, user: str) -> Object:
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": user.replace(":", "-"), "namespace": namespace},
        "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": "admin"},
        "subjects": [{"apiGroup": _RBAC, "kind": "User", "name": user}],
    }


def config_map(name: str, namespace: str, labels: Mapping[str, str]) -> Object:
    """Return a ConfigMap."""
    meta = {"name": name, "namespace": namespace, "labels": dict(labels)}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"a": "b"}}


def fresh(*names: str) -> list[str]:
    """Return names that no other test has."""
    suffix = uuid.uuid4().hex[:8]
    return [f"{name}-{suffix}" for name in names]


def run_of(namespace: str, name: str = "run", **spec: object) -> Object:
    """Return an MLPerfRun of the suite that needs nothing, or of another one."""
    reference = {"suite": "reference-cpu", "system": "CPU_REFERENCE", "benchmarks": [{"name": "digits"}]}
    return {
        "apiVersion": "mlperf.dev/v1alpha1",
        "kind": "MLPerfRun",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {**reference, **spec},
    }


def nvidia_run(namespace: str, name: str = "run", **spec: object) -> Object:
    """Return an MLPerfRun of NVIDIA's suite."""
    nvidia = {"suite": "nvidia-v4.1", "system": "A100_SXM4_40GBx8", "benchmarks": [{"name": "bert"}]}
    return run_of(namespace, name, **{**nvidia, "scratch": {"claimName": "scratch"}, **spec})
