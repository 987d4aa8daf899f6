"""The API server's audit log of these tests, and the roles of the chart that it is held against."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import audit_log
from audit_log import Entry


@dataclass(frozen=True)
class Request:
    """What somebody did, once for all times that it was done."""

    verb: str
    group: str
    resource: str
    """With its subresource, as in a role: pods/log."""
    namespace: str
    name: str
    allowed: bool
    """By the authorizer. Who may create may still be refused, such as in a namespace that is being deleted."""

    @property
    def text(self) -> str:
        """What a person calls it."""
        where = f"{self.namespace}/{self.name}".strip("/") or "all"
        return f"{self.verb} {self.resource}{f'.{self.group}' if self.group else ''} ({where})"


def requests(logs: Path, user: str, since: datetime) -> set[Request]:
    """Return what a user asked of the API server from a moment on, by the audit log and those it was rotated into."""
    found = audit_log.entries(logs, since, f'"{user}"')
    return {_request(entry) for entry in found if entry["user"]["username"] == user and "objectRef" in entry}


def _request(entry: Entry) -> Request:
    at = entry["objectRef"]
    allowed = entry.get("annotations", {}).get("authorization.k8s.io/decision") == "allow"
    place = (at.get("namespace", ""), at.get("name", ""))
    return Request(entry["verb"], at.get("apiGroup", ""), audit_log.resource(entry), *place, allowed)


@dataclass(frozen=True)
class Permission:
    """One verb on one resource, of one role."""

    role: str
    verb: str
    group: str
    resource: str
    namespace: str = ""
    """The one that it is for; empty for all."""
    names: tuple[str, ...] = ()
    """The objects that it is for; empty for all."""

    @property
    def text(self) -> str:
        """What an exception is told by."""
        return f"{self.verb} {self.resource}"

    def covers(self, request: Request) -> bool:
        """Say whether it is enough for a request."""
        return (
            (self.verb, self.group, self.resource) == (request.verb, request.group, request.resource)
            and self.namespace in ("", request.namespace)
            and (not self.names or request.name in self.names)
        )


def permissions(objects: Iterable[dict[str, Any]], account: str) -> Iterator[Permission]:
    """Yield what the roles give that are bound to an account of the chart, one verb and resource at a time."""
    bodies = list(objects)
    bound = {
        (body["roleRef"]["kind"], body["roleRef"]["name"])
        for body in bodies
        if body["kind"] in ("ClusterRoleBinding", "RoleBinding")
        and any((s["kind"], s["name"]) == ("ServiceAccount", account) for s in body["subjects"])
    }
    for body in bodies:
        if (body["kind"], body["metadata"]["name"]) not in bound:
            continue
        for rule in body["rules"]:
            for group in rule["apiGroups"]:
                for resource in rule["resources"]:
                    for verb in rule["verbs"]:
                        yield Permission(
                            body["metadata"]["name"],
                            verb,
                            group,
                            resource,
                            body["metadata"].get("namespace", "") if body["kind"] == "Role" else "",
                            tuple(rule.get("resourceNames", ())),
                        )
