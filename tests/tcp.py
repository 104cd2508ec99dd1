"""TCP servers for tests that decide themselves what is sent."""

import contextlib
import socket
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any

from tests.program import PATIENCE

Speak = Callable[[socket.socket], None]


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 128
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        with contextlib.suppress(OSError):
            raise  # noqa: PLE0704 the caller is an `except`


@contextlib.contextmanager
def tcp_server(speak: Speak, host: str = "127.0.0.1") -> Iterator[int]:
    """The port of a server that runs `speak` for each connection, in a thread of its own, and closes the connection.

    An OSError of `speak` ends its connection alone. No thread of the server is left in a blocking `accept`: such a
    thread can take the connections of another test's server when the number of its file descriptor is used again.
    """

    def handle(connection: socket.socket, *_: object) -> None:
        speak(connection)
        # Closing a connection that holds unread bytes makes the peer lose what was sent to it.
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(PATIENCE)
        while connection.recv(65536):
            pass

    handler: Any = handle
    with _Server((host, 0), handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        try:
            yield int(server.server_address[1])
        finally:
            server.shutdown()


@contextlib.contextmanager
def tls_server(certificate: Any) -> Iterator[str]:
    """The URL of a server that speaks TLS with a certificate of trustme and closes each connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)

    def speak(connection: socket.socket) -> None:
        context.wrap_socket(connection, server_side=True).close()

    with tcp_server(speak) as port:
        yield f"https://localhost:{port}"
