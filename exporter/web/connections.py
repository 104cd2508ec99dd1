"""Limits for the connections of clients (number, time, size), and TLS.

uvicorn limits neither the duration and size of a request nor the time that a client takes to read a response. Both are
limited by a subclass of its protocol.
"""

import asyncio
import contextlib
import socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from http import HTTPStatus
from ipaddress import ip_address
from math import inf
from typing import Any

import structlog
import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from .limits import Limits
from .policy import SecurityPolicy

log = structlog.get_logger(__name__)

WRITE_BUFFER = 2**16
"""Bytes of a response that are buffered for a client in this process, and as many in the kernel."""

SLICE_BYTES = 2**16
"""Maximum number of bytes of a response body that are encrypted at a time. Larger bodies count for
`Limits.max_pending_bytes`."""

RST_ON_CLOSE = struct.pack("ii", 1, 0)
"""Value of SO_LINGER (on, 0 seconds) with which closing a connection discards unsent data."""

PLAIN_HTTP_RESPONSE = (
    b"HTTP/1.0 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\nconnection: close\r\n\r\n"
    b"Client sent an HTTP request to an HTTPS server.\n"
)
"""The response to a request without TLS if TLS is required. Go's HTTP server sends the same."""


class Connections:
    """All connections of the web server. Not thread-safe: used only in the server's event loop."""

    def __init__(self, limits: Limits, security_policy: Callable[[], SecurityPolicy]) -> None:
        """Create an empty collection.

        Args:
            limits: For each connection and for all of them.
            security_policy: Returns the current security policy.
        """
        self.limits = limits
        self.security_policy = security_policy
        self._all: dict[Connection, None] = {}
        """Least recently served first."""

    def add(self, connection: "Connection") -> None:
        """Add a new connection. If there are too many, the least recently served one is closed."""
        if len(self._all) >= self.limits.connections:
            self.close_least_recent()
        self._all[connection] = None

    def mark_served(self, connection: "Connection") -> None:
        """Record that a connection was served, so that it is closed after the others."""
        if connection in self._all:
            del self._all[connection]
            self._all[connection] = None

    def remove(self, connection: "Connection") -> None:
        """Remove a closed connection."""
        self._all.pop(connection, None)

    def close_least_recent(self) -> None:
        """Close the least recently served connection."""
        connection = next(iter(self._all), None)
        if connection:
            connection.abort()

    def evict_old_bodies(self, newest: bytes) -> None:
        """Disconnect the clients of the oldest bodies until the others, without the newest, fit max_pending_bytes."""
        while True:
            bodies = {id(each.pending_body): each.pending_body for each in self._all if each.pending_body}
            bodies.pop(id(newest), None)
            if sum(map(len, bodies.values())) <= self.limits.max_pending_bytes:
                return
            oldest = next(iter(bodies.values()))
            for connection in [each for each in self._all if each.pending_body is oldest]:
                connection.abort()

    async def sweep(self) -> None:
        """Close overdue connections, until cancelled. All connections are closed then."""
        try:
            while True:
                await asyncio.sleep(self.limits.sweep_seconds)
                now = asyncio.get_running_loop().time()
                for connection in [each for each in self._all if each.is_overdue(now) or each.is_idle_and_outdated()]:
                    connection.expire()
        finally:
            for connection in list(self._all):
                connection.abort()


class Connection(HttpToolsProtocol):
    """A connection: uvicorn's HTTP protocol with limits."""

    def __init__(self, connections: Connections, accepted: socket.socket, server: uvicorn.Server) -> None:
        super().__init__(server.config, server.server_state, app_state={})
        self._connections = connections
        self._socket = accepted
        self._tls = connections.security_policy().tls
        self.app = self._respond
        self._requests: deque[RequestResponseCycle] = deque()
        """Requests without a complete response. The first one is being processed, the others are pipelined."""
        self._received = 0
        """Bytes received since the connection was last idle."""
        self._idle = False
        """True if the last request has its response, and nothing was received since."""
        self._since = self.loop.time()
        """When the connection began to wait for a request, to receive it, or to send the response."""
        self._stall_deadline = inf
        self.pending_body = b""
        """The body that the client is reading, if it is large."""
        self._unsent = 0
        """Bytes in the write buffer when the client was last seen to read."""

    async def start(self) -> None:
        """Complete the TLS handshake, if enabled, and start reading."""
        if self._tls and await self._is_plain_http():
            with contextlib.suppress(OSError):  # closed already
                # Unread data would make the kernel reset the connection when it is closed, and discard the response.
                self._socket.recv(self._connections.limits.request_bytes)
                self._socket.send(PLAIN_HTTP_RESPONSE)
            self._connections.remove(self)
            self._socket.close()
            return
        limit = self._connections.limits.request_seconds
        timeouts = {"ssl_handshake_timeout": limit, "ssl_shutdown_timeout": limit} if self._tls else {}
        try:
            await self.loop.connect_accepted_socket(lambda: self, self._socket, ssl=self._tls, **timeouts)
        except OSError as error:  # includes ssl.SSLError
            log.debug("connection failed during the handshake", error=str(error))
            self.abort()
            self._socket.close()

    async def _is_plain_http(self) -> bool:
        """Return True if the first byte is a letter, as in an HTTP request. TLS begins with a control character."""
        readable = asyncio.Event()
        self.loop.add_reader(self._socket, readable.set)
        try:
            await readable.wait()
            return self._socket.recv(1, socket.MSG_PEEK).isalpha()
        except OSError:  # the handshake will fail as well
            return False
        finally:
            self.loop.remove_reader(self._socket)

    # Called by the transport

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start HTTP, unless the client's certificate has none of the allowed names."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(WRITE_BUFFER)  # with TLS the default is 512 KiB
        self.app_state["is_disconnected"] = transport.is_closing
        allowed = self._connections.security_policy().client_sans
        if self._tls and allowed and not allowed & _names(transport.get_extra_info("peercert")):
            log.debug("client certificate has none of the names in client_allowed_sans")
            transport.abort()

    def data_received(self, data: bytes) -> None:
        """Process data, or close the connection if the limit is exceeded."""
        if self._idle:
            if self.is_idle_and_outdated():
                self.abort()
                return
            self._idle = False
            self._received = 0
            self._since = self.loop.time()
        self._received += len(data)
        if self._received > self._connections.limits.request_bytes:
            self._reject_oversized()
        else:
            super().data_received(data)

    def pause_writing(self) -> None:
        """Suspend the application until the client has read some of the response."""
        self._restart_stall_timer()
        super().pause_writing()

    def resume_writing(self) -> None:
        """Resume the application."""
        self._stall_deadline = inf
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Deregister the connection."""
        self._connections.remove(self)
        self._discard_responses()
        super().connection_lost(exc)
        if self.timeout_keep_alive_task:  # uvicorn does not cancel it after an error
            self.timeout_keep_alive_task.cancel()
        # Break the reference cycles, so that TLS buffers are freed without waiting for the garbage collector.
        self._requests.clear()
        self.pipeline.clear()
        self.app, self.cycle = self.config.loaded_app, None  # type: ignore[assignment]

    # Called by uvicorn

    def on_headers_complete(self) -> None:
        """Record that a complete request was received. No request has a body."""
        super().on_headers_complete()
        if not self._requests:
            self._since = self.loop.time()
        self._requests.append(self.cycle)

    def _respond(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Run the application for a request."""

        def send_large_bodies(message: Message) -> Awaitable[None]:
            is_large = len(message.get("body", b"")) > SLICE_BYTES
            return self._send_large_body(message, send) if is_large else send(message)

        app: ASGIApp = self.config.loaded_app
        return app(scope, receive, send_large_bodies)

    async def _send_large_body(self, message: Message, send: Send) -> None:
        """Send a message with a large body, in slices over TLS."""
        self.pending_body = message["body"]
        self._connections.evict_old_bodies(self.pending_body)
        for part in _slices(message) if self._tls else (message,):
            if self.transport.is_closing():
                self._discard_responses()
            await send(part)

    def on_response_complete(self) -> None:
        """Record that a response was sent, and start the next pipelined request."""
        self._requests.popleft()
        self.pending_body = b""
        # Not idle if more pipelined requests follow: their bytes would otherwise be counted from 0 again.
        self._idle = not self._requests
        self._since = self.loop.time()
        self._connections.mark_served(self)
        if self._is_outdated():
            self.transport.close()
        super().on_response_complete()

    # Called by Connections

    def is_overdue(self, now: float) -> bool:
        """Return True if a deadline has passed; `now` is the time of the event loop."""
        if self._stall_deadline < inf and self.transport.get_write_buffer_size() < self._unsent:
            self._restart_stall_timer()
        limits = self._connections.limits
        limit = limits.response_seconds if self._requests or self._idle else limits.request_seconds
        return min(self._since + limit, self._stall_deadline) <= now

    def is_idle_and_outdated(self) -> bool:
        """Return True if the connection is idle and certificates or allowed names have changed since it started."""
        return self._idle and self._is_outdated()

    def expire(self) -> None:
        """Close the connection. If an earlier close has not completed, abort it."""
        if self.transport is None or self.transport.is_closing():
            self.abort()
        else:
            self.transport.close()

    def abort(self) -> None:
        """Close the connection immediately and discard unsent data."""
        self._connections.remove(self)
        with contextlib.suppress(OSError):  # closed already
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST_ON_CLOSE)
        if self.transport:
            self.transport.abort()
        else:
            with contextlib.suppress(OSError):  # closed already
                self._socket.shutdown(socket.SHUT_RDWR)

    def _discard_responses(self) -> None:
        """Discard what the application still sends. uvicorn does so only for the last of several pipelined requests."""
        for request in self._requests:
            request.disconnected = True

    def _restart_stall_timer(self) -> None:
        self._unsent = self.transport.get_write_buffer_size()
        self._stall_deadline = self.loop.time() + self._connections.limits.stall_seconds

    def _is_outdated(self) -> bool:
        return self._tls is not self._connections.security_policy().tls

    def _reject_oversized(self) -> None:
        if not self._requests and not self.transport.is_closing():
            status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
            self.transport.write(
                f"HTTP/1.1 {status} {status.phrase}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode()
            )
        self.transport.close()


def _slices(message: Message) -> Iterator[Message]:
    """Yield a message with a large body as several messages; uvicorn sends each when the previous one is sent.

    Without slicing, TLS would buffer an encrypted copy of the whole body for each stalled client. With it, all clients
    share the plaintext.
    """
    whole, more = memoryview(message["body"]), message.get("more_body", False)
    for start in range(0, len(whole), SLICE_BYTES):
        end = start + SLICE_BYTES
        yield {**message, "body": whole[start:end], "more_body": more or end < len(whole)}


def _names(certificate: dict[str, Any] | None) -> set[str]:
    """Return the subject alternative names: hosts, IP addresses in their short form, mail addresses and URIs."""
    return {
        str(ip_address(value)) if kind == "IP Address" else str(value)
        for kind, value in (certificate or {}).get("subjectAltName", ())
    }
