"""TCP servers whose bytes are chosen by the tests."""

import contextlib
import socket
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any

from testing.program import TIMEOUT

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
    """Run a server, and return its port. `speak` gets each connection in a new thread; then the connection is closed.

    An OSError of `speak` ends only its connection. No thread of the server remains in a blocking `accept`: it would
    take the connections of another test's server if the number of its file descriptor is reused.
    """

    def handle(connection: socket.socket, *_: object) -> None:
        speak(connection)
        # Closing a connection with unread bytes resets it, and the peer may lose bytes that it has not read.
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(TIMEOUT)
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
    """Run a server that completes the TLS handshake and closes the connection. Returns its URL."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)

    def speak(connection: socket.socket) -> None:
        context.wrap_socket(connection, server_side=True).close()

    with tcp_server(speak) as port:
        yield f"https://localhost:{port}"
