"""The connections to Tedee: pooled, never retried nor redirected, and each exchange over at its deadline.

A time-out of `requests` is one for each read, so that whoever sends a byte now and then could hold a call for hours,
and the gate would not know when it ends. Here the connection is shut down when time is up, wherever the exchange is.
"""

import contextlib
import errno
import http.client
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from http import HTTPStatus
from http.cookiejar import DefaultCookiePolicy
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3.connection
import urllib3.connectionpool
from requests.adapters import HTTPAdapter
from requests.exceptions import InvalidProxyURL
from requests.utils import select_proxy
from urllib3.exceptions import ConnectTimeoutError
from urllib3.util.ssltransport import SSLTransport

from .errors import CallError, ConnectionFailed, InvalidResponse, TimedOut, TlsFailed

NETWORK_ERRORS = (requests.RequestException, urllib3.exceptions.HTTPError, OSError)
"""Every way in which an exchange can fail for the libraries underneath.

Whoever catches one lets nothing of it out but its `Deadline.meaning`: it carries the request, with the key in it, and
some repeat a proxy's address, with the password in it.
"""
_TLS_ERRORS = (requests.exceptions.SSLError, urllib3.exceptions.SSLError)
_ACTED_UPON = ("Location", "Set-Cookie", "Set-Cookie2")
"""The headers of an answer that requests follows or keeps, or at least reads, whether it is to or not."""


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine, so that plain HTTP to it crosses no network."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Deadline:
    """The end of one exchange: then its connection is shut down, and no other is begun."""

    def __init__(self, seconds: float) -> None:
        self.problem = f"no complete answer within {seconds:g} s"
        self._ends = time.monotonic() + seconds
        self._connection: socket.socket | None = None
        self._lock = threading.Lock()
        self.passed = False

    def watch(self, connection: socket.socket | SSLTransport) -> None:
        """Have the exchange go over this connection.

        Raises:
            TimeoutError: it is too late for that.
        """
        with self._lock:
            left = self._ends - time.monotonic()
            if self.passed or left <= 0:
                self.passed = True
                raise TimeoutError
            # A TLS handshake takes the socket over, out of reach of `end`, but keeps to its time-out as a whole.
            connection.settimeout(left)
            # TLS within the TLS of a proxy is no socket, but goes over one.
            self._connection = connection.socket if isinstance(connection, SSLTransport) else connection

    def end(self) -> None:
        """Shut the exchange's connection down: whoever reads from it finds its end."""
        with self._lock:
            self.passed = True
            if self._connection:
                with contextlib.suppress(OSError):
                    # Not the TLS socket's own shutdown, which takes the encryption away under whoever reads.
                    socket.socket.shutdown(self._connection, socket.SHUT_RDWR)

    def meaning(self, error: Exception) -> tuple[type[CallError], str]:  # noqa: PLR0911  (a table, a row a case)
        """What an error of the network's libraries means for this exchange, and the problem in words."""
        match error:
            case _ if self.passed:
                return TimedOut, self.problem
            case _ if isinstance(error, _TLS_ERRORS) or isinstance(_innermost(error), ssl.SSLError):
                return TlsFailed, f"TLS failed: {_cause(error)}{_by_whom()}"
            case requests.exceptions.Timeout() | urllib3.exceptions.TimeoutError():
                return TimedOut, self.problem
            case requests.exceptions.ContentDecodingError() | urllib3.exceptions.DecodeError():
                return InvalidResponse, "the answer's compression is broken"
            case InvalidProxyURL():
                return ConnectionFailed, "the connection failed: the proxy's address has to be http://host:port"
            case requests.exceptions.InvalidSchema() | requests.exceptions.InvalidURL():
                # The texts of these repeat it, and a proxy's has a password in it.
                return ConnectionFailed, "the connection failed: the address of the proxy, or of the API, cannot be one"
            case OSError() if not isinstance(error, requests.RequestException) and "certificate" in str(error):
                return TlsFailed, f"TLS failed: {error}"
            case _:
                return ConnectionFailed, f"the connection failed: {_cause(error)}"


_current = threading.local()


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[Deadline]:
    """Bound all that this thread exchanges within, from the connection to the answer's last byte."""
    bound = Deadline(seconds)
    timer = threading.Timer(seconds, bound.end)
    timer.daemon = True
    timer.start()
    _current.deadline = bound
    try:
        yield bound
    finally:
        _current.deadline = None
        timer.cancel()


def _watch(connection: socket.socket | SSLTransport) -> None:
    """Let the deadline of this thread end the connection."""
    bound: Deadline | None = getattr(_current, "deadline", None)
    if bound:
        try:
            bound.watch(connection)
        except TimeoutError as error:
            connection.close()
            raise ConnectTimeoutError("the connection took all the time there was") from error


class _Punctual:
    """A connection that is over at the deadline of the thread that uses it."""

    sock: socket.socket
    _spent = False

    def _new_conn(self) -> socket.socket:
        connection: socket.socket = super()._new_conn()  # type: ignore[misc]
        _watch(connection)
        return connection

    def _tunnel(self) -> None:
        """Ask a proxy for its connection to the other side, and wait for its answer."""
        _watch(self.sock)
        super()._tunnel()  # type: ignore[misc]
        _watch(self.sock)

    @property
    def is_connected(self) -> bool:
        """Whether the pool may use it again: after a good answer, and after nothing else.

        After an interim answer (103 Early Hints, say) the real one is still to come, and whoever called next over
        this connection, another account perhaps, would take it for theirs.
        """
        return not self._spent and bool(super().is_connected)  # type: ignore[misc]

    def putrequest(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is None:
            self.connect()
        self._spent = True
        _watch(self.sock)
        super().putrequest(*args, **kwargs)  # type: ignore[misc]

    def getresponse(self) -> Any:
        response = super().getresponse()  # type: ignore[misc]
        self._spent = response.status != HTTPStatus.OK
        for header in _ACTED_UPON:
            response.headers.discard(header)
            del response._original_response.msg[header]  # noqa: SLF001  (requests takes cookies from there)
        return response


class _HTTPConnection(_Punctual, urllib3.connection.HTTPConnection):
    """Plain HTTP: to this machine alone, whatever its name resolves to."""

    def _new_conn(self) -> socket.socket:
        connection = super()._new_conn()
        if not is_loopback(connection.getpeername()[0]):
            connection.close()
            raise PermissionError(errno.EACCES, "plain HTTP is for this machine alone, and that is another")
        return connection


class _HTTPSConnection(_Punctual, urllib3.connection.HTTPSConnection):
    pass


class _HTTPPool(urllib3.connectionpool.HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(urllib3.connectionpool.HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


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

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = _POOLS
        return manager


_POOLS = {"http": _HTTPPool, "https": _HTTPSPool}


def session(pool_size: int) -> requests.Session:
    """The one session that all accounts share: connections are pooled, nothing else is kept between calls.

    It never retries (a retry would be a second call within 20 seconds) and stores no cookies (one account's
    would travel with another's calls).
    """
    shared = requests.Session()
    adapter = _Adapter(pool_connections=4, pool_maxsize=pool_size, max_retries=0)
    shared.mount("https://", adapter)
    shared.mount("http://", adapter)
    shared.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    return shared


def _by_whom() -> str:
    """Whose word counts for whom to trust, where it is not that of the authorities that requests brings along."""
    bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
    return f", by the CA certificates in {bundle}" if bundle else ""


def _innermost(error: BaseException) -> BaseException:
    """What libraries wrapped, up to the last that says something."""
    chain: list[BaseException] = []
    todo: BaseException | None = error
    while todo is not None and todo not in chain:
        chain.append(todo)
        inner = next((arg for arg in todo.args if isinstance(arg, BaseException)), None)
        todo = getattr(todo, "reason", None) if isinstance(getattr(todo, "reason", None), BaseException) else None
        todo = todo or inner or chain[-1].__cause__ or chain[-1].__context__
    return next((each for each in reversed(chain) if isinstance(each, OSError) and each.strerror), chain[-1])


def _cause(error: BaseException) -> str:
    """The innermost cause in plain words, without the objects and addresses in memory that libraries print."""
    cause = _innermost(error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return cause.verify_message
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    # A proxy's own words may repeat what it was sent.
    if refused := re.match("Tunnel connection failed: ([0-9]+)", str(cause)):
        status = int(refused[1])
        return f"the proxy says HTTP {status} {http.client.responses.get(status, '')}".rstrip()
    return type(cause).__name__
