"""The copy of a run's artifacts, by collect's own code, on a real S3 server."""

from __future__ import annotations

import hashlib
import json
import random
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pytest
from local_cluster.errors import ClusterError, RefusalError
from local_cluster.ports import free_port
from typer.testing import CliRunner

import s3_server
from integration.broken_line import line
from mlperf_operator.agent import collect
from mlperf_operator.agent.artifacts import MANIFEST, ArtifactsError, Entry, Folder
from mlperf_operator.agent.publish import Publisher
from mlperf_operator.agent.upload import PART_BYTES, Target, Uploader, UploadError
from mlperf_operator.cli import app

pytestmark = pytest.mark.integration

KEYS = {"AWS_ACCESS_KEY_ID": "a-key", "AWS_SECRET_ACCESS_KEY": "a-secret-that-only-this-test-knows"}
RUN = {"namespace": "bench", "name": "a100", "uid": "11111111-2222"}
PLACE = "lab/bench/a100/11111111-2222"
BIG_BYTES = 200 * 1000 * 1000


@pytest.fixture(scope="session")
def program() -> Path:
    try:
        return s3_server.program()
    except (ClusterError, RefusalError) as error:
        pytest.skip(f"the S3 server cannot be built: {error}")


@pytest.fixture(scope="module")
def server(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3_server.S3Server]:
    found = start(program, tmp_path_factory.mktemp("s3"), free_port())
    yield found
    found.stop()


@pytest.fixture
def bucket(server: s3_server.S3Server, request: pytest.FixtureRequest) -> Path:
    """The folder that is a bucket of this test's own."""
    name = hashlib.sha256(request.node.name.encode()).hexdigest()[:20]
    folder = server.buckets / name
    folder.mkdir()
    return folder


def start(program: Path, folder: Path, port: int) -> s3_server.S3Server:
    found = s3_server.S3Server(program, folder, port, KEYS["AWS_ACCESS_KEY_ID"], KEYS["AWS_SECRET_ACCESS_KEY"])
    found.start()
    return found


def results(folder: Path, big: int = 0) -> Path:
    """Make a run's folder as the harness and the wrapper leave it."""
    logs = folder / "logs" / "bert" / "Offline" / "PerformanceOnly" / "DGX-A100_A100-SXM4-40GBx8_TRT"
    for name, content in {
        logs / "mlperf_log_summary.txt": b"Result is : VALID\n",
        logs / "odd name +%~ \xc3\xa9#[1].txt".encode().decode(): b"odd",
        folder / "stages" / "run.log": b"$ make run_harness\n" * 1000,
        folder / "empty": b"",
    }.items():
        name.parent.mkdir(parents=True, exist_ok=True)
        name.write_bytes(content)
    if big:
        (logs / "mlperf_log_accuracy.json").write_bytes(random.Random(4).randbytes(big))  # noqa: S311 - content, no secret
    return folder


def plan(folder: Path, endpoint: str, bucket: str) -> dict[str, Any]:
    upload = {"endpoint": endpoint, "bucket": bucket, "prefix": "lab/", "region": "us-east-1"}
    return {
        "run": RUN,
        "paths": {"results": str(folder)},
        "expected": [],
        "upload": {**upload, "path": "bench/a100/11111111-2222"},
    }


def published(
    folder: Path, endpoint: str, bucket: str, seconds: float = 60, keys: dict[str, str] | None = None
) -> dict[str, str]:
    publisher = Publisher(plan(folder, endpoint, bucket), keys or KEYS, seconds=seconds)
    publisher.measured(str(folder / "logs"))
    return publisher.close()


def differing(folder: Path, copy: Path) -> list[str]:
    """Return the files that are not the same byte for byte in both."""
    names = {file.relative_to(root) for root in (folder, copy) for file in root.rglob("*") if file.is_file()}
    return [
        str(name) for name in sorted(names) if not _bytes(folder / name) or _bytes(folder / name) != _bytes(copy / name)
    ]


def _bytes(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""


def test_a_run_is_copied_byte_for_byte_with_a_large_file_in_parts(
    server: s3_server.S3Server, bucket: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    folder = results(tmp_path / "run", BIG_BYTES)
    (tmp_path / "plan.json").write_text(json.dumps(plan(folder, server.endpoint, bucket.name)))
    monkeypatch.setenv("MLPERF_PLAN", str(tmp_path / "plan.json"))
    monkeypatch.setenv("MLPERF_TERMINATION_LOG", str(tmp_path / "termination-log"))
    for key, value in KEYS.items():
        monkeypatch.setenv(key, value)
    assert collect.main(["--once"]) == 0
    lines = [json.loads(said) for said in capsys.readouterr().out.splitlines()]
    digest = hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
    url = f"{server.endpoint}/{bucket.name}/{PLACE}/"
    assert lines[-1]["artifacts"] == {"manifestSha256": digest, "uploadedTo": url}
    assert "artifacts" not in lines[-2]
    assert differing(folder, bucket / PLACE) == []
    # A later command finds that everything is there.
    kept = {file: file.stat().st_mtime_ns for file in (bucket / PLACE).rglob("*") if file.is_file()}
    options = ["--endpoint", server.endpoint, "--bucket", bucket.name, "--prefix", "lab"]
    done = CliRunner().invoke(app, ["artifacts", "upload", str(folder), *options])
    assert (done.exit_code, done.output) == (0, f"{url}\n")
    changed = [file.name for file, changed in kept.items() if file.stat().st_mtime_ns != changed]
    assert changed == [MANIFEST]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({**KEYS, "AWS_SECRET_ACCESS_KEY": "wrong"}, "SignatureDoesNotMatch"),
        ({**KEYS, "AWS_ACCESS_KEY_ID": "nobody"}, "No user exists"),
        ({"AWS_ACCESS_KEY_ID": "a-key"}, "the credentials have no AWS_SECRET_ACCESS_KEY"),
    ],
)
def test_wrong_credentials_cost_the_copy_only(
    server: s3_server.S3Server, bucket: Path, tmp_path: Path, keys: dict[str, str], said: str
) -> None:
    started = time.monotonic()
    found = published(results(tmp_path), server.endpoint, bucket.name, keys=keys)
    assert said in found["uploadError"]
    assert "uploadedTo" not in found
    assert found["manifestSha256"] == hashlib.sha256((tmp_path / MANIFEST).read_bytes()).hexdigest()
    assert time.monotonic() - started < 10
    assert KEYS["AWS_SECRET_ACCESS_KEY"] not in json.dumps(found)


def test_a_missing_bucket_is_said(server: s3_server.S3Server, tmp_path: Path) -> None:
    found = published(results(tmp_path), server.endpoint, "there-is-none")
    assert "NoSuchBucket" in found["uploadError"]


def test_a_server_that_comes_back_gets_all_of_it(program: Path, tmp_path: Path) -> None:
    port, folder = free_port(), results(tmp_path / "run")
    store = tmp_path / "store"
    (store / "buckets" / "late").mkdir(parents=True)
    started: list[s3_server.S3Server] = []
    timer = threading.Timer(4, lambda: started.append(start(program, store, port)))
    timer.start()
    try:
        found = published(folder, f"http://127.0.0.1:{port}", "late")
    finally:
        timer.join()
        for late in started:
            late.stop()
    assert found["uploadedTo"] == f"http://127.0.0.1:{port}/late/{PLACE}/"
    assert differing(folder, store / "buckets" / "late" / PLACE) == []


def test_a_server_that_stays_away_ends_in_time(tmp_path: Path) -> None:
    started = time.monotonic()
    found = published(results(tmp_path), f"http://127.0.0.1:{free_port()}", "bucket", seconds=4)
    assert time.monotonic() - started < 15
    assert "not complete after 4 s" in found["uploadError"]
    assert "manifestSha256" in found


def test_a_server_that_never_answers_ends_in_time(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        found = published(results(tmp_path), endpoint, "bucket", seconds=2)
    assert time.monotonic() - started < 12
    assert found["uploadError"] == "not complete after 2 s"


def test_a_process_ends_although_a_request_is_under_way(tmp_path: Path) -> None:
    script = (
        "import json, sys; from mlperf_operator.agent import publish; publish.PATIENCE_SECONDS = 0.1\n"
        "print(json.dumps(publish.Publisher(json.loads(sys.argv[1]), json.loads(sys.argv[2]), seconds=1).close()))"
    )
    with socket.create_server(("127.0.0.1", 0)) as silent:
        content = plan(results(tmp_path), f"http://127.0.0.1:{silent.getsockname()[1]}", "bucket")
        argv = [sys.executable, "-c", script, json.dumps(content), json.dumps(KEYS)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=20)
    assert (done.returncode, json.loads(done.stdout)["uploadError"]) == (0, "not complete after 1 s")


def test_connections_that_are_cut_are_made_again(server: s3_server.S3Server, bucket: Path, tmp_path: Path) -> None:
    folder = results(tmp_path, 5 * PART_BYTES + 1)
    with line(server.endpoint, cuts=4, after=3_000_000) as broken:
        found = published(folder, broken.endpoint, bucket.name)
        assert broken.connections > 4
    assert "uploadedTo" in found, found
    assert differing(folder, bucket / PLACE) == []


def uploader(server: s3_server.S3Server, bucket: Path, check: Any = lambda: None) -> Uploader:
    target = Target(endpoint=server.endpoint, bucket=bucket.name, path="bench/a100/11111111-2222", prefix="lab")
    return Uploader(target, KEYS, check)


@pytest.mark.parametrize("size", [100, 3 * PART_BYTES])
def test_a_file_that_changed_since_the_manifest_is_not_sent(
    server: s3_server.S3Server, bucket: Path, tmp_path: Path, size: int
) -> None:
    folder = Folder(tmp_path)
    (tmp_path / "log").write_bytes(b"a" * size)
    entry = folder.read("log")
    assert isinstance(entry, Entry)
    for content in (b"b" * size, b"a" * (size - 1), b"a" * (size + 1)):
        (tmp_path / "log").write_bytes(content)
        with pytest.raises(ArtifactsError, match="log was written to after the manifest"):
            uploader(server, bucket).send_all(folder, [entry], entry)
    (tmp_path / "log").unlink()
    with pytest.raises(ArtifactsError, match="log can no longer be read: No such file"):
        uploader(server, bucket).send_all(folder, [entry], entry)
    assert not (bucket / "lab").exists()


def test_a_file_that_changes_while_it_is_sent_leaves_nothing_behind(
    server: s3_server.S3Server, bucket: Path, tmp_path: Path
) -> None:
    folder, calls = Folder(tmp_path), []
    (tmp_path / "log").write_bytes(b"a" * (4 * PART_BYTES))
    entry = folder.read("log")
    assert isinstance(entry, Entry)

    def interfere() -> None:
        calls.append(1)
        if len(calls) == 3:
            with (tmp_path / "log").open("r+b") as file:
                file.seek(3 * PART_BYTES)
                file.write(b"b")

    with pytest.raises(ArtifactsError, match="written to"):
        uploader(server, bucket, interfere).send(folder, entry, patient=True)
    assert len(calls) > 3
    assert [file for file in bucket.rglob("*") if file.is_file()] == []


def test_an_earlier_copy_is_not_whole_while_it_is_replaced(
    server: s3_server.S3Server, bucket: Path, tmp_path: Path
) -> None:
    folder = results(tmp_path)
    assert "uploadedTo" in published(folder, server.endpoint, bucket.name)
    (folder / "stages" / "run.log").write_text("another attempt")
    entry = Folder(folder).read("stages/run.log")
    assert isinstance(entry, Entry)
    uploader(server, bucket).send(Folder(folder), entry, patient=False)
    assert not (bucket / PLACE / MANIFEST).exists()
    assert "uploadedTo" in published(folder, server.endpoint, bucket.name)
    assert differing(folder, bucket / PLACE) == []


def test_a_private_authority_is_trusted_when_the_secret_names_it(
    server: s3_server.S3Server, bucket: Path, tmp_path: Path
) -> None:
    authority, key, certificate = (tmp_path / name for name in ("ca.pem", "key.pem", "certificate.pem"))
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    argv: list[str | Path] = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    own: list[str | Path] = [
        "-addext",
        "basicConstraints=critical,CA:TRUE",
        "-keyout",
        tmp_path / "ca-key.pem",
        "-out",
        authority,
    ]
    subprocess.run([*argv, *own], check=True, capture_output=True)
    signed: list[str | Path] = [
        "-CA",
        authority,
        "-CAkey",
        tmp_path / "ca-key.pem",
        "-addext",
        "basicConstraints=critical,CA:FALSE",
    ]
    subprocess.run([*argv, *signed, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    folder = results(tmp_path / "run")
    with line(server.endpoint, tls=context) as secure:
        refused = published(folder, secure.endpoint, bucket.name, seconds=3)
        trusted = {**KEYS, "S3_CA_BUNDLE": authority.read_text()}
        found = published(folder, secure.endpoint, bucket.name, keys=trusted)
    assert "the store's certificate is not trusted (UnknownIssuer)" in refused["uploadError"]
    assert found["uploadedTo"].startswith("https://")
    assert differing(folder, bucket / PLACE) == []


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirection_is_an_error(server: s3_server.S3Server, bucket: Path, tmp_path: Path, status: int) -> None:
    class Elsewhere(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.send_response(status)
            self.send_header("Location", f"{server.endpoint}{self.path}")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer  # noqa: N815 - the names of http.server

        def log_message(self, *_: object) -> None:
            pass

    entry = Folder(results(tmp_path)).read("empty")
    assert isinstance(entry, Entry)
    with HTTPServer(("127.0.0.1", 0), Elsewhere) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        target = Target(endpoint=f"http://127.0.0.1:{other.server_port}", bucket=bucket.name, path="x")
        with pytest.raises(UploadError):
            Uploader(target, KEYS, lambda: None).send(Folder(tmp_path), entry, patient=False)
        other.shutdown()
    # What followed it came without a signature, which is for the first host, and was turned away.
    assert [file for file in bucket.rglob("*") if file.is_file()] == []


def test_what_a_store_repeats_of_a_request_holds_no_credential(tmp_path: Path, capfd: Any) -> None:
    keys = {
        "AWS_ACCESS_KEY_ID": "PLANTED/ACCESS+KEY",
        "AWS_SECRET_ACCESS_KEY": "planted/secret+key=",
        "AWS_SESSION_TOKEN": "planted/session+token==" * 20,
    }
    asked: list[str] = []

    class Echo(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked.append(str(self.headers))
            told = " ".join([*self.headers.values(), *keys.values(), *map(quote_plus, keys.values())])
            body = f"<Error><Code>{keys['AWS_ACCESS_KEY_ID']}</Code><Message>{told}</Message></Error>".encode()
            self.send_response(404 if self.command == "HEAD" else 400)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD = do_PUT = answer  # noqa: N815 - the names of http.server

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Echo) as store:
        threading.Thread(target=store.serve_forever, daemon=True).start()
        found = published(results(tmp_path), f"http://127.0.0.1:{store.server_port}", "bucket", keys=keys)
        store.shutdown()
    assert any(keys["AWS_SESSION_TOKEN"] in headers and keys["AWS_ACCESS_KEY_ID"] in headers for headers in asked)
    assert "(AWS_ACCESS_KEY_ID)" in found["uploadError"]
    everything = json.dumps(found) + "".join(capfd.readouterr())
    everything += "".join(file.read_text() for file in tmp_path.rglob("*") if file.is_file())
    assert "planted" not in everything.lower()


def test_a_page_that_a_write_is_led_to_is_no_copy(tmp_path: Path) -> None:
    class Page(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(303 if self.command == "PUT" else 404 if self.command == "HEAD" else 200)
            for name, value in (("Location", "/login"), ("ETag", '"page"'), ("Content-Length", "0")):
                self.send_header(name, value)
            self.end_headers()

        do_GET = do_HEAD = do_PUT = answer  # noqa: N815 - the names of http.server

        def log_message(self, *_: object) -> None:
            pass

    entry = Folder(results(tmp_path)).read("empty")
    assert isinstance(entry, Entry)
    with HTTPServer(("127.0.0.1", 0), Page) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        target = Target(endpoint=f"http://127.0.0.1:{other.server_port}", bucket="bucket", path="x")
        with pytest.raises(UploadError, match="empty: "):
            Uploader(target, KEYS, lambda: None).send(Folder(tmp_path), entry, patient=False)
        other.shutdown()
