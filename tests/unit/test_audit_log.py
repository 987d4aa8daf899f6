"""How the end-to-end tests read the API server's audit log, and hold roles against it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from e2e.audit import Permission, Request, permissions, requests

USER = "system:serviceaccount:home:operator"
BEGIN = datetime(2026, 1, 2, tzinfo=UTC)


def entry(
    verb: str,
    resource: str,
    *,
    decision: str = "allow",
    user: str = USER,
    at: str = "2026-01-02T03:04:05.6Z",
    **more: Any,
) -> str:
    body = {
        "verb": verb,
        "user": {"username": user},
        "objectRef": {"resource": resource, **more},
        "annotations": {"authorization.k8s.io/decision": decision},
        "requestReceivedTimestamp": at,
    }
    return json.dumps(body) + "\n"


def test_the_log_tells_what_one_user_did_since_a_moment_also_where_it_was_rotated(tmp_path: Path) -> None:
    early = entry("delete", "secrets", at="2026-01-01T23:59:59Z")
    (tmp_path / "audit-2026-01-02T03-00-00.log").write_text(early + entry("get", "pods", subresource="log", name="a"))
    nonresource = json.dumps(
        {"verb": "get", "user": {"username": USER}, "requestReceivedTimestamp": "2026-01-02T04:00:00Z"}
    )
    other = entry("list", "secrets", user="somebody", name=USER)
    (tmp_path / "audit.log").write_text(
        other + nonresource + "\n" + entry("list", "jobs", apiGroup="batch", decision="forbid")
    )
    assert requests(tmp_path, USER, BEGIN) == {
        Request("get", "", "pods/log", "", "a", True),
        Request("list", "batch", "jobs", "", "", False),
    }


ROLE = {
    "kind": "Role",
    "metadata": {"name": "lease", "namespace": "home"},
    "rules": [
        {"apiGroups": ["c.io"], "resources": ["leases"], "verbs": ["get", "update"], "resourceNames": ["operator"]}
    ],
}
BINDING = {
    "kind": "RoleBinding",
    "metadata": {"name": "lease"},
    "roleRef": {"kind": "Role", "name": "lease"},
    "subjects": [{"kind": "ServiceAccount", "name": "operator"}],
}


def test_only_roles_that_are_bound_to_the_account_count() -> None:
    assert {found.text for found in permissions([ROLE, BINDING], "operator")} == {"get leases", "update leases"}
    assert list(permissions([ROLE, BINDING], "somebody")) == []
    assert list(permissions([ROLE], "operator")) == []


@pytest.mark.parametrize(
    ("request_", "covered"),
    [
        (Request("get", "c.io", "leases", "home", "operator", True), True),
        (Request("get", "c.io", "leases", "home", "another", True), False),
        (Request("get", "c.io", "leases", "away", "operator", True), False),
        (Request("delete", "c.io", "leases", "home", "operator", True), False),
        (Request("get", "c.io", "leases/status", "home", "operator", True), False),
    ],
)
def test_a_role_covers_its_verbs_on_its_objects_in_its_namespace(request_: Request, covered: bool) -> None:
    assert any(found.covers(request_) for found in permissions([ROLE, BINDING], "operator")) is covered


def test_a_cluster_role_covers_every_namespace() -> None:
    assert Permission("r", "list", "", "pods").covers(Request("list", "", "pods", "anywhere", "", True))
