"""What `collect` does with a run's files: digests as they come, the manifest at the end, and the copy if one is asked.

All of it happens in threads of the lowest priority, with an end in time: a benchmark runs beside them, and the report
must come out whatever becomes of this.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mlperf_operator.agent.artifacts import MANIFEST, ArtifactsError, Entry, Folder, write_manifest
from mlperf_operator.agent.hidden import of_upload
from mlperf_operator.agent.upload import OutOfTimeError, Target, Uploader, UploadError

CLOSE_SECONDS = 240
"""Time for manifest and upload after the report, within the pod's grace of 300 s (resources/job.py)."""

PATIENCE_SECONDS = 5
"""How much longer than that a request under way is waited for."""

LOWEST_PRIORITY = 19
MAX_ERROR = 512
"""Longest `uploadError`, in characters."""


class Publisher:
    """Digests, manifest and copy of one run's files."""

    def __init__(
        self,
        plan: Mapping[str, Any],
        environment: Mapping[str, str] = os.environ,
        *,
        seconds: float = CLOSE_SECONDS,
    ) -> None:
        self._run: dict[str, str] = {key: str(plan["run"].get(key, "")) for key in ("namespace", "name", "uid")}
        self._folder = Folder(Path(plan["paths"]["results"]), self._check)
        self._target = Target.of_plan(plan["upload"]) if plan.get("upload") else None
        self._environment, self._seconds = environment, seconds
        self._hidden = of_upload(environment)
        self._until = float("inf")
        self._uploader: Uploader | None = None
        self._waiting: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._worker: threading.Thread | None = None
        self._files: list[Entry] = []
        self._manifest: Entry | None = None
        self._found: dict[str, str] = {}
        """What `close` returns, as far as it has come."""

    def measured(self, log_dir: str) -> None:
        """Take note of a result whose files are complete: they are digested, and sent where a copy is asked for."""
        self._waiting.put(os.path.relpath(log_dir, self._folder.root))
        if self._worker is None:
            self._worker = self._start(self._work)

    def close(self) -> dict[str, str]:
        """Write the manifest and complete the copy, and return manifestSha256, uploadedTo, uploadError as they are.

        It ends in time whatever happens, and never raises.
        """
        self._until = time.monotonic() + self._seconds
        # Beside a file that is still being sent, which may take as long as there is.
        manifest = self._start(self._write_manifest)
        manifest.join(self._left())
        self._waiting.put(None)
        worker = self._worker or self._start(self._work)
        worker.join(self._left())
        if manifest.is_alive() or worker.is_alive():
            self._say(f"not complete after {self._seconds:g} s")
            self._not_uploaded(f"not complete after {self._seconds:g} s")
        return dict(self._found)

    def _start(self, work: Callable[[], None]) -> threading.Thread:
        # A daemon: the process ends when the report is out, not when a volume or a store answers.
        thread = threading.Thread(target=self._guarded, args=(work,), name="artifacts", daemon=True)
        thread.start()
        return thread

    def _left(self) -> float:
        return max(self._until - time.monotonic(), 0) + PATIENCE_SECONDS

    def _guarded(self, work: Callable[[], None]) -> None:
        # Linux has a priority for each thread, and those that it starts inherit it.
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST_PRIORITY)
        try:
            work()
        # Whatever it is: said here, and the report is out already. A panic of the upload's library is no Exception.
        except BaseException as error:  # noqa: BLE001
            text = str(error) if isinstance(error, OutOfTimeError) else f"{type(error).__name__}: {error}"
            self._say(text)
            self._not_uploaded(text)

    def _check(self) -> None:
        if time.monotonic() > self._until:
            raise OutOfTimeError(f"not complete after {self._seconds:g} s")

    def _work(self) -> None:
        while (below := self._waiting.get()) is not None:
            self._send_early(below)
        if self._target is not None and self._manifest is not None:
            self._send_rest(self._files, self._manifest, self._target)

    def _send_early(self, below: str) -> None:
        """Digest a result's files and send them if that works at once; `close` does what is left."""
        try:
            files, _ = self._folder.entries(below)
            for entry in files if self._target else ():
                self._sender().send(self._folder, entry, patient=False)
        except (ArtifactsError, UploadError) as error:
            if time.monotonic() > self._until:
                return
            self._say(f"{below}: {error}; to be tried again at the end")

    def _write_manifest(self) -> None:
        try:
            sha256, files, skipped = write_manifest(self._folder, self._run)
        except OSError as error:
            self._say(f"{MANIFEST} cannot be written: {error.strerror}")
            self._not_uploaded(f"{MANIFEST} cannot be written: {error.strerror}")
            return
        self._found["manifestSha256"] = sha256
        self._say(f"{MANIFEST}: {len(files)} files, {sum(f.size for f in files)} bytes, sha256 {sha256}")
        for item in skipped[:20]:
            self._say(f"{item.path} is not part of the artifacts: {item.reason}")
        self._files = files
        self._manifest = Entry(MANIFEST, (self._folder.root / MANIFEST).stat().st_size, sha256)

    def _send_rest(self, files: list[Entry], manifest: Entry, target: Target) -> None:
        try:
            self._sender().send_all(self._folder, files, manifest)
        except (ArtifactsError, UploadError) as error:
            self._say(f"the copy at {target.url} is not whole: {error}")
            self._not_uploaded(str(error))
            return
        self._found["uploadedTo"] = target.url
        self._say(f"copied to {target.url}")

    def _sender(self) -> Uploader:
        if self._target is None:
            raise UploadError("the run asks for no upload")
        if self._uploader is None:
            self._uploader = Uploader(self._target, self._environment, self._check)
        return self._uploader

    def _not_uploaded(self, text: str) -> None:
        if self._target is not None and "uploadedTo" not in self._found:
            self._found["uploadError"] = " ".join(self._hidden.within(text).split())[:MAX_ERROR]

    def _say(self, text: str) -> None:
        print(f"artifacts: {self._hidden.within(text)}", file=sys.stderr, flush=True)
