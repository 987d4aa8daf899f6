"""The driver pod's main container: says whether the node still matches, within seconds and without disturbing a run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from mlperf_operator.agent.driver import judge, record, report
from mlperf_operator.agent.driver.facts import Facts, SmiGpu
from mlperf_operator.agent.driver.host import Host
from mlperf_operator.agent.driver.look import look_for
from mlperf_operator.catalogue import Target
from mlperf_operator.driver_report import REMEDIES, NodeReport, Reason, encode

LOOK_SECONDS = 2.0
IDLE_SECONDS = 300.0
"""How often nvidia-smi is asked while nothing computes and everything matches."""
AGAIN_SECONDS = 10.0
"""How often while something does not match: a fabric needs some time after its manager's start."""
LEFT_SECONDS = 120.0
"""How long a power limit must stand with nothing computing, to be one that a run left: a harness sets its own a while
before its first CUDA context."""
STALE_SECONDS = 90.0
"""How old the latest look may be. Without persistence daemon nvidia-smi takes long; a hanging one takes longer."""
_PROGRAMS = ("/usr/bin/nvidia-smi", "/usr/bin/nv-fabricmanager")

Fingerprint = tuple[Facts, tuple[tuple[int, int] | None, ...]]


class Verifier:
    """Looks at the host, one step after the other."""

    def __init__(self, host: Host, target: Target, *, proc: Path = Path("/proc")) -> None:
        """Take the host and what it shall have. Nothing is looked at yet."""
        self._host = host
        self._target = target
        self._proc = proc
        self._full: Facts | None = None
        self._asked_at = 0.0
        self._seen: Fingerprint | None = None
        self._managed_by: str | None = None
        self._limited_since: float | None = None
        self.report: NodeReport | None = None
        """The latest report; None before the first step."""
        self._looked_at = time.monotonic()

    def step(self, now: float) -> NodeReport:
        """Look at what is cheap, ask nvidia-smi where that is due, and return the report.

        Args:
            now: seconds of a clock that only goes forward.
        """
        facts = look_for(self._host, self._target, smi=False, proc=self._proc)
        seen = self._fingerprint(facts)
        if facts.computing:
            self._limited_since = None
        if self._full is None or seen != self._seen or self._due(facts, now):
            self._full, self._seen, self._asked_at = look_for(self._host, self._target, proc=self._proc), seen, now
            self._restore_power_limits(now)
            self._managed_by = record.managed_by(self._host, facts)
        full = self._full
        facts = replace(facts, smi=full.smi, product=full.product, links_down=full.links_down)
        error = report.joined(judge.findings(facts, self._target))
        self.report = report.build(facts, self._target, error, changed=False, managed_by=self._managed_by)
        self._looked_at = time.monotonic()
        return self.report

    def current(self) -> NodeReport | None:
        """Return the latest report, as not ready where it is old: a step that hangs proves nothing any more."""
        age = time.monotonic() - self._looked_at
        if self.report is None or age <= STALE_SECONDS:
            return self.report
        reason = Reason.SMI_FAILED
        text = f"no look at the node has ended for {age:.0f} s: a program there hangs. Next: {REMEDIES[reason]}"
        return self.report.model_copy(update={"ready": False, "reason": reason.value, "message": text})

    def _fingerprint(self, facts: Facts) -> Fingerprint:
        # Who uses a GPU changes all the time, and a service that fails goes on writing its log.
        still = replace(facts, users=(), computing=False, fabric_manager=replace(facts.fabric_manager, detail=""))
        return still, tuple(_stamp(self._host.path(name)) for name in _PROGRAMS)

    def _due(self, facts: Facts, now: float) -> bool:
        if facts.computing:
            return False
        matches = self.report is not None and self.report.ready and self._limited_since is None
        return now - self._asked_at >= (IDLE_SECONDS if matches else AGAIN_SECONDS)

    def _restore_power_limits(self, now: float) -> None:
        """Put back what a killed run left: MaxQ caps the GPUs and takes that back at its end only."""
        full = self._full
        if full is None or full.smi is None or full.computing or self._target.mode == "Verify":
            return
        limited = [gpu for gpu in full.smi.gpus if _is_limited(gpu)]
        since, self._limited_since = self._limited_since, None
        is_left = self.report is None or (since is not None and now - since >= LEFT_SECONDS)
        if limited and not is_left:
            self._limited_since = now if since is None else since
        for gpu in limited if is_left else ():
            self._restore(gpu)

    def _restore(self, gpu: SmiGpu) -> None:
        usual = f"{gpu.default_power_limit:g}"
        self._host.say(f"GPU {gpu.index} is limited to {gpu.power_limit:g} W: back to its {usual} W")
        done = self._host.run(["nvidia-smi", "-i", str(gpu.index), "-pl", usual])
        if not done.ok:
            self._host.say(f"that failed: {done.tail()}")


def _is_limited(gpu: SmiGpu) -> bool:
    told = gpu.power_limit is not None and gpu.default_power_limit is not None
    return told and gpu.power_limit != gpu.default_power_limit


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def answer(path: str, latest: NodeReport | None) -> tuple[HTTPStatus, str]:
    """Return what a GET of a path is answered: /ready is OK only while everything matches."""
    if path.partition("?")[0] != "/ready":
        return HTTPStatus.NOT_FOUND, "/ready is all there is\n"
    if latest is None:
        return HTTPStatus.SERVICE_UNAVAILABLE, "nothing was looked at yet\n"
    return HTTPStatus.OK if latest.ready else HTTPStatus.SERVICE_UNAVAILABLE, encode(latest) + "\n"


@contextmanager
def serving(verifier: Verifier, port: int) -> Iterator[int]:
    """Answer on the node's 127.0.0.1 and yield the port.

    Raises:
        OSError: the port is taken.
    """

    class Handler(BaseHTTPRequestHandler):
        """Answers the kubelet's probe."""

        timeout = 5.0

        def do_GET(self) -> None:
            status, text = answer(self.path, verifier.current())
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
            """Say nothing: the container's log has the reports and nothing else."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

    with Server(("127.0.0.1", port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def run(
    verifier: Verifier,
    stop: threading.Event,
    *,
    clock: Callable[[], float] = time.monotonic,
    say: Callable[[str], None] = lambda line: print(line, flush=True),
) -> None:
    """Step every LOOK_SECONDS until told to stop, and say each report that differs from the one before."""
    said = ""
    while not stop.is_set():
        line = encode(verifier.step(clock()))
        if line != said:
            say(line)
            said = line
        stop.wait(LOOK_SECONDS)
