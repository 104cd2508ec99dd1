"""The web server in the process of the tests, for tests of its connections."""

import contextlib
import re
import socket
from collections.abc import Iterator

import requests

from exporter.metrics.collector import ExporterCollector
from exporter.metrics.exposition import Exposition
from exporter.web.app import create_app
from exporter.web.connections import Connections
from exporter.web.limits import Limits
from exporter.web.listeners import listen
from exporter.web.policy import SecurityPolicy
from exporter.web.server import WebServer
from testing.clock import FakeClock
from testing.factories import locks_of, registry, status
from testing.program import TIMEOUT
from tests.cloud import synced

LIMITS = Limits(
    connections=20,
    request_bytes=16 * 2**10,
    request_seconds=1.5,
    response_seconds=3.0,
    stall_seconds=1.5,
    sweep_seconds=0.05,
)
"""The default limits, with shorter times."""


class Server:
    """The web server, with the metrics of many locks."""

    def __init__(self, limits: Limits = LIMITS, policy: SecurityPolicy | None = None) -> None:
        self.policy = policy or SecurityPolicy()
        clock = FakeClock()
        self.registry = registry(status(clock, locks_of([synced(number) for number in range(1, 3000)], [])))
        self.exposition = Exposition(
            self.registry, ExporterCollector("1.2.3", lambda: (True, 0.0), lambda: True), clock
        )
        app = create_app(self.registry, self.exposition, clock, version="1.2.3", security_policy=lambda: self.policy)
        (listener,) = listeners = listen(["127.0.0.1:0"])
        self.address: tuple[str, int] = listener.getsockname()
        self.connections = Connections(limits, lambda: self.policy)
        self.web = WebServer(app, listeners, self.connections)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.address[1]}"

    def open(self, send: bytes = b"") -> socket.socket:
        """Return a connection on which `send` has been sent."""
        client = socket.create_connection(self.address, timeout=TIMEOUT)
        client.sendall(send)
        return client

    def exchange(self, send: bytes) -> bytes:
        """Send data and return all that is received until the connection is closed."""
        with self.open(send) as client:
            return read_all(client)

    def scrape(self) -> str:
        return requests.get(f"{self.url}/metrics", timeout=TIMEOUT).text

    def count(self) -> int:
        return len(self.connections._all)


def read_all(client: socket.socket) -> bytes:
    """Return all that is received until the server closes or resets the connection."""
    chunks = []
    with contextlib.suppress(ConnectionError):
        while chunk := client.recv(2**16):
            chunks.append(chunk)
    return b"".join(chunks)


def statuses(responses: bytes) -> list[int]:
    return [int(code) for code in re.findall(rb"HTTP/1\.1 (\d{3})", responses)]


@contextlib.contextmanager
def serving(limits: Limits = LIMITS, policy: SecurityPolicy | None = None) -> Iterator[Server]:
    """Run a server."""
    server = Server(limits, policy)
    server.web.start()
    try:
        yield server
    finally:
        server.web.stop()
