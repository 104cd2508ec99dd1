"""Limits for the connections of clients (number, time, size), and TLS.

uvicorn limits neither the duration and size of a request nor the time that a client takes to read a response. Both are
limited by a `Connection`, which is between the socket and uvicorn's protocol. Connections are also accepted here,
because uvicorn counts a connection only after the TLS handshake, and does not reload its certificate.
"""

import asyncio
import contextlib
import errno
import resource
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import ip_address
from math import inf
from typing import Any

import structlog
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from .settings import SecurityPolicy

log = structlog.get_logger(__name__)

WRITE_BUFFER = 2**16
"""Bytes of a response that are buffered for a client in this process, and as many in the kernel."""

RESERVED_FILES = 128
"""File descriptors that are not available to clients. Most are for calls to Tedee, up to 32 at the same time."""
MIN_CONNECTIONS = 8
"""Connections that are always possible, however few files the process may open."""

RST_ON_CLOSE = struct.pack("ii", 1, 0)
"""Value of SO_LINGER (on, 0 seconds) with which closing a connection discards unsent data."""


PLAIN_HTTP_RESPONSE = (
    b"HTTP/1.0 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\nconnection: close\r\n\r\n"
    b"Client sent an HTTP request to an HTTPS server.\n"
)
"""The response to a request without TLS if TLS is required. Go's HTTP server sends the same."""


@dataclass(frozen=True)
class Limits:
    """Limits for clients."""

    connections: int = 512
    """Number of connections. If a further client connects, the least recently served connection is closed."""
    request_bytes: int = 16 * 2**10
    """Size of a request, or of several that a client sends without waiting for responses. Requests have no body."""
    request_seconds: float = 10.0
    """From the connection or the first byte of a request to its last byte, including the TLS handshake."""
    response_seconds: float = 75.0
    """From a request until the client has read the whole response, and after that for an idle connection. It is longer
    than the common scrape intervals, so that scrapes reuse connections."""
    stall_seconds: float = 10.0
    """Time in which a client must read some of a pending response."""
    max_pending_bytes: int = 64 * 2**20
    """Total size of large bodies that clients are still reading, without the newest. A body is counted once for all
    clients that read it. If the limit is exceeded, the clients of the oldest body are disconnected."""
    sweep_seconds: float = 1.0
    """Interval at which overdue connections are closed."""

    @classmethod
    def of_this_process(cls) -> "Limits":
        """Return limits with connections for at most half of the files that this process may open."""
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if files == resource.RLIM_INFINITY:
            return cls()
        possible = min(files // 2, files - RESERVED_FILES)
        return cls(connections=min(cls.connections, max(MIN_CONNECTIONS, possible)))


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

    async def accept(self, listeners: Sequence[socket.socket], server: uvicorn.Server) -> None:
        """Accept connections on all listeners for a server, until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._sweep())
                for listener in listeners:
                    tasks.create_task(self._accept(listener, server))
        finally:
            for connection in list(self._all):
                connection.abort()

    async def _accept(self, listener: socket.socket, server: uvicorn.Server) -> None:
        loop = asyncio.get_running_loop()
        listener.setblocking(False)
        starting = set()
        is_failing = False
        while True:
            try:
                accepted, _ = await loop.sock_accept(listener)
            except OSError as error:
                # ECONNABORTED: the client has closed the connection. Otherwise the limit of open files may be reached.
                if error.errno != errno.ECONNABORTED:
                    if not is_failing:
                        log.warning("cannot accept connections", error=error.strerror)
                    is_failing = True
                    self._close_least_recent()
                    await asyncio.sleep(0.1)
                continue
            is_failing = False
            if hasattr(socket, "TCP_NOTSENT_LOWAT"):  # otherwise the kernel buffers megabytes for each connection
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, WRITE_BUFFER)
            if len(self._all) >= self.limits.connections:
                self._close_least_recent()
            connection = Connection(self, accepted, server)
            self._all[connection] = None
            task = loop.create_task(connection.start())
            starting.add(task)
            task.add_done_callback(starting.discard)

    def mark_served(self, connection: "Connection") -> None:
        """Record that a connection was served, so that it is closed after the others."""
        if connection in self._all:
            del self._all[connection]
            self._all[connection] = None

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

    def remove(self, connection: "Connection") -> None:
        """Remove a closed connection."""
        self._all.pop(connection, None)

    def _close_least_recent(self) -> None:
        connection = next(iter(self._all), None)
        if connection:
            connection.abort()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(self.limits.sweep_seconds)
            now = asyncio.get_running_loop().time()
            for connection in [each for each in self._all if each.is_overdue(now) or each.is_idle_and_outdated()]:
                connection.expire()


class Connection(asyncio.Protocol):
    """A connection: a protocol between the transport (a socket, or TLS) and uvicorn's protocol."""

    def __init__(self, connections: Connections, accepted: socket.socket, server: uvicorn.Server) -> None:
        self._connections = connections
        self._socket = accepted
        self._tls = connections.security_policy().tls
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._http = HttpToolsProtocol(
            server.config, server.server_state, app_state={"connection": self}, _loop=self._loop
        )
        self._received = 0
        """Bytes received since the connection was last idle."""
        self._responding = False
        """True while the application processes a request."""
        self._idle = False
        """True if the last request has its response, and nothing was received since."""
        self.lost = False
        """True if nothing can be sent any more."""
        self._deadline = inf
        self._stall_deadline = inf
        self.pending_body = b""
        """The body that the client is reading, if it is large."""
        self._unsent = 0
        """Bytes in the write buffer when the client was last seen to read."""
        self._set_deadline(connections.limits.request_seconds)

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
            await self._loop.connect_accepted_socket(lambda: self, self._socket, ssl=self._tls, **timeouts)
        except OSError as error:  # includes ssl.SSLError
            log.debug("connection failed during the handshake", error=str(error))
            self.abort()
            self._socket.close()

    async def _is_plain_http(self) -> bool:
        """Return True if the first byte is a letter, as in an HTTP request. TLS begins with a control character."""
        readable = asyncio.Event()
        self._loop.add_reader(self._socket, readable.set)
        try:
            await readable.wait()
            return self._socket.recv(1, socket.MSG_PEEK).isalpha()
        except OSError:  # the handshake will fail as well
            return False
        finally:
            self._loop.remove_reader(self._socket)

    # Called by the middleware, which finds the connection in the scope's state

    def request_started(self) -> None:
        """Record that a complete request was received."""
        self._responding = True
        self._idle = False  # if several requests were received at once, their bytes are counted together
        self._set_deadline(self._connections.limits.response_seconds)

    def start_body(self, body: bytes) -> None:
        """Record that the client starts to read a large body."""
        self.pending_body = body
        self._connections.evict_old_bodies(body)

    def request_finished(self) -> None:
        """Record that the application has sent its response."""
        self._responding = False
        self.pending_body = b""
        # Not idle if more pipelined requests follow: their bytes would otherwise be counted from 0 again.
        self._idle = self.lost or self._http.cycle.response_complete
        self._set_deadline(self._connections.limits.response_seconds)
        self._connections.mark_served(self)
        if self._transport and self._is_outdated():
            self._transport.close()

    # Called by the transport

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start HTTP, unless the client's certificate has none of the allowed names."""
        self._transport = transport
        transport.set_write_buffer_limits(WRITE_BUFFER)  # with TLS the default is 512 KiB
        self._http.connection_made(transport)
        allowed = self._connections.security_policy().client_sans
        if self._tls and allowed and not allowed & _names(transport.get_extra_info("peercert")):
            log.debug("client certificate has none of the names in client_allowed_sans")
            transport.abort()

    def data_received(self, data: bytes) -> None:
        """Pass data to HTTP, or close the connection if the limit is exceeded."""
        if self._idle:
            if self.is_idle_and_outdated():
                self.abort()
                return
            self._idle = False
            self._received = 0
            self._set_deadline(self._connections.limits.request_seconds)
        self._received += len(data)
        if self._received > self._connections.limits.request_bytes:
            self._reject_oversized()
        else:
            self._http.data_received(data)

    def eof_received(self) -> None:
        """Pass the end of the client's data to HTTP. The transport closes itself afterwards."""
        self._http.eof_received()

    def pause_writing(self) -> None:
        """Suspend the application until the client has read some of the response."""
        self._restart_stall_timer()
        self._http.pause_writing()

    def resume_writing(self) -> None:
        """Resume the application."""
        self._stall_deadline = inf
        self._http.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Deregister the connection."""
        self._connections.remove(self)
        self.lost = True
        self._http.connection_lost(exc)
        # Break the reference cycles, so that TLS buffers are freed without waiting for the garbage collector.
        self._http.cycle = None  # type: ignore[assignment]
        self._transport = None
        del self._http

    # Called by Connections

    def is_overdue(self, now: float) -> bool:
        """Return True if a deadline has passed; `now` is the time of the event loop."""
        if self._transport and self._stall_deadline < inf and self._transport.get_write_buffer_size() < self._unsent:
            self._restart_stall_timer()
        return min(self._deadline, self._stall_deadline) <= now

    def is_idle_and_outdated(self) -> bool:
        """Return True if the connection is idle and certificates or allowed names have changed since it started."""
        return self._idle and self._is_outdated()

    def expire(self) -> None:
        """Close the connection. If an earlier close has not completed, abort it."""
        if self._transport is None or self._transport.is_closing():
            self.abort()
        else:
            self._transport.close()

    def abort(self) -> None:
        """Close the connection immediately and discard unsent data."""
        self._connections.remove(self)
        with contextlib.suppress(OSError):  # closed already
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST_ON_CLOSE)
        if self._transport:
            self._transport.abort()
        else:
            with contextlib.suppress(OSError):  # closed already
                self._socket.shutdown(socket.SHUT_RDWR)

    def _restart_stall_timer(self) -> None:
        assert self._transport  # noqa: S101
        self._unsent = self._transport.get_write_buffer_size()
        self._stall_deadline = self._loop.time() + self._connections.limits.stall_seconds

    def _is_outdated(self) -> bool:
        return self._tls is not self._connections.security_policy().tls

    def _set_deadline(self, seconds: float) -> None:
        self._deadline = self._loop.time() + seconds

    def _reject_oversized(self) -> None:
        assert self._transport  # noqa: S101
        if not self._responding and not self._transport.is_closing():
            status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
            self._transport.write(
                f"HTTP/1.1 {status} {status.phrase}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode()
            )
        self._transport.close()


def _names(certificate: dict[str, Any] | None) -> set[str]:
    """Return the subject alternative names: hosts, IP addresses in their short form, mail addresses and URIs."""
    return {
        str(ip_address(value)) if kind == "IP Address" else str(value)
        for kind, value in (certificate or {}).get("subjectAltName", ())
    }
