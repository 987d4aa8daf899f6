"""Keys and certificates of one cluster, made by the openssl program."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from local_cluster.addresses import Place
from local_cluster.errors import ClusterError

# A cluster for development is thrown away long before this; nothing rotates its certificates.
DAYS = "3650"


@dataclass(frozen=True)
class Certificate:
    """One certificate to issue. `issuer` names a certificate authority of the same folder."""

    name: str
    issuer: str
    common_name: str
    organization: str = ""
    sans: tuple[str, ...] = ()

    @property
    def subject(self) -> str:
        """The subject in openssl's notation."""
        organization = f"/O={self.organization}" if self.organization else ""
        return f"{organization}/CN={self.common_name}"

    @property
    def extensions(self) -> str:
        """The X.509 extensions in openssl's notation: a server's when it has addresses, always a client's."""
        usage = "serverAuth, clientAuth" if self.sans else "clientAuth"
        lines = ["basicConstraints = critical, CA:FALSE", "keyUsage = critical, digitalSignature"]
        lines += [f"extendedKeyUsage = {usage}", "subjectKeyIdentifier = hash", "authorityKeyIdentifier = keyid"]
        if self.sans:
            lines.append(f"subjectAltName = {', '.join(self.sans)}")
        return "\n".join(lines) + "\n"


def plan(node_name: str, place: Place) -> list[Certificate]:
    """Return every certificate of a cluster; the subjects' names are those that Kubernetes' own roles are bound to."""
    loopback = ("DNS:localhost", "IP:127.0.0.1")
    in_cluster = tuple(f"DNS:kubernetes{suffix}" for suffix in ("", ".default", ".default.svc"))
    api_names = (
        *in_cluster,
        "DNS:kubernetes.default.svc.cluster.local",
        *loopback,
        # The first cluster's API server has the node's address.
        *(f"IP:{address}" for address in dict.fromkeys((place.node_ip, place.api_ip, place.service_ip))),
    )
    return [
        Certificate("etcd", "etcd-ca", "etcd", sans=loopback),
        Certificate("apiserver-etcd-client", "etcd-ca", "kube-apiserver"),
        Certificate("apiserver", "ca", "kube-apiserver", sans=api_names),
        Certificate("apiserver-kubelet-client", "ca", "kube-apiserver-kubelet-client", "system:masters"),
        Certificate("controller-manager", "ca", "system:kube-controller-manager", sans=loopback),
        Certificate("scheduler", "ca", "system:kube-scheduler", sans=loopback),
        Certificate("proxy", "ca", "system:kube-proxy"),
        Certificate("kubelet", "ca", f"system:node:{node_name}", "system:nodes"),
        Certificate("kubelet-serving", "ca", node_name, sans=(f"DNS:{node_name}", f"IP:{place.node_ip}")),
        Certificate("admin", "ca", "kubernetes-admin", "system:masters"),
    ]


def ensure(folder: Path, certificates: list[Certificate]) -> None:
    """Create what is missing in `folder`: two authorities, the certificates and the key of service account tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    for authority in ("ca", "etcd-ca"):
        if not (folder / f"{authority}.crt").exists():
            _authority(folder, authority)
    for certificate in certificates:
        if not (folder / f"{certificate.name}.crt").exists():
            _issue(folder, certificate)
    if not (folder / "sa.pub").exists():
        _openssl(folder, "genpkey", *_KEY, "-out", "sa.key")
        _openssl(folder, "pkey", "-in", "sa.key", "-pubout", "-out", "sa.pub")


_KEY = ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")


def _authority(folder: Path, name: str) -> None:
    _openssl(folder, "genpkey", *_KEY, "-out", f"{name}.key")
    values = ("basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign", "subjectKeyIdentifier=hash")
    extensions = [word for value in values for word in ("-addext", value)]
    new = ("-new", "-x509", "-sha256", "-days", DAYS, "-subj", f"/CN=mlperf-local-cluster-{name}", *extensions)
    _openssl(folder, "req", *new, "-key", f"{name}.key", "-out", f"{name}.crt")


def _issue(folder: Path, certificate: Certificate) -> None:
    name, issuer = certificate.name, certificate.issuer
    _openssl(folder, "genpkey", *_KEY, "-out", f"{name}.key")
    request = _openssl(folder, "req", "-new", "-key", f"{name}.key", "-subj", certificate.subject)
    (folder / f"{name}.ext").write_text(certificate.extensions)
    signer = ("-CA", f"{issuer}.crt", "-CAkey", f"{issuer}.key", "-CAcreateserial")
    # Under its own name only when it is whole: an `up` that was killed here issues it again.
    out = ("-sha256", "-days", DAYS, "-extfile", f"{name}.ext", "-out", f"{name}.partial")
    _openssl(folder, "x509", "-req", *signer, *out, stdin=request)
    (folder / f"{name}.partial").rename(folder / f"{name}.crt")
    (folder / f"{name}.ext").unlink()


def _openssl(folder: Path, *arguments: str, stdin: bytes = b"") -> bytes:
    # The machine's own openssl.cnf must not add extensions.
    env = {**os.environ, "OPENSSL_CONF": str(_configuration(folder))}
    answer = subprocess.run(
        ["openssl", *arguments], cwd=folder, input=stdin, capture_output=True, env=env, umask=0o077, check=False
    )
    if answer.returncode != 0:
        raise ClusterError(f"openssl {arguments[0]} failed: {answer.stderr.decode(errors='replace').strip()}")
    return answer.stdout


def _configuration(folder: Path) -> Path:
    file = folder / "openssl.cnf"
    if not file.exists():
        file.write_text("[req]\ndistinguished_name = subject\n[subject]\n")
    return file
