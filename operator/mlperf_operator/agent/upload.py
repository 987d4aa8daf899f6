"""Copying a run's artifacts to a bucket of an S3-compatible store. A copy is whole when manifest.json is there.

Requests are signed over the content's sha256 and carry it (x-amz-checksum-sha256), so that the store refuses what the
network changed; what is sent is held against the manifest's digest as it is read. The manifest goes last.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store

from mlperf_operator.agent.artifacts import MANIFEST, ArtifactsError, Entry, Folder
from mlperf_operator.agent.hidden import Hidden, of_upload
from mlperf_operator.naming import ACCESS_KEY, CA_BUNDLE, SECRET_KEY, SESSION_TOKEN, UPLOAD_SECRET_KEYS

PART_BYTES = 8 * 1024 * 1024
MAX_PARTS = 9_000
"""S3 takes 10,000 parts of an object."""

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 20.0

_RETRY = {
    "max_retries": 5,
    "retry_timeout": timedelta(seconds=30),
    "backoff": {"base": 2, "init_backoff": timedelta(milliseconds=200), "max_backoff": timedelta(seconds=2)},
}
_CLIENT = {"connect_timeout": "10s", "read_timeout": "30s", "timeout": "120s"}
_STATUS = re.compile(r"non-2xx status code: (\d{3})")
_SAID = re.compile(r"<Code>([^<]*)</Code>(?:.*?<Message>([^<]*)</Message>)?", re.DOTALL)

_BUCKET = re.compile(r"[a-z0-9][-a-z0-9.]{1,61}[a-z0-9]")
_HEADER = re.compile(r"[!-~]*")
"""What goes into a header of each request: the library panics at anything else."""

_WHY = re.compile(r'(?:message|error): "([^"]+)"')
_CERTIFICATE = re.compile(r"InvalidCertificate\(\s*(?:Other\(\s*OtherError\(\s*)?(\w+)")


class UploadError(Exception):
    """There is no whole copy; the message says why and what to do."""


class OutOfTimeError(UploadError):
    """The time for the upload is over."""


@dataclass(frozen=True)
class Target:
    """Where the copy goes: `upload` of plan.json."""

    endpoint: str
    bucket: str
    path: str
    prefix: str = ""
    region: str = "us-east-1"

    @classmethod
    def of_plan(cls, upload: Mapping[str, Any]) -> Target:
        """Return the target that a plan names."""
        return cls(**{key: str(upload[key]) for key in ("endpoint", "bucket", "path", "prefix", "region")})

    def key(self, path: str) -> str:
        """Return the object's key of a file of the run's folder."""
        return "/".join(part for part in (self.prefix.strip("/"), self.path.strip("/"), path) if part)

    @property
    def url(self) -> str:
        """Where the copy is, for people and programs: the objects lie below it."""
        return f"{self.endpoint.rstrip('/')}/{self.bucket}/{self.key('')}/"


class Uploader:
    """Sends files of one run's folder to one target."""

    def __init__(self, target: Target, credentials: Mapping[str, str], check: Callable[[], None]) -> None:
        """Prepare for a target.

        Args:
            target: Where the copy goes.
            credentials: By UPLOAD_SECRET_KEYS, the optional ones absent or empty.
            check: Called before each block and while waiting; raises OutOfTimeError at the end of the time.

        Raises:
            UploadError: the target or the credentials are incomplete or cannot be used.
        """
        # A key that was written to a file, and from there to a Secret, often ends with a line end.
        credentials = {key: credentials.get(key, "").strip() for key in UPLOAD_SECRET_KEYS}
        problem = _problem(target, credentials)
        if problem:
            raise UploadError(problem)
        self._target, self._check = target, check
        # A store may answer with what it was asked, headers included.
        self._hidden = of_upload(credentials)
        self._earlier_manifest_gone = False
        try:
            self._store = _store(target, credentials)
        except (BaseError, ValueError) as error:
            raise UploadError(f"{target.url}: {said(error, self._hidden)}") from error

    def send(self, folder: Folder, entry: Entry, *, patient: bool) -> None:
        """Send a file unless the store has it already.

        With patience, what may pass (no connection, a busy store) is tried again until the time is over.

        Raises:
            ArtifactsError: the file is no longer what the entry says.
            UploadError: the store did not take it.
        """
        self._with_patience(lambda: self._send(folder, entry), entry.path, patient=patient)

    def send_all(self, folder: Folder, files: Iterable[Entry], manifest: Entry, *, patient: bool = True) -> None:
        """Send every file and the manifest after them, with patience or without.

        Raises:
            ArtifactsError: a file is no longer what its entry says.
            UploadError: the store did not take one of them.
        """
        for entry in (*files, manifest):
            self.send(folder, entry, patient=patient)

    def _with_patience(self, act: Callable[[], None], path: str, *, patient: bool) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            self._check()
            try:
                return act()
            # A missing bucket and a missing object are Python's own FileNotFoundError.
            except (BaseError, FileNotFoundError) as error:
                text = f"{self._target.url}{path}: {said(error, self._hidden)}"
                if not (patient and may_pass(error)):
                    raise UploadError(text) from error
            self._wait(pause, text)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _wait(self, seconds: float, text: str) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                self._check()
            except OutOfTimeError as error:
                raise OutOfTimeError(f"{error}: {text}") from error
            time.sleep(min(0.2, seconds))

    def _send(self, folder: Folder, entry: Entry) -> None:
        if entry.path != MANIFEST and not self._earlier_manifest_gone:
            # An earlier copy is no longer whole from the first file on that differs.
            if self._found(MANIFEST) is not None:
                obstore.delete(self._store, self._target.key(MANIFEST))
            self._earlier_manifest_gone = True
        if self._found(entry.path) != (entry.size, entry.sha256):
            self._put(folder, entry)
            self._require(entry)

    def _found(self, path: str) -> tuple[int, str] | None:
        """Return size and digest of an object that an earlier try has sent, None where there is none."""
        try:
            return self._look(path)
        except (FileNotFoundError, PermissionDeniedError, UnauthenticatedError):
            # Whoever may only write gets 403 for what is not there; a wrong key is told when something is sent.
            return None

    def _require(self, entry: Entry) -> None:
        """Raise when an object that was sent is not there: the library follows a 303 and takes what is behind it."""
        with contextlib.suppress(PermissionDeniedError):
            # Whoever may only write cannot look.
            if self._look(entry.path) != (entry.size, entry.sha256):
                where = f"{self._target.url}{entry.path}"
                raise UploadError(f"{where}: sent, but the store has not got it; is it the store's own endpoint?")

    def _look(self, path: str) -> tuple[int, str]:
        answer = obstore.get(self._store, self._target.key(path), options={"head": True})
        return int(answer.meta["size"]), str(answer.attributes.get("sha256", ""))

    def _put(self, folder: Folder, entry: Entry) -> None:
        try:
            file = folder.open(entry.path)
        except OSError as error:
            raise ArtifactsError(f"{entry.path} can no longer be read: {error.strerror}") from error
        with file:
            blocks = self._checked(entry, lambda: file.read(PART_BYTES))
            attributes = {"sha256": entry.sha256, "Content-Type": "application/octet-stream"}
            key = self._target.key(entry.path)
            if entry.size <= PART_BYTES:
                obstore.put(self._store, key, b"".join(blocks), attributes=attributes, use_multipart=False)
                return
            # An exception of the blocks ends the multi-part upload, and the store forgets its parts.
            part = max(PART_BYTES, -(-entry.size // MAX_PARTS))
            obstore.put(
                self._store,
                key,
                blocks,
                attributes=attributes,
                use_multipart=True,
                chunk_size=part,
                max_concurrency=1,
            )

    def _checked(self, entry: Entry, read: Callable[[], bytes]) -> Iterator[bytes]:
        digest, size = hashlib.sha256(), 0
        while block := read():
            self._check()
            digest.update(block)
            size += len(block)
            if size > entry.size:
                break
            yield block
        if (size, digest.hexdigest()) != (entry.size, entry.sha256):
            raise ArtifactsError(f"{entry.path} was written to after the manifest")


def _problem(target: Target, credentials: Mapping[str, str]) -> str:
    """Return what no request can be made with; empty where nothing is."""
    absent = [key for key in (ACCESS_KEY, SECRET_KEY) if not credentials[key]]
    if absent:
        return f"the credentials have no {' and no '.join(absent)}"
    for key in (ACCESS_KEY, SECRET_KEY, SESSION_TOKEN):
        if not _HEADER.fullmatch(credentials[key]):
            return f"{key} holds a space, a line end, or what is no ASCII: copy it again"
    if not _is_endpoint(target.endpoint):
        return f"{target.endpoint!r} is no endpoint; possible: http:// or https://, a host, and :port if needed"
    if not _BUCKET.fullmatch(target.bucket):
        return f"{target.bucket!r} is no bucket's name; possible: 3 to 63 of a-z, 0-9, - and ."
    return "" if _HEADER.fullmatch(target.region) else f"{target.region!r} is no region; possible: such as us-east-1"


def _is_endpoint(text: str) -> bool:
    try:
        parts = urlsplit(text)
        # Asking for the port is what finds a wrong one.
        wrong_port = parts.port == 0
    except ValueError:
        return False
    rest = (parts.path.strip("/"), parts.query, parts.fragment, parts.username)
    return parts.scheme in ("http", "https") and bool(parts.hostname) and not wrong_port and not any(rest)


def _store(target: Target, credentials: Mapping[str, str]) -> S3Store:
    client: dict[str, Any] = {**_CLIENT, "allow_http": target.endpoint.startswith("http://")}
    if credentials.get(CA_BUNDLE):
        client["root_certificate"] = credentials[CA_BUNDLE]
    config: dict[str, Any] = {
        "endpoint": target.endpoint.rstrip("/"),
        "region": target.region,
        "access_key_id": credentials[ACCESS_KEY],
        "secret_access_key": credentials[SECRET_KEY],
        # The one way in which every store can be addressed.
        "virtual_hosted_style_request": False,
        "checksum_algorithm": "SHA256",
        # What is said is what is used: no metadata service of a cloud, no profile of a user.
        "skip_signature": False,
    }
    if credentials.get(SESSION_TOKEN):
        config["session_token"] = credentials[SESSION_TOKEN]
    return S3Store(target.bucket, config=config, client_options=client, retry_config=_RETRY)  # type: ignore[arg-type]


def said(error: Exception, hidden: Hidden) -> str:
    """Return what the store or the connection said, in one line without the library's own tale around it."""
    # First of all: what is cut off in the middle would not be found any more.
    text = hidden.within(str(error))
    answer = _SAID.search(text)
    if answer:
        return ": ".join(part.strip() for part in answer.groups() if part)[:400]
    certificate = _CERTIFICATE.search(text)
    if certificate:
        return f"the store's certificate is not trusted ({certificate[1]}); {CA_BUNDLE} may name who signed it"
    short = text.partition("\n")[0].rpartition(" - ")[2].rstrip(": ")
    why = _WHY.findall(text)
    return " ".join(f"{short} ({why[-1]})".split() if why else short.split())[:400] or type(error).__name__


def may_pass(error: Exception) -> bool:
    """Say whether another try may succeed: no answer, or one that asks for patience (RFC 9110: 408, 429, 5xx)."""
    status = _STATUS.search(str(error))
    if status is None:
        return not (isinstance(error, FileNotFoundError) or _CERTIFICATE.search(str(error)))
    return status[1] in ("408", "429") or status[1].startswith("5")
