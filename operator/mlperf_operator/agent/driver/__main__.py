"""Entry point of the driver pod: `python3 -m mlperf_operator.agent.driver ensure|verify`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from pydantic import ValidationError

from mlperf_operator.agent.driver import ensure, record, report, verify
from mlperf_operator.agent.driver.host import Host, open_log
from mlperf_operator.catalogue import Target
from mlperf_operator.driver_report import NodeReport, Reason, encode

TARGET = "MLPERF_DRIVER_TARGET"
ROOT = "MLPERF_HOST_ROOT"
TERMINATION = "MLPERF_TERMINATION_LOG"
PORT = "MLPERF_VERIFY_PORT"

MISUSED = 2


class UsageError(Exception):
    """The environment says nothing that can be acted on."""


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Do what the first argument says and return the exit code: 0 done, 1 not ready, 2 misused."""
    parser = argparse.ArgumentParser(prog="mlperf_operator.agent.driver", description=__doc__)
    parser.add_argument("job", choices=("ensure", "verify"), help="make the host match, or watch that it does")
    job = parser.parse_args(argv).job
    try:
        target, root = _target(environ), _root(environ)
        return _ensure(target, root, environ) if job == "ensure" else _verify(target, root, _port(environ))
    except UsageError as error:
        print(f"mlperf_operator.agent.driver {job}: {error}", file=sys.stderr)
        return MISUSED


def _target(environ: Mapping[str, str]) -> Target:
    text = environ.get(TARGET, "")
    if not text:
        raise UsageError(f"{TARGET} is not set: it is the JSON of what the node shall have")
    try:
        return Target.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(step) for step in first["loc"])
        raise UsageError(f"{TARGET} is not what it should be: {place + ': ' if place else ''}{first['msg']}") from error


def _root(environ: Mapping[str, str]) -> Path:
    root = Path(environ.get(ROOT) or "/host")
    if not root.is_absolute() or not root.is_dir():
        raise UsageError(f"{ROOT} is {root}, which is not the absolute path of a folder")
    return root


def _port(environ: Mapping[str, str]) -> int:
    text = environ.get(PORT) or "10399"
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise UsageError(f"{PORT} is {text!r}, which is not the number of a port")
    return int(text)


def _ensure(target: Target, root: Path, environ: Mapping[str, str]) -> int:
    place = Path(environ.get(TERMINATION) or "/dev/termination-log")
    try:
        done = ensure.ensure(_host(target, root), target)
    except Exception as error:
        # A defect of ours. The traceback follows; without a report nobody would be told more than an exit code.
        text = (
            f"the driver pod's program failed: {type(error).__name__}: {error}. Next: report this, with the pod's log"
        )
        report.write(NodeReport(ready=False, reason=Reason.INSTALL_FAILED.value, message=report.cut(text)), place)
        raise
    print(encode(done), flush=True)
    report.write(done, place)
    # In mode Verify whatever it finds is an answer, and the main container goes on from there.
    return 0 if done.ready or target.mode == "Verify" else 1


def _host(target: Target, root: Path) -> Host:
    """Return the host with its log, which mode Verify, changing nothing, does not write."""
    return Host(root) if target.mode == "Verify" else open_log(Host(root), record.LOG)


def _verify(target: Target, root: Path, port: int) -> int:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    # Its questions, every 2 s, would fill the host's log.
    verifier = verify.Verifier(Host(root), target)
    with ExitStack() as stack:
        try:
            stack.enter_context(verify.serving(verifier, port))
        except OSError as error:
            raise UsageError(f"127.0.0.1:{port} cannot be listened on: {error.strerror}") from error
        verify.run(verifier, stop)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
