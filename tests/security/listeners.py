"""What stands at the other end of the exporter's connections, and remembers what reached it."""

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

from tests.program import TIMEOUT

SYNCED = {"result": [{"id": 1, "isConnected": True}], "success": True, "errorMessages": [], "statusCode": 200}
TOKEN = {"access_token": "an-access-token", "expires_in": 3600}


@dataclass(frozen=True)
class Asked:
    """A request that reached a server."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    def __contains__(self, secret: str) -> bool:
        return secret in f"{self.target} {self.headers}" or secret.encode() in self.body


@dataclass(frozen=True)
class Reply:
    """What a server says to every request; by itself, what Tedee's API or its token endpoint would."""

    status: int = 200
    headers: Mapping[str, str] | None = None
    body: bytes | None = None


class Server(ThreadingHTTPServer):
    """Speaks HTTP, over TLS where it has a context for that; to CONNECT it is a proxy that knows every name."""

    daemon_threads = True

    def __init__(self, reply: Reply, tls: ssl.SSLContext | None, password: str | None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.reply = reply
        self.tls = tls
        self.password = password
        """What `Proxy-Authorization` has to be, where that matters."""
        self.asked: list[Asked] = []
        self.passed_on = bytearray()
        """By a proxy, in both directions."""

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
        """Nothing: callers who do not like this server are what the tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._remember(body)
        reply = self.server.reply
        usual = json.dumps(TOKEN if self.command == "POST" else SYNCED).encode()
        answer = usual if reply.body is None else reply.body
        self.send_response(reply.status)
        for name, value in {"Content-Length": str(len(answer)), **(reply.headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer)

    def do_CONNECT(self) -> None:
        self._remember(b"")
        if self.server.password and self.headers.get("Proxy-Authorization") != self.server.password:
            self.send_error(407)
            return
        with socket.create_connection(("127.0.0.1", int(self.path.rpartition(":")[2]))) as onward:
            self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            self._pass_on(self.connection, onward)
        self.close_connection = True

    def _remember(self, body: bytes) -> None:
        self.server.asked.append(Asked(self.command, self.path, dict(self.headers), body))

    def _pass_on(self, one: socket.socket, other: socket.socket) -> None:
        while True:
            # What TLS has unpacked already, `select` does not see.
            ready = (
                [one] if isinstance(one, ssl.SSLSocket) and one.pending() else select.select([one, other], [], [])[0]
            )
            for each in ready:
                data = each.recv(65536)
                if not data:
                    return
                self.server.passed_on += data
                (other if each is one else one).sendall(data)

    def log_message(self, *args: object) -> None:
        pass


@contextlib.contextmanager
def listening(
    reply: Reply = Reply(), tls: ssl.SSLContext | None = None, password: str | None = None
) -> Iterator[Server]:
    """A server, for as long as the context lasts."""
    with Server(reply, tls, password) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
