"""Certificates, made by the real openssl and used in a real TLS handshake."""

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest
from local_cluster import certs
from local_cluster.addresses import place
from local_cluster.errors import ClusterError

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl program")


def _plan() -> list[certs.Certificate]:
    return certs.plan("node-1", place(0))


def _by_name(name: str) -> certs.Certificate:
    return next(item for item in _plan() if item.name == name)


@pytest.mark.parametrize(
    ("name", "subject"),
    [
        ("kubelet", "/O=system:nodes/CN=system:node:node-1"),
        ("admin", "/O=system:masters/CN=kubernetes-admin"),
        ("scheduler", "/CN=system:kube-scheduler"),
        ("controller-manager", "/CN=system:kube-controller-manager"),
        ("proxy", "/CN=system:kube-proxy"),
    ],
)
def test_subjects_are_the_names_that_kubernetes_knows(name: str, subject: str) -> None:
    assert _by_name(name).subject == subject


def test_the_api_server_is_valid_for_the_addresses_at_which_pods_and_users_reach_it() -> None:
    sans = set(_by_name("apiserver").sans)
    assert {"IP:10.96.0.1", "IP:10.99.0.1", "IP:127.0.0.1", "DNS:kubernetes.default.svc"} <= sans


def test_a_further_nodes_api_server_is_valid_where_the_node_reaches_it() -> None:
    [server] = [item for item in certs.plan("node-1", place(1)) if item.name == "apiserver"]
    assert {"IP:10.98.4.254", "IP:10.98.6.1", "IP:127.0.0.1"} <= set(server.sans)
    assert len(_by_name("apiserver").sans) == len(set(_by_name("apiserver").sans))


def test_the_stores_clients_have_an_authority_of_their_own() -> None:
    assert {item.name for item in _plan() if item.issuer == "etcd-ca"} == {"etcd", "apiserver-etcd-client"}


def test_a_certificate_without_addresses_is_no_servers() -> None:
    assert "serverAuth" not in _by_name("admin").extensions
    assert "serverAuth" in _by_name("apiserver").extensions


def _handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> None:
    """Shake hands in memory; raises as a real connection would."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client_end = client.wrap_bio(to_client, to_server, server_hostname=name)
    server_end = server.wrap_bio(to_server, to_client, server_side=True)
    ends = [client_end, server_end]
    while ends:
        for end in list(ends):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            ends.remove(end)


def _contexts(folder: Path, client_name: str, client_ca: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(folder / f"{client_ca}.crt"))
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_cert_chain(folder / "apiserver.crt", folder / "apiserver.key")
    client = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    client.load_cert_chain(folder / f"{client_name}.crt", folder / f"{client_name}.key")
    return server, client


@needs_openssl
def test_both_sides_accept_each_other_under_strict_rules(tmp_path: Path) -> None:
    certs.ensure(tmp_path, _plan())
    for name in ("localhost", "127.0.0.1", "10.96.0.1", "kubernetes.default.svc"):
        _handshake(*_contexts(tmp_path, "admin", "ca"), name)
    with pytest.raises(ssl.SSLCertVerificationError, match="not valid for"):
        _handshake(*_contexts(tmp_path, "admin", "ca"), "elsewhere.example")
    with pytest.raises(ssl.SSLCertVerificationError):
        _handshake(*_contexts(tmp_path, "admin", "etcd-ca"), "localhost")


@needs_openssl
def test_what_is_there_stays_and_what_is_missing_comes_back(tmp_path: Path) -> None:
    certs.ensure(tmp_path, _plan())
    authority = (tmp_path / "ca.crt").read_bytes()
    (tmp_path / "admin.crt").unlink()
    certs.ensure(tmp_path, _plan())
    assert (tmp_path / "ca.crt").read_bytes() == authority
    verify = ["openssl", "verify", "-CAfile", str(tmp_path / "ca.crt"), str(tmp_path / "admin.crt")]
    assert subprocess.run(verify, capture_output=True, check=False).returncode == 0
    assert {oct(file.stat().st_mode & 0o077) for file in tmp_path.glob("*.key")} == {"0o0"}


@needs_openssl
def test_a_failure_says_what_openssl_said(tmp_path: Path) -> None:
    certs.ensure(tmp_path, [])
    with pytest.raises(ClusterError, match=r"(?s)openssl x509 failed: .*none\.crt"):
        certs.ensure(tmp_path, [certs.Certificate("x", "none", "x")])
