"""Connections to Tedee: one per call, without retries or redirects, and with a deadline for the whole call.

A time-out of `requests` applies to each read. A server that sends one byte now and then could hold a call for hours,
and the rate limiter would not know when it ends. Here the connection is shut down at the deadline, whatever the state
of the call.

A connection is never reused. A late or second response would be taken for the response to the next call, perhaps of
another account, and the next call would fail if a NAT or the server has dropped the idle connection. With one call in
20 seconds, the cost of a new connection is negligible.
"""

import asyncio
import contextlib
import errno
import http.client
import os
import re
import socket
import ssl
import stat
import sys
import threading
from collections.abc import Iterable, Iterator
from functools import lru_cache
from http.cookiejar import DefaultCookiePolicy
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3.connection
import urllib3.connectionpool
from aiohappyeyeballs import start_connection
from requests.adapters import HTTPAdapter
from requests.exceptions import InvalidProxyURL
from requests.utils import DEFAULT_CA_BUNDLE_PATH, select_proxy
from urllib3.exceptions import ConnectTimeoutError
from urllib3.util.ssltransport import SSLTransport

from exporter.clock import boottime
from exporter.secrets import safe_path

from .errors import CallError, ConnectionFailed, InvalidResponse, TimedOut, TlsFailed

NETWORK_ERRORS = (requests.RequestException, urllib3.exceptions.HTTPError, OSError)
"""The errors that the libraries underneath can raise in a call.

Show nothing of them but the result of `Deadline.classify`: they contain the request, with the key, and some contain the
address of the proxy, with its password.
"""
NEXT_ADDRESS_DELAY = 0.25
"""Seconds without a connection after which the next address of a host is tried as well (RFC 8305 section 5)."""
_TLS_ERRORS = (requests.exceptions.SSLError, urllib3.exceptions.SSLError)
_DROPPED_HEADERS = ("Location", "Set-Cookie", "Set-Cookie2")
"""Headers of a response that requests parses even if it is not to follow redirects or store cookies."""


def is_loopback(host: str) -> bool:
    """Return True if a host name or address is this machine, so that plain HTTP to it crosses no network."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class TransportError(OSError):
    """A failure that one kind of CallError describes. The text contains no secret."""

    def __init__(self, kind: type[CallError], problem: str) -> None:
        super().__init__(problem)
        self.kind = kind
        self.problem = problem


class Deadline:
    """The deadline of one call. When it expires, the connection is shut down and no other can be opened."""

    def __init__(self, seconds: float, since: float | None = None) -> None:
        # By the clock of the rate limits: a request must not be sent after its reservation has ended, even if the
        # machine was suspended in between.
        self.seconds = seconds
        self.problem = f"no complete response within {seconds:g} s"
        self._expires_at = (boottime() if since is None else since) + seconds
        self._connection: socket.socket | None = None
        self._lock = threading.Lock()
        self.expired = False

    def remaining(self) -> float:
        """Return the seconds until the deadline, 0.0 if it has passed."""
        return max(0.0, self._expires_at - boottime())

    def register(self, connection: socket.socket | SSLTransport) -> None:
        """Shut this connection down at the deadline.

        Raises:
            TimeoutError: The deadline has passed.
        """
        with self._lock:
            remaining = self.remaining()
            if self.expired or not remaining:
                self.expired = True
                raise TimeoutError
            # A TLS handshake detaches the socket, out of reach of `expire`, but its time-out covers all of it.
            connection.settimeout(remaining)
            # TLS within the TLS of a proxy is not a socket, but uses one.
            self._connection = connection.socket if isinstance(connection, SSLTransport) else connection

    def expire(self) -> None:
        """Shut the connection of the call down, which ends a blocked read."""
        with self._lock:
            self.expired = True
            if self._connection:
                with contextlib.suppress(OSError):
                    # Not the shutdown of the TLS socket, which would remove the encryption during a read.
                    socket.socket.shutdown(self._connection, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection of the call, even if a response still refers to it.

        If urllib3 rejects a header, it drops the response, and the connection would stay open until garbage collection.
        """
        with self._lock:
            if self._connection and (descriptor := socket.socket.detach(self._connection)) >= 0:
                os.close(descriptor)

    def classify(self, error: Exception) -> tuple[type[CallError], str]:  # noqa: PLR0911  (a table: one row per case)
        """Return the kind and the description of an error that a network library raised in this call."""
        known = next((each for each in _chain(error) if isinstance(each, TransportError)), None)
        match error:
            case _ if known:
                return known.kind, known.problem
            case _ if self.expired:
                return TimedOut, self.problem
            case _ if isinstance(error, _TLS_ERRORS) or isinstance(_innermost(error), ssl.SSLError):
                return TlsFailed, f"TLS failed: {_describe_cause(error)}{_custom_ca_note()}"
            case requests.exceptions.Timeout() | urllib3.exceptions.TimeoutError():
                return TimedOut, self.problem
            case requests.exceptions.ContentDecodingError() | urllib3.exceptions.DecodeError():
                return InvalidResponse, "the response cannot be decompressed"
            case InvalidProxyURL():
                return ConnectionFailed, "the connection failed: the address of the proxy must be http://host:port"
            case requests.exceptions.InvalidSchema() | requests.exceptions.InvalidURL():
                # The texts of these errors repeat the address, and that of a proxy may contain a password.
                return ConnectionFailed, "the connection failed: the address of the proxy, or of the API, is invalid"
            case _:
                return ConnectionFailed, f"the connection failed: {_describe_cause(error)}"


_thread_local = threading.local()


@contextlib.contextmanager
def enforce_deadline(seconds: float, since: float | None = None) -> Iterator[Deadline]:
    """Enforce a deadline on the calls of this thread in the context, from connecting to the last byte of the response.

    Args:
        seconds: Time until the deadline.
        since: Start of that time, in seconds of `boottime`; None for now.
    """
    deadline = Deadline(seconds, since)
    timer = threading.Timer(deadline.remaining(), deadline.expire)
    timer.daemon = True
    timer.start()
    _thread_local.deadline = deadline
    try:
        yield deadline
    finally:
        _thread_local.deadline = None
        timer.cancel()
        deadline.close()


def _register(connection: socket.socket | SSLTransport) -> None:
    """Register a connection with the deadline of this thread."""
    try:
        _current_deadline().register(connection)
    except TimeoutError as error:
        connection.close()
        raise ConnectTimeoutError("the deadline passed while connecting") from error


def _current_deadline() -> Deadline:
    """Return the deadline of this thread."""
    deadline: Deadline = _thread_local.deadline
    return deadline


# Opening a connection


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
        name = "the proxy's name" if is_proxy else f"the name {host}"
        reason = getattr(error, "strerror", None) or "it is not a valid host name"
        raise TransportError(ConnectionFailed, f"{name} cannot be resolved: {reason}") from None
    addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
    to = f"{server} port {port}" if addresses == [host] else f"{server} ({_format_addresses(addresses)}) port {port}"
    try:
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            return runner.run(_connect_to_first(found, deadline))
    except OSError as error:
        # Each address has its own error; asyncio's text contains their numbers.
        reasons = dict.fromkeys(os.strerror(int(number)) for number in re.findall(r"\[Errno (\d+)\]", str(error)))
        if not reasons:
            raise TransportError(TimedOut, f"no connection to {to} within {deadline.seconds:g} s") from None
        raise TransportError(ConnectionFailed, f"no connection to {to}: {', '.join(reasons)}") from None


async def _connect_to_first(found: list[Any], deadline: Deadline) -> socket.socket:
    async with asyncio.timeout(deadline.remaining()):
        return await start_connection(found, happy_eyeballs_delay=NEXT_ADDRESS_DELAY)


def _format_addresses(addresses: list[str], most: int = 4) -> str:
    return ", ".join([*addresses[:most], *([f"{len(addresses) - most} more"] if len(addresses) > most else [])])


class _DeadlineMixin:
    """A connection that is opened once, and is shut down at the deadline of the thread that uses it."""

    sock: socket.socket

    def _new_conn(self) -> socket.socket:
        this: Any = self
        host = this._dns_host  # noqa: SLF001  (`host` lacks a trailing dot, which matters to the resolver)
        connection = _connect(host, this.port, _current_deadline(), is_proxy=bool(this.proxy))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _register(connection)
        return connection

    def _tunnel(self) -> None:
        """Request a tunnel to the server from a proxy, and wait for the response of the proxy."""
        _register(self.sock)
        super()._tunnel()  # type: ignore[misc]
        _register(self.sock)

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        _register(self.sock)

    def getresponse(self) -> Any:
        response = super().getresponse()  # type: ignore[misc]
        for header in _DROPPED_HEADERS:
            response.headers.discard(header)
            del response._original_response.msg[header]  # noqa: SLF001  (requests takes cookies from there)
        return response


class _HTTPConnection(_DeadlineMixin, urllib3.connection.HTTPConnection):
    """Plain HTTP, which is allowed to this machine only, whatever the name resolves to."""

    def _new_conn(self) -> socket.socket:
        connection = super()._new_conn()
        if not is_loopback(connection.getpeername()[0]):
            connection.close()
            raise PermissionError(errno.EACCES, "plain HTTP is allowed to this machine only; use https://")
        return connection


class _HTTPSConnection(_DeadlineMixin, urllib3.connection.HTTPSConnection):
    """TLS, with a context that all connections share."""

    def connect(self) -> None:
        self.ssl_context = _tls_context(str(self.ca_certs))
        # With these, the context would load the certificates again.
        self.ca_certs = self.ca_cert_dir = None
        if self.proxy_config:
            self.proxy_config = self.proxy_config._replace(ssl_context=self.ssl_context)
        super().connect()


# Certificates


def _tls_context(bundle: str) -> ssl.SSLContext:
    """Return the TLS context that trusts the CA certificates in a file or folder.

    Loading a file of all public CAs takes about 15 ms of CPU time, so the context is cached until the file changes.
    From a folder, OpenSSL loads only the certificates that it needs.

    Raises:
        TransportError: The certificates cannot be read.
    """
    try:
        status = Path(bundle).stat()
        if stat.S_ISREG(status.st_mode):
            return _cached_context(bundle, (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns))
        reason = "it is neither a regular file nor a folder"  # opening a FIFO would wait for a writer
        if stat.S_ISDIR(status.st_mode):
            return _create_context(bundle)
    except OSError as error:  # ssl.SSLError is one
        reason = str(error.strerror)
    problem = f"the CA certificates in {safe_path(Path(bundle))} cannot be read: {reason}"
    raise TransportError(TlsFailed, f"TLS failed: {problem}")


@lru_cache(maxsize=1)
def _cached_context(bundle: str, _version: tuple[int, ...]) -> ssl.SSLContext:
    return _create_context(bundle)


class _SharedContext(ssl.SSLContext):
    """A TLS context that connections of many threads use at once."""

    def set_alpn_protocols(self, alpn_protocols: Iterable[str]) -> None:
        """Do nothing: OpenSSL replaces the list in place, while another thread may be copying it."""


def _create_context(bundle: str) -> ssl.SSLContext:
    context = _SharedContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies certificates and host names
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False
    if sys.version_info >= (3, 13):  # as ssl.create_default_context
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VERIFY_X509_STRICT
    super(_SharedContext, context).set_alpn_protocols(["http/1.1"])
    folder = Path(bundle).is_dir()
    context.load_verify_locations(cafile=None if folder else bundle, capath=bundle if folder else None)
    return context


def _custom_ca_bundle() -> str | None:
    """Return the CA certificates from the environment, in the order of precedence of requests and OpenSSL."""
    names = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
    return next((os.environ[name] for name in names if os.environ.get(name)), None)


def _custom_ca_note() -> str:
    """Return a note for error messages that names the CA certificates, if they are not those of requests."""
    bundle = _custom_ca_bundle()
    return f" (trusted CA certificates: {safe_path(Path(bundle))})" if bundle else ""


# Integration with requests


class _Unpooled:
    """A connection pool that closes each connection after its call."""

    def _put_conn(self, conn: Any) -> None:
        if conn:
            conn.close()


class _HTTPPool(_Unpooled, urllib3.connectionpool.HTTPConnectionPool):
    ConnectionCls: Any = _HTTPConnection


class _HTTPSPool(_Unpooled, urllib3.connectionpool.HTTPSConnectionPool):
    ConnectionCls: Any = _HTTPSConnection


_POOLS = {"http": _HTTPPool, "https": _HTTPSPool}


class _Adapter(HTTPAdapter):
    """The adapter of requests, with these connections, also through a proxy."""

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        url = str(request.url)
        if is_loopback(urlsplit(url).hostname or ""):
            # A call to this machine must not reach a proxy, which would see it unencrypted.
            kwargs["proxies"] = None
        try:
            return super().send(request, *args, **kwargs)
        except (ValueError, TypeError):
            if select_proxy(url, kwargs.get("proxies")):
                raise InvalidProxyURL from None
            raise

    def add_headers(self, request: requests.PreparedRequest, **_kwargs: Any) -> None:
        request.headers["Connection"] = "close"

    def cert_verify(self, conn: Any, _url: str, _verify: Any, _cert: Any) -> None:
        conn.cert_reqs = "CERT_REQUIRED"
        conn.ca_certs = _custom_ca_bundle() or DEFAULT_CA_BUNDLE_PATH

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = _POOLS
        return manager


def session() -> requests.Session:
    """Return a session for all accounts.

    It does not retry: a retry would be a second call within 20 seconds. It stores no cookies: those of one account
    would be sent with the calls of another.
    """
    shared = requests.Session()
    shared.mount("https://", _Adapter(max_retries=0))
    shared.mount("http://", _Adapter(max_retries=0))
    shared.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    return shared


# Errors


def _chain(error: BaseException) -> list[BaseException]:
    """Return an error and the errors that libraries wrapped in it, innermost last."""
    chain: list[BaseException] = []
    todo: BaseException | None = error
    while todo is not None and todo not in chain:
        chain.append(todo)
        inner = next((arg for arg in todo.args if isinstance(arg, BaseException)), None)
        todo = getattr(todo, "reason", None) if isinstance(getattr(todo, "reason", None), BaseException) else None
        todo = todo or inner or chain[-1].__cause__ or chain[-1].__context__
    return chain


def _innermost(error: BaseException) -> BaseException:
    """Return the innermost error that has a reason."""
    chain = _chain(error)
    return next((each for each in reversed(chain) if isinstance(each, OSError) and each.strerror), chain[-1])


def _describe_cause(error: BaseException) -> str:
    """Return the innermost cause in text, without the object representations that libraries include."""
    cause = _innermost(error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return cause.verify_message
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    # The text of a proxy may repeat what was sent to it.
    if refused := re.match("Tunnel connection failed: ([0-9]+)", str(cause)):
        status = int(refused[1])
        return f"the proxy returned HTTP {status} {http.client.responses.get(status, '')}".rstrip()
    return type(cause).__name__
