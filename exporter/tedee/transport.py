"""The connections to Tedee: one for each call, without retries and redirects, and ended at the call's deadline.

A time-out of `requests` applies to each read, so that a server that sends a byte now and then could hold a call for
hours, and the rate limiter would not know when it ends. Here the connection is shut down when the time is up, whatever
the state of the exchange.

A connection is never reused. A late or second response would be taken for the response to the next call, perhaps of
another account; and a NAT or a server may have forgotten an idle connection, which the next call would find out by
failing. With one call in 20 seconds, a new connection costs nothing that matters.
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
"""Every way in which an exchange can fail for the libraries underneath.

Of such an error, show nothing but its `Deadline.meaning`: it carries the request, with the key in it, and some repeat a
proxy's address, with the password in it.
"""
NEXT_ADDRESS_DELAY = 0.25
"""Seconds after which the next address of a host is tried, too, if there is no connection yet (RFC 8305 section 5)."""
_TLS_ERRORS = (requests.exceptions.SSLError, urllib3.exceptions.SSLError)
_ACTED_UPON = ("Location", "Set-Cookie", "Set-Cookie2")
"""The headers of a response that requests follows or stores, or at least reads, whether it is to or not."""


def is_loopback(host: str) -> bool:
    """Return whether a host name or address is this machine, so that plain HTTP to it crosses no network."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class ExchangeFailed(OSError):
    """A failure of which this module knows what it means. The text has no secret."""

    def __init__(self, kind: type[CallError], problem: str) -> None:
        super().__init__(problem)
        self.kind = kind
        self.problem = problem


class Deadline:
    """The end of one exchange: its connection is shut down then, and no other is opened."""

    def __init__(self, seconds: float, since: float | None = None) -> None:
        # By the clock of the rate limits: a request must not be sent after its reservation, not even by a machine that
        # was suspended.
        self.seconds = seconds
        self.problem = f"no complete answer within {seconds:g} s"
        self._ends = (boottime() if since is None else since) + seconds
        self._connection: socket.socket | None = None
        self._lock = threading.Lock()
        self.passed = False

    def left(self) -> float:
        """Return the seconds until the deadline, 0.0 if it has passed."""
        return max(0.0, self._ends - boottime())

    def watch(self, connection: socket.socket | SSLTransport) -> None:
        """End this connection at the deadline.

        Raises:
            TimeoutError: The deadline has passed.
        """
        with self._lock:
            left = self.left()
            if self.passed or not left:
                self.passed = True
                raise TimeoutError
            # A TLS handshake takes the socket over, out of reach of `end`, but keeps to its time-out as a whole.
            connection.settimeout(left)
            # TLS within the TLS of a proxy is no socket, but goes over one.
            self._connection = connection.socket if isinstance(connection, SSLTransport) else connection

    def end(self) -> None:
        """Shut the exchange's connection down: a reader finds its end."""
        with self._lock:
            self.passed = True
            if self._connection:
                with contextlib.suppress(OSError):
                    # Not the TLS socket's own shutdown, which would remove the encryption while it is read.
                    socket.socket.shutdown(self._connection, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the exchange's connection, even if a response still refers to it.

        urllib3 loses the response if it refuses a header, and the connection would stay open until garbage collection.
        """
        with self._lock:
            if self._connection and (descriptor := socket.socket.detach(self._connection)) >= 0:
                os.close(descriptor)

    def meaning(self, error: Exception) -> tuple[type[CallError], str]:  # noqa: PLR0911  (a table, a row a case)
        """Return what an error of the network's libraries means for this exchange, and the problem in text."""
        known = next((each for each in _chain(error) if isinstance(each, ExchangeFailed)), None)
        match error:
            case _ if known:
                return known.kind, known.problem
            case _ if self.passed:
                return TimedOut, self.problem
            case _ if isinstance(error, _TLS_ERRORS) or isinstance(_innermost(error), ssl.SSLError):
                return TlsFailed, f"TLS failed: {_cause(error)}{_by_private_ca()}"
            case requests.exceptions.Timeout() | urllib3.exceptions.TimeoutError():
                return TimedOut, self.problem
            case requests.exceptions.ContentDecodingError() | urllib3.exceptions.DecodeError():
                return InvalidResponse, "the answer's compression is broken"
            case InvalidProxyURL():
                return ConnectionFailed, "the connection failed: the proxy's address has to be http://host:port"
            case requests.exceptions.InvalidSchema() | requests.exceptions.InvalidURL():
                # The texts of these repeat it, and a proxy's has a password in it.
                return ConnectionFailed, "the connection failed: the address of the proxy, or of the API, cannot be one"
            case _:
                return ConnectionFailed, f"the connection failed: {_cause(error)}"


_current = threading.local()


@contextlib.contextmanager
def deadline(seconds: float, since: float | None = None) -> Iterator[Deadline]:
    """Bound all exchanges of this thread in the context, from the connection to the response's last byte.

    Args:
        seconds: Until the end.
        since: Seconds of `boottime` from which they count; None for now.
    """
    bound = Deadline(seconds, since)
    timer = threading.Timer(bound.left(), bound.end)
    timer.daemon = True
    timer.start()
    _current.deadline = bound
    try:
        yield bound
    finally:
        _current.deadline = None
        timer.cancel()
        bound.close()


def _watch(connection: socket.socket | SSLTransport) -> None:
    """Let the deadline of this thread end the connection."""
    try:
        _bound().watch(connection)
    except TimeoutError as error:
        connection.close()
        raise ConnectTimeoutError("the connection took all the time there was") from error


def _bound() -> Deadline:
    """Return the deadline of this thread."""
    bound: Deadline = _current.deadline
    return bound


# Opening a connection


def _connect(host: str, port: int, bound: Deadline, *, is_proxy: bool) -> socket.socket:
    """Return a connection to the first address of a host that accepts one (Happy Eyeballs, RFC 8305).

    Args:
        host: Name or address.
        port: TCP port.
        bound: The deadline, before which each address gets its chance.
        is_proxy: The host is a proxy. Its name is not shown: with a `#` in a password, it may be a part of that.

    Raises:
        ExchangeFailed: There is no connection.
    """
    server = "the proxy" if is_proxy else host
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:  # the latter for a name that cannot be one
        name = "the proxy's name" if is_proxy else f"the name {host}"
        reason = getattr(error, "strerror", None) or "it is not a host name"
        raise ExchangeFailed(ConnectionFailed, f"{name} cannot be resolved: {reason}") from None
    addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
    to = f"{server} port {port}" if addresses == [host] else f"{server} ({_listed(addresses)}) port {port}"
    try:
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            return runner.run(_race(found, bound))
    except OSError as error:
        # Each address has its error, of which asyncio repeats the number.
        reasons = dict.fromkeys(os.strerror(int(number)) for number in re.findall(r"\[Errno (\d+)\]", str(error)))
        if not reasons:
            raise ExchangeFailed(TimedOut, f"no connection to {to} within {bound.seconds:g} s") from None
        raise ExchangeFailed(ConnectionFailed, f"no connection to {to}: {', '.join(reasons)}") from None


async def _race(found: list[Any], bound: Deadline) -> socket.socket:
    async with asyncio.timeout(bound.left()):
        return await start_connection(found, happy_eyeballs_delay=NEXT_ADDRESS_DELAY)


def _listed(addresses: list[str], most: int = 4) -> str:
    return ", ".join([*addresses[:most], *([f"{len(addresses) - most} more"] if len(addresses) > most else [])])


class _Bounded:
    """A connection that is opened once, and ends at the deadline of the thread that uses it."""

    sock: socket.socket

    def _new_conn(self) -> socket.socket:
        this: Any = self
        host = this._dns_host  # noqa: SLF001  (`host` has lost a dot at its end, which matters to the resolver)
        connection = _connect(host, this.port, _bound(), is_proxy=bool(this.proxy))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _watch(connection)
        return connection

    def _tunnel(self) -> None:
        """Ask a proxy for its connection to the other side, and wait for its response."""
        _watch(self.sock)
        super()._tunnel()  # type: ignore[misc]
        _watch(self.sock)

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        _watch(self.sock)

    def getresponse(self) -> Any:
        response = super().getresponse()  # type: ignore[misc]
        for header in _ACTED_UPON:
            response.headers.discard(header)
            del response._original_response.msg[header]  # noqa: SLF001  (requests takes cookies from there)
        return response


class _HTTPConnection(_Bounded, urllib3.connection.HTTPConnection):
    """Plain HTTP: to this machine alone, whatever its name resolves to."""

    def _new_conn(self) -> socket.socket:
        connection = super()._new_conn()
        if not is_loopback(connection.getpeername()[0]):
            connection.close()
            raise PermissionError(errno.EACCES, "plain HTTP is for this machine alone, and that is another")
        return connection


class _HTTPSConnection(_Bounded, urllib3.connection.HTTPSConnection):
    """TLS, with a context that is made once for all connections."""

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

    Loading a file of all public CAs takes some 15 ms of processor time, so the context is made again only when the
    file changes. OpenSSL reads a folder only as far as it is needed.

    Raises:
        ExchangeFailed: The certificates cannot be read.
    """
    try:
        status = Path(bundle).stat()
        if stat.S_ISREG(status.st_mode):
            return _made_context(bundle, (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns))
        reason = "they are neither in a file nor in a folder"  # opening a FIFO would wait for a writer
        if stat.S_ISDIR(status.st_mode):
            return _make_context(bundle)
    except OSError as error:  # ssl.SSLError is one
        reason = str(error.strerror)
    problem = f"the CA certificates in {safe_path(Path(bundle))} cannot be read: {reason}"
    raise ExchangeFailed(TlsFailed, f"TLS failed: {problem}")


@lru_cache(maxsize=1)
def _made_context(bundle: str, _version: tuple[int, ...]) -> ssl.SSLContext:
    return _make_context(bundle)


class _SharedContext(ssl.SSLContext):
    """A TLS context that connections of many threads use at once."""

    def set_alpn_protocols(self, alpn_protocols: Iterable[str]) -> None:
        """Do nothing: OpenSSL replaces the list in place, while another thread may be copying it."""


def _make_context(bundle: str) -> ssl.SSLContext:
    context = _SharedContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies certificates and host names
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False
    if sys.version_info >= (3, 13):  # as ssl.create_default_context
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VERIFY_X509_STRICT
    super(_SharedContext, context).set_alpn_protocols(["http/1.1"])
    folder = Path(bundle).is_dir()
    context.load_verify_locations(cafile=None if folder else bundle, capath=bundle if folder else None)
    return context


def _private_ca() -> str | None:
    """Return the CA certificates that the environment names, as requests and OpenSSL do."""
    names = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
    return next((os.environ[name] for name in names if os.environ.get(name)), None)


def _by_private_ca() -> str:
    """Return which CA certificates are trusted, if they are not those of requests."""
    bundle = _private_ca()
    return f", by the CA certificates in {safe_path(Path(bundle))}" if bundle else ""


# What requests needs


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
    """requests' adapter with such connections, through a proxy, too."""

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        url = str(request.url)
        if is_loopback(urlsplit(url).hostname or ""):
            # A proxy has no business between this process and a server on the same machine, least over plain HTTP.
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
        conn.ca_certs = _private_ca() or DEFAULT_CA_BUNDLE_PATH

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = _POOLS
        return manager


def session() -> requests.Session:
    """Return a session for all accounts. It stores nothing between calls.

    It does not retry (a retry would be a second call within 20 seconds) and stores no cookies (one account's would be
    sent with another's calls).
    """
    shared = requests.Session()
    shared.mount("https://", _Adapter(max_retries=0))
    shared.mount("http://", _Adapter(max_retries=0))
    shared.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    return shared


# What went wrong


def _chain(error: BaseException) -> list[BaseException]:
    """Return an error and those that libraries wrapped in it, innermost last."""
    chain: list[BaseException] = []
    todo: BaseException | None = error
    while todo is not None and todo not in chain:
        chain.append(todo)
        inner = next((arg for arg in todo.args if isinstance(arg, BaseException)), None)
        todo = getattr(todo, "reason", None) if isinstance(getattr(todo, "reason", None), BaseException) else None
        todo = todo or inner or chain[-1].__cause__ or chain[-1].__context__
    return chain


def _innermost(error: BaseException) -> BaseException:
    """Return the last of the wrapped errors that has a reason."""
    chain = _chain(error)
    return next((each for each in reversed(chain) if isinstance(each, OSError) and each.strerror), chain[-1])


def _cause(error: BaseException) -> str:
    """The innermost cause in plain text, without the objects and addresses in memory that libraries print."""
    cause = _innermost(error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return cause.verify_message
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    # A proxy's own text may repeat what it was sent.
    if refused := re.match("Tunnel connection failed: ([0-9]+)", str(cause)):
        status = int(refused[1])
        return f"the proxy says HTTP {status} {http.client.responses.get(status, '')}".rstrip()
    return type(cause).__name__
