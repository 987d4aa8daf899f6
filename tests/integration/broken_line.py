"""A line to a server that can be cut, and can speak TLS: a small proxy of TCP connections."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit


class Line:
    """Passes connections on; the first `cuts` of them only as far as `after` bytes from the client."""

    def __init__(self, target: str, *, cuts: int = 0, after: int = 0, tls: ssl.SSLContext | None = None) -> None:
        split = urlsplit(target)
        self._target = (split.hostname or "", split.port or 80)
        self._cuts, self._after, self._tls = cuts, after, tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.connections = 0
        self.endpoint = f"{'https' if tls else 'http'}://127.0.0.1:{self._listener.getsockname()[1]}"

    def serve(self) -> None:
        """Take connections until the listener is closed."""
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._carry, args=(client, self.connections <= self._cuts), daemon=True).start()

    def _carry(self, client: socket.socket, cut: bool) -> None:
        try:
            inner = self._tls.wrap_socket(client, server_side=True) if self._tls else client
            server = socket.create_connection(self._target)
        except OSError:
            client.close()
            return
        threading.Thread(target=_pump, args=(server, inner, None), daemon=True).start()
        _pump(inner, server, self._after if cut else None)

    def close(self) -> None:
        """Take no more connections."""
        # Shut down before it is closed: a thread that waits in accept would hold it.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def _pump(source: socket.socket, target: socket.socket, limit: int | None) -> None:
    passed = 0
    try:
        while data := source.recv(65536):
            passed += len(data)
            if limit is not None and passed > limit:
                break
            target.sendall(data)
    except OSError:
        pass
    for end in (source, target):
        end.close()


@contextmanager
def line(target: str, *, cuts: int = 0, after: int = 0, tls: ssl.SSLContext | None = None) -> Iterator[Line]:
    """A line that is there for the time of a block."""
    proxy = Line(target, cuts=cuts, after=after, tls=tls)
    thread = threading.Thread(target=proxy.serve, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.close()
        thread.join(10)
