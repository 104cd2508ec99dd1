"""Connections to the first address of a host that accepts one, which are shut down at the deadline of their call."""

import asyncio
import errno
import os
import re
import socket
from ipaddress import ip_address
from typing import Any

import urllib3.connection
from aiohappyeyeballs import start_connection
from urllib3.exceptions import ConnectTimeoutError
from urllib3.util.ssltransport import SSLTransport

from .certificates import tls_context
from .deadline import Deadline, current_deadline
from .errors import ConnectionFailed, TimedOut, TransportError

NEXT_ADDRESS_DELAY = 0.25
"""Seconds without a connection after which the next address of a host is tried as well (RFC 8305 section 5)."""
_DROPPED_HEADERS = ("Location", "Set-Cookie", "Set-Cookie2")
"""Headers of a response that requests parses even if it is not to follow redirects or store cookies."""


def is_loopback(host: str) -> bool:
    """Return True if a host name or address is this machine, so that plain HTTP to it crosses no network."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _connect(host: str, port: int, deadline: Deadline, *, is_proxy: bool) -> socket.socket:
    """Return a connection to the first address of a host that accepts one (Happy Eyeballs, RFC 8305).

    Args:
        host: Name or address.
        port: TCP port.
        deadline: The deadline, before which each address is tried.
        is_proxy: The host is a proxy. Its name is not shown: if the password has a `#`, the name may be a part of it.

    Raises:
        TransportError: There is no connection.
    """
    server = "the proxy" if is_proxy else host
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:  # UnicodeError for an invalid name
        name = "the name of the proxy in HTTPS_PROXY or ALL_PROXY" if is_proxy else f"the name {host}"
        reason = getattr(error, "strerror", None) or "it is not a valid host name"
        raise TransportError(ConnectionFailed, f"{name} cannot be resolved: {reason}") from None
    addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
    to = f"{server} port {port}" if addresses == [host] else f"{server} ({_format_addresses(addresses)}) port {port}"
    try:
        with asyncio.Runner(loop_factory=_EventLoop) as runner:
            return runner.run(_connect_to_first(found, deadline))
    except OSError as error:
        # Each address has its own error; asyncio's text contains their numbers.
        reasons = dict.fromkeys(os.strerror(int(number)) for number in re.findall(r"\[Errno (\d+)\]", str(error)))
        if not reasons:
            raise TransportError(TimedOut, f"no connection to {to} within {deadline.seconds:g} s") from None
        raise TransportError(ConnectionFailed, f"no connection to {to}: {', '.join(reasons)}") from None


class _EventLoop(asyncio.SelectorEventLoop):
    """An event loop that its runner closes."""

    def __del__(self) -> None:
        """Do nothing. asyncio's method fails for a loop that could not be created: too many files are open."""


async def _connect_to_first(found: list[Any], deadline: Deadline) -> socket.socket:
    async with asyncio.timeout(deadline.remaining()):
        return await start_connection(found, happy_eyeballs_delay=NEXT_ADDRESS_DELAY)


def _format_addresses(addresses: list[str], most: int = 4) -> str:
    return ", ".join([*addresses[:most], *([f"{len(addresses) - most} more"] if len(addresses) > most else [])])


def _register(connection: socket.socket | SSLTransport) -> None:
    """Register a connection with the deadline of this thread."""
    try:
        current_deadline().register(connection)
    except TimeoutError as error:
        connection.close()
        raise ConnectTimeoutError("the deadline passed while connecting") from error


class _DeadlineMixin:
    """A connection that is opened once, and is shut down at the deadline of the thread that uses it."""

    sock: socket.socket

    def _new_conn(self) -> socket.socket:
        this: Any = self
        host = this._dns_host  # noqa: SLF001  (`host` lacks a trailing dot, which matters to the resolver)
        connection = _connect(host, this.port, current_deadline(), is_proxy=bool(this.proxy))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _register(connection)
        return connection

    def _tunnel(self) -> None:
        """Request a tunnel to the server from a proxy, and wait for the response of the proxy."""
        super()._tunnel()  # type: ignore[misc]
        _register(self.sock)

    def send(self, data: Any) -> None:
        """Send a part of a request, unless the deadline has passed: the process may have been stopped."""
        this: Any = self
        if this.sock is None:
            this.connect()
        _register(self.sock)
        super().send(data)  # type: ignore[misc]

    def getresponse(self) -> Any:
        response = super().getresponse()  # type: ignore[misc]
        for header in _DROPPED_HEADERS:
            response.headers.discard(header)
            del response._original_response.msg[header]  # noqa: SLF001  (requests takes cookies from there)
        return response


class HTTPConnection(_DeadlineMixin, urllib3.connection.HTTPConnection):
    """Plain HTTP, which is allowed to this machine only, whatever the name resolves to."""

    def _new_conn(self) -> socket.socket:
        connection = super()._new_conn()
        if not is_loopback(connection.getpeername()[0]):
            connection.close()
            raise PermissionError(errno.EACCES, "plain HTTP is allowed to this machine only; use https://")
        return connection


class HTTPSConnection(_DeadlineMixin, urllib3.connection.HTTPSConnection):
    """TLS, with a context that all connections share."""

    def connect(self) -> None:
        """Connect, and complete the TLS handshake."""
        self.ssl_context = tls_context()
        # With these, the context would load those of requests as well.
        self.ca_certs = self.ca_cert_dir = None
        if self.proxy_config:
            self.proxy_config = self.proxy_config._replace(ssl_context=self.ssl_context)
        super().connect()
