"""The connections of clients: how many, how long, how much, and TLS.

uvicorn waits for a request as long as it takes, however long it becomes, and for a client to take its answer. Each
connection here stands between the socket and uvicorn's protocol and sees to it that this ends. They are accepted here
too, since uvicorn would count a connection only after TLS, and keep the certificate it started with.
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

from .configuration import SecurityPolicy

log = structlog.get_logger(__name__)

WAITING_BYTES = 2**16
"""Of an answer, that wait until the client has taken those before them: here, and as much in the kernel."""

RESERVED_FILES = 128
"""Files that clients leave to the process, most of them for calls to Tedee, of which 32 may be under way."""
LEAST_CONNECTIONS = 8
"""Connections that are possible however few files may be open."""

AT_ONCE = struct.pack("ii", 1, 0)
"""SO_LINGER, on, for 0 seconds: what was not taken is thrown away with the connection."""


PLAIN_HTTP = (
    b"HTTP/1.0 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\nconnection: close\r\n\r\n"
    b"Client sent an HTTP request to an HTTPS server.\n"
)
"""The response to a request without TLS where TLS is required; Go's HTTP server answers the same."""


@dataclass(frozen=True)
class Limits:
    """What a client may take."""

    connections: int = 512
    """At the same time; for another one the connection goes that was served longest ago, or never."""
    request_bytes: int = 16 * 2**10
    """Of a request, and of those that a client sends without waiting for the answer. Requests have no body here."""
    request_seconds: float = 10.0
    """From a connection, or a request's first byte, to its last: TLS included."""
    answer_seconds: float = 75.0
    """From a request to its answer's last byte taken; then, that long the connection may stay idle. It is longer than
    the common scrape intervals, so that scrapes reuse it."""
    stall_seconds: float = 10.0
    """Without taking anything of an answer that waits."""
    max_pending_bytes: int = 64 * 2**20
    """Of answers older than the newest, which are kept for those who have not taken them yet; all who take the same one
    share it. Beyond that the oldest goes, and they with it."""
    sweep_seconds: float = 1.0
    """Between two looks for those whose time is up."""

    @classmethod
    def of_this_process(cls) -> "Limits":
        """Limits with connections for at most half of the files that the process may open."""
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if files == resource.RLIM_INFINITY:
            return cls()
        possible = min(files // 2, files - RESERVED_FILES)
        return cls(connections=min(cls.connections, max(LEAST_CONNECTIONS, possible)))


class Connections:
    """All connections there are. To be used in the loop that serves them."""

    def __init__(self, limits: Limits, policy: Callable[[], SecurityPolicy]) -> None:
        """Begin without any.

        Args:
            limits: for each and all of them.
            policy: what holds now.
        """
        self.limits = limits
        self.policy = policy
        self._all: dict[Connection, None] = {}
        """By when they were last served, the longest ago first."""

    async def accept(self, listeners: Sequence[socket.socket], server: uvicorn.Server) -> None:
        """Accept connections for a server on all listeners, until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._sweep())
                for listener in listeners:
                    tasks.create_task(self._accept(listener, server))
        finally:
            self._abort()

    async def _accept(self, listener: socket.socket, server: uvicorn.Server) -> None:
        loop = asyncio.get_running_loop()
        listener.setblocking(False)
        beginning = set()
        is_failing = False
        while True:
            try:
                accepted, _ = await loop.sock_accept(listener)
            except OSError as error:
                # The client is gone already; or no more files may be open, then another connection has to go.
                if error.errno != errno.ECONNABORTED:
                    if not is_failing:
                        log.warning("cannot accept connections", error=error.strerror)
                    is_failing = True
                    self._make_room()
                    await asyncio.sleep(0.1)
                continue
            is_failing = False
            if hasattr(socket, "TCP_NOTSENT_LOWAT"):  # else the kernel takes megabytes for each
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, WAITING_BYTES)
            if len(self._all) >= self.limits.connections:
                self._make_room()
            connection = Connection(self, accepted, server)
            self._all[connection] = None
            task = loop.create_task(connection.start())
            beginning.add(task)
            task.add_done_callback(beginning.discard)

    def served(self, connection: "Connection") -> None:
        """Take note that a connection had an answer."""
        if connection in self._all:
            del self._all[connection]
            self._all[connection] = None

    def keep(self, answer: bytes) -> None:
        """Take note that an answer is being taken, and give up the oldest of the others where they become too large."""
        while True:
            others = {id(each.answer): each.answer for each in self._all if each.answer and each.answer is not answer}
            if sum(map(len, others.values())) <= self.limits.max_pending_bytes:
                return
            oldest = next(iter(others.values()))
            for connection in [each for each in self._all if each.answer is oldest]:
                connection.abort()

    def remove(self, connection: "Connection") -> None:
        """Take note that a connection is gone."""
        self._all.pop(connection, None)

    def _abort(self) -> None:
        for connection in list(self._all):
            connection.abort()

    def _make_room(self) -> None:
        longest_ago = next(iter(self._all), None)
        if longest_ago:
            longest_ago.abort()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(self.limits.sweep_seconds)
            now = asyncio.get_running_loop().time()
            for connection in [each for each in self._all if each.overdue(now) or each.idle_and_outdated()]:
                connection.expire()


class Connection(asyncio.Protocol):
    """A connection: between its socket, or TLS, and uvicorn's protocol."""

    def __init__(self, connections: Connections, accepted: socket.socket, server: uvicorn.Server) -> None:
        self._connections = connections
        self._socket = accepted
        self._tls = connections.policy().tls
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._http = HttpToolsProtocol(
            server.config, server.server_state, app_state={"connection": self}, _loop=self._loop
        )
        self._received = 0
        self._answering = False
        self._idle = False
        """Whether the last request is answered, and nothing came since."""
        self.lost = False
        """Whether nothing can be sent any more."""
        self._ends_at = inf
        self._stalls_at = inf
        self.answer = b""
        """What the client is taking, if that is large."""
        self._waiting = 0
        """Bytes of an answer that waited when the client was last seen to take some."""
        self._allow(connections.limits.request_seconds)

    async def start(self) -> None:
        """Come to terms about TLS, where that is configured, and listen."""
        if self._tls and await self._begins_with_text():
            with contextlib.suppress(OSError):  # closed already
                # What is not read would reset the connection when it is closed, and discard the response.
                self._socket.recv(self._connections.limits.request_bytes)
                self._socket.send(PLAIN_HTTP)
            self._connections.remove(self)
            self._socket.close()
            return
        limit = self._connections.limits.request_seconds
        timeouts = {"ssl_handshake_timeout": limit, "ssl_shutdown_timeout": limit} if self._tls else {}
        try:
            await self._loop.connect_accepted_socket(lambda: self, self._socket, ssl=self._tls, **timeouts)
        except OSError as error:  # ssl.SSLError is one
            log.debug("connection failed before it began", error=str(error))
            self.abort()
            self._socket.close()

    async def _begins_with_text(self) -> bool:
        """Return whether the first byte is a letter, as of an HTTP request. That of TLS is a control character."""
        readable = asyncio.Event()
        self._loop.add_reader(self._socket, readable.set)
        try:
            await readable.wait()
            return self._socket.recv(1, socket.MSG_PEEK).isalpha()
        except OSError:  # the handshake fails, too
            return False
        finally:
            self._loop.remove_reader(self._socket)

    # What the application tells, through the state of the request's scope

    def request_begins(self) -> None:
        """A request is complete, and now being answered."""
        self._answering = True
        self._idle = False  # a request that came with others: what is received goes on counting
        self._allow(self._connections.limits.answer_seconds)

    def start_body(self, answer: bytes) -> None:
        """The client begins to take a large answer."""
        self.answer = answer
        self._connections.keep(answer)

    def request_ends(self) -> None:
        """It is answered, as far as the application is concerned."""
        self._answering = False
        self.answer = b""
        # Otherwise data that comes before the next of several requests has begun would be counted from 0 again.
        self._idle = self.lost or self._http.cycle.response_complete
        self._allow(self._connections.limits.answer_seconds)
        self._connections.served(self)
        if self._transport and self._outdated():
            self._transport.close()

    # What the transport tells

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, with a client whose name is welcome."""
        self._transport = transport
        transport.set_write_buffer_limits(WAITING_BYTES)  # over TLS it would be half a MiB
        self._http.connection_made(transport)
        welcome = self._connections.policy().client_sans
        if self._tls and welcome and not welcome & _names(transport.get_extra_info("peercert")):
            log.debug("client certificate has none of the names in client_allowed_sans")
            transport.abort()

    def data_received(self, data: bytes) -> None:
        """Hand data on, unless it is too much."""
        if self._idle:
            if self.idle_and_outdated():
                self.abort()
                return
            self._idle = False
            self._received = 0
            self._allow(self._connections.limits.request_seconds)
        self._received += len(data)
        if self._received > self._connections.limits.request_bytes:
            self._refuse()
        else:
            self._http.data_received(data)

    def eof_received(self) -> None:
        """Note that the client sends no more; the transport closes itself then."""
        self._http.eof_received()

    def pause_writing(self) -> None:
        """Have the application wait until the client has taken something."""
        self._await_taking()
        self._http.pause_writing()

    def resume_writing(self) -> None:
        """Have the application go on."""
        self._stalls_at = inf
        self._http.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Be forgotten."""
        self._connections.remove(self)
        self.lost = True
        self._http.connection_lost(exc)
        # They all hold each other, with the buffers of TLS: that should not wait for the garbage collector.
        self._http.cycle = None  # type: ignore[assignment]
        self._transport = None
        del self._http

    # What the others want

    def overdue(self, now: float) -> bool:
        """Whether it has had its time, by the loop's clock."""
        if self._transport and self._stalls_at < inf and self._transport.get_write_buffer_size() < self._waiting:
            self._await_taking()
        return min(self._ends_at, self._stalls_at) <= now

    def idle_and_outdated(self) -> bool:
        """Whether it does nothing, and certificates, or who may come, have changed since it began."""
        return self._idle and self._outdated()

    def expire(self) -> None:
        """End it: the time is up. Who does not let it end in peace, by taking what was sent, is asked once."""
        if self._transport is None or self._transport.is_closing():
            self.abort()
        else:
            self._transport.close()

    def abort(self) -> None:
        """End it at once. What was not sent yet is lost."""
        self._connections.remove(self)
        with contextlib.suppress(OSError):  # closed already
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
        if self._transport:
            self._transport.abort()
        else:
            with contextlib.suppress(OSError):  # closed already
                self._socket.shutdown(socket.SHUT_RDWR)

    def _await_taking(self) -> None:
        assert self._transport  # noqa: S101
        self._waiting = self._transport.get_write_buffer_size()
        self._stalls_at = self._loop.time() + self._connections.limits.stall_seconds

    def _outdated(self) -> bool:
        return self._tls is not self._connections.policy().tls

    def _allow(self, seconds: float) -> None:
        self._ends_at = self._loop.time() + seconds

    def _refuse(self) -> None:
        assert self._transport  # noqa: S101
        if not self._answering and not self._transport.is_closing():
            status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
            self._transport.write(
                f"HTTP/1.1 {status} {status.phrase}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode()
            )
        self._transport.close()


def _names(certificate: dict[str, Any] | None) -> set[str]:
    """The subject's alternative names: hosts, IP addresses in their short form, mail addresses and URIs."""
    return {
        str(ip_address(value)) if kind == "IP Address" else str(value)
        for kind, value in (certificate or {}).get("subjectAltName", ())
    }
