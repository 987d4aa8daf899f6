"""Secrets stay where they are: those of two runs with an upload are looked for in everything that a run leaves.

Left out are etcd, which holds the Secrets, and the container runtime's own state, which has the environment of a
container for as long as there is one: both are root's on the node.
"""

from __future__ import annotations

import base64
import json
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from local_cluster.errors import ClusterError, RefusalError
from local_cluster.layout import DEFAULT_FULL, layout_for
from local_cluster.network import NODE_IP

import s3_server
from e2e import lab
from e2e.lab import Run, manifest
from e2e.suites import UPLOAD_ENDPOINT, UPLOAD_PORT
from installation import NAMESPACE, RELEASE, Cluster, condition

pytestmark = pytest.mark.e2e

KEY = "planted-access-key"
PLANTED = {name: f"planted-{uuid.uuid4().hex}" for name in ("store", "wrong", "registry", "beside")}
BUCKET = "e2e-secrets"


def forms(secret: str) -> set[bytes]:
    """A secret as it is, and how it looks within something in base64, wherever in it it begins."""
    found = {secret.encode()}
    for offset, foreign in enumerate((0, 2, 3)):
        # The first and the last characters depend on what stands around it.
        found.add(base64.b64encode(b"x" * offset + secret.encode())[foreign:-4])
    return found


PATTERN = re.compile(b"|".join(re.escape(form) for secret in PLANTED.values() for form in sorted(forms(secret))))


def test_a_secret_is_found_in_whatever_form_it_leaks() -> None:
    for secret in PLANTED.values():
        for before in ("", "u", "us", "user:"):
            assert PATTERN.search(base64.b64encode(f"{before}{secret} and more".encode()))
        assert PATTERN.search(json.dumps({"env": secret}).encode())


def secrets() -> list[dict[str, object]]:
    """What somebody who measures has in a namespace."""
    login = base64.b64encode(f"user:{PLANTED['registry']}".encode()).decode()
    registry = {"auths": {"registry.example": {"auth": login, "password": PLANTED["registry"], "username": "user"}}}
    data: dict[str, dict[str, str]] = {
        "store": {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": PLANTED["store"]},
        "wrong": {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": PLANTED["wrong"]},
        "registry": {".dockerconfigjson": json.dumps(registry)},
        "beside": {"password": PLANTED["beside"]},
    }
    kinds = {"registry": "kubernetes.io/dockerconfigjson"}
    return [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name},
            "type": kinds.get(name, "Opaque"),
            "stringData": values,
        }
        for name, values in data.items()
    ]


@dataclass(frozen=True)
class Left:
    """What two runs left: one whose artifacts were copied, and one whose key the store does not know."""

    copied: Run
    refused: Run
    store: Path

    def texts(self) -> Iterator[tuple[str, bytes]]:
        """Yield everything that can be read of them, by where it is."""
        cluster, namespace = self.copied.cluster, self.copied.namespace
        listed = cluster.kubectl("api-resources", "--namespaced", "--verbs=list", "-o", "name").split()
        kinds = ",".join(sorted(set(listed) - {"secrets"}))
        yield "objects", cluster.kubectl("get", kinds, "-n", namespace, "-o", "yaml", "--show-managed-fields").encode()
        for run in (self.copied, self.refused):
            yield "describe", cluster.kubectl("describe", "mlperfrun", run.name, "-n", namespace).encode()
            for pod in run.pods():
                name = pod["metadata"]["name"]
                yield "logs", cluster.kubectl("logs", name, "-n", namespace, "--all-containers").encode()
        yield "operator", cluster.kubectl("logs", "-n", NAMESPACE, f"deployment/{RELEASE}", "--all-pods").encode()
        layout = layout_for(DEFAULT_FULL)
        for place, folder in {
            "volumes": layout.volumes,
            "pod logs": layout.state / "pod-logs",
            "components": layout.logs,
            "copies": self.store,
        }.items():
            for file in sorted(folder.rglob("*")):
                if file.is_file() and not file.is_symlink():
                    yield f"{place}: {file}", file.read_bytes()


def apply(cluster: Cluster, namespace: str, name: str, secret: str) -> Run:
    """Apply a run that copies its artifacts with the keys of a Secret."""
    store = {"endpoint": UPLOAD_ENDPOINT, "bucket": BUCKET, "credentialsSecret": {"name": secret}}
    body = manifest(
        name,
        results={"claimTemplate": {"size": "1Gi"}},
        upload={"s3": store},
        imagePullSecrets=[{"name": "registry"}],
    )
    return Run.apply(cluster, namespace, body)


@pytest.fixture(scope="module")
def left(operator: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Left]:
    """The two runs, once they have ended."""
    try:
        program = s3_server.program()
    except (ClusterError, RefusalError) as error:
        pytest.skip(f"the S3 server cannot be built: {error}")
    [node] = operator.get("nodes")["items"]
    if NODE_IP not in [address["address"] for address in node["status"]["addresses"]]:
        pytest.skip(f"the store listens on {NODE_IP}, the first local cluster's node; take the other clusters down")
    folder = tmp_path_factory.mktemp("store")
    server = s3_server.S3Server(program, folder, UPLOAD_PORT, KEY, PLANTED["store"], address=NODE_IP)
    (server.buckets / BUCKET).mkdir()
    server.start()
    try:
        with lab.namespace(operator) as namespace:
            items = {"apiVersion": "v1", "kind": "List", "items": secrets()}
            operator.kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(items))
            copied, refused = (
                apply(operator, namespace, *names) for names in (("copied", "store"), ("refused", "wrong"))
            )
            for run in (copied, refused):
                run.finished()
            yield Left(copied, refused, server.buckets)
    finally:
        server.stop()


def test_with_the_right_key_the_copy_is_whole_and_with_another_it_is_said_to_be_refused(left: Left) -> None:
    copied, refused = left.copied.get(), left.refused.get()
    for run in (copied, refused):
        assert condition(run, "Succeeded")[0] == "True"
    place = f"{BUCKET}/{left.copied.namespace}/copied/{copied['metadata']['uid']}/"
    assert copied["status"]["artifacts"]["uploadedTo"] == f"{UPLOAD_ENDPOINT}/{place}"
    assert (left.store / place / "manifest.json").exists()
    assert "SignatureDoesNotMatch" in refused["status"]["artifacts"]["uploadError"]


def test_no_secret_is_anywhere_but_in_its_secret(left: Left) -> None:
    found: dict[str, str] = {}
    seen: set[str] = set()
    for where, text in left.texts():
        place = where.partition(":")[0]
        if left.copied.namespace.encode() in text or left.copied.namespace in where:
            seen.add(place)
        if match := PATTERN.search(text):
            found[where] = text[max(0, match.start() - 80) : match.start()].decode(errors="replace")
    assert found == {}
    # Where nothing of these runs is, nothing was looked at.
    commands, files = {"objects", "describe", "logs", "operator"}, {"volumes", "pod logs", "components", "copies"}
    assert seen == commands | files
