"""HTTP servers and proxies that record the requests they receive."""

import contextlib
import json
import select
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from testing.program import TIMEOUT

ENVELOPE = {"success": True, "errorMessages": [], "statusCode": 200}
SYNCED = ENVELOPE | {"result": [{"id": 1, "isConnected": True}]}
DEVICES = ENVELOPE | {"result": {"locks": [], "doorSensors": []}}
TOKEN = {"access_token": "an-access-token", "expires_in": 3600}


@dataclass(frozen=True)
class ReceivedRequest:
    """A request that a server received."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    def __contains__(self, secret: str) -> bool:
        return secret in f"{self.target} {self.headers}" or secret.encode() in self.body


@dataclass(frozen=True)
class Reply:
    """The response to every request. By default it is that of Tedee's API or of its token endpoint."""

    status: int = 200
    headers: Mapping[str, str] | None = None
    body: bytes | None = None


class Server(ThreadingHTTPServer):
    """An HTTP server, with TLS if it has a context. For CONNECT it is a proxy that resolves every name to itself."""

    daemon_threads = True

    def __init__(self, reply: Reply, tls: ssl.SSLContext | None, password: str | None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.reply = reply
        self.tls = tls
        self.password = password
        """The required `Proxy-Authorization`, if any."""
        self.received: list[ReceivedRequest] = []
        self.forwarded = bytearray()
        """Bytes that the proxy forwarded, in both directions."""

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def url(self, host: str = "localhost") -> str:
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"

    def finish_request(self, request: Any, client_address: Any) -> None:
        request.settimeout(TIMEOUT)
        with self.tls.wrap_socket(request, server_side=True) if self.tls else nullcontext(request) as connection:
            super().finish_request(connection, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore errors: the tests cause failed handshakes and closed connections."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._record(body)
        reply = self.server.reply
        default = json.dumps(TOKEN if self.command == "POST" else SYNCED if "/sync" in self.path else DEVICES).encode()
        content = default if reply.body is None else reply.body
        self.send_response(reply.status)
        for name, value in {"Content-Length": str(len(content)), **(reply.headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def do_CONNECT(self) -> None:
        self._record(b"")
        if self.server.password and self.headers.get("Proxy-Authorization") != self.server.password:
            self.send_error(407)
            return
        with socket.create_connection(("127.0.0.1", int(self.path.rpartition(":")[2]))) as target:
            self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            self._forward(self.connection, target)
        self.close_connection = True

    def _record(self, body: bytes) -> None:
        self.server.received.append(ReceivedRequest(self.command, self.path, dict(self.headers), body))

    def _forward(self, one: socket.socket, other: socket.socket) -> None:
        while True:
            # `select` does not report data that TLS has already decrypted.
            ready = (
                [one] if isinstance(one, ssl.SSLSocket) and one.pending() else select.select([one, other], [], [])[0]
            )
            for each in ready:
                data = each.recv(65536)
                if not data:
                    return
                self.server.forwarded += data
                (other if each is one else one).sendall(data)

    def log_message(self, *args: object) -> None:
        pass


@contextlib.contextmanager
def listening(
    reply: Reply = Reply(), tls: ssl.SSLContext | None = None, password: str | None = None
) -> Iterator[Server]:
    """Run a server."""
    with Server(reply, tls, password) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
