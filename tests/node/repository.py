"""A signed apt repository of the stand-in packages on 127.0.0.1, which a test can break as real ones do."""

from __future__ import annotations

import email.utils
import hashlib
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from mlperf_operator.catalogue import Repository

OWNER = "Stand-in repository of mlperf-operator's tests <tests@example.invalid>"


@contextmanager
def signing_key() -> Iterator[SigningKey]:
    """Make a key for one session."""
    # Short, because gpg's agent has its socket there.
    home = Path(tempfile.mkdtemp(prefix="gpg-"))
    key = SigningKey(home)
    try:
        key.gpg("--quick-generate-key", OWNER, "ed25519", "sign", "never")
        yield key
    finally:
        shutil.rmtree(home)


class SigningKey:
    """An OpenPGP key without a passphrase."""

    def __init__(self, home: Path) -> None:
        self.environment = {**os.environ, "GNUPGHOME": str(home)}

    def gpg(self, *arguments: str) -> str:
        """Run gpg and return what it printed. The agent that it starts ends with it, so that none outlives us."""
        argv = ["gpg", "--batch", "--no-tty", "--pinentry-mode=loopback", "--passphrase=", *arguments]
        try:
            return subprocess.run(argv, env=self.environment, check=True, capture_output=True, text=True).stdout
        finally:
            subprocess.run(["gpgconf", "--kill", "gpg-agent"], env=self.environment, check=True)

    def public(self) -> str:
        """Return the public key, armored."""
        return self.gpg("--armor", "--export")

    def sign(self, file: Path, target: Path) -> None:
        """Write a file again with a signature around it."""
        target.unlink(missing_ok=True)
        self.gpg("--clearsign", "--output", str(target), str(file))


def index(folder: Path, key: SigningKey, debs: Iterable[Path]) -> None:
    """Write the index of a flat repository: Packages, Release, and InRelease with the signature."""
    stanzas = []
    for deb in debs:
        control = subprocess.run(["dpkg-deb", "--field", str(deb)], check=True, capture_output=True, text=True).stdout
        facts = {"Filename": f"./{deb.name}", "Size": deb.stat().st_size, "SHA256": _sha256(deb)}
        stanzas.append(control + "".join(f"{name}: {value}\n" for name, value in facts.items()))
    packages = folder / "Packages"
    packages.write_text("\n".join(stanzas))
    release = folder / "Release"
    release.write_text(
        f"Origin: stand-in for tests\nDate: {email.utils.formatdate(usegmt=True).replace('GMT', 'UTC')}\n"
        f"SHA256:\n {_sha256(packages)} {packages.stat().st_size} Packages\n"
    )
    key.sign(release, folder / "InRelease")


def _sha256(file: Path) -> str:
    with file.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


class Server:
    """Serves a repository's folder over http, on a port that stays its own while it is switched off."""

    def __init__(self, folder: Path, key: SigningKey) -> None:
        self.folder = folder
        self.key = key
        self.missing: set[str] = set()
        """Parts of file names that it answers with 404."""
        self.held: dict[str, threading.Event] = {}
        """Parts of file names that it answers only once the event is set."""
        self.requested: list[str] = []
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    def repository(self) -> Repository:
        """Return it as a catalogue names it."""
        return Repository(url=self.url, key=self.key.public())

    def start(self) -> None:
        """Begin to serve."""
        server = ThreadingHTTPServer(
            ("127.0.0.1", self.port), partial(_Handler, owner=self, directory=str(self.folder))
        )
        server.daemon_threads = True
        self._server, self.port = server, server.server_port
        self._thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Refuse connections from now on."""
        if self._server is None or self._thread is None:
            return
        for event in self.held.values():
            event.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._server = self._thread = None

    def healthy(self) -> None:
        """Serve everything again."""
        self.missing.clear()
        for event in self.held.values():
            event.set()
        self.held.clear()
        self.requested.clear()
        if self._server is None:
            self.start()


class _Handler(SimpleHTTPRequestHandler):
    def __init__(self, *arguments: Any, owner: Server, **named: Any) -> None:
        self._owner = owner
        super().__init__(*arguments, **named)

    def do_GET(self) -> None:
        """Answer as the server is set."""
        self._owner.requested.append(self.path)
        for part, event in list(self._owner.held.items()):
            if part in self.path:
                event.wait()
        if any(part in self.path for part in self._owner.missing):
            self.send_error(404)
            return
        try:
            super().do_GET()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # apt was killed while it read.

    def log_message(self, *_: object) -> None:
        """Say nothing: `requested` has it."""
