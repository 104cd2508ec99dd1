"""The connections to Tedee: pooled, never retried, and each exchange over at its deadline.

A time-out of `requests` is one for each read, so that whoever sends a byte now and then could hold a call for hours,
and the gate would not know when it ends. Here the connection is shut down when time is up, wherever the exchange is.
"""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from http import HTTPStatus
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
import urllib3.connection
import urllib3.connectionpool
from requests.adapters import HTTPAdapter
from urllib3.exceptions import ConnectTimeoutError

from .errors import CallError, ConnectionFailed, InvalidResponse, TimedOut, TlsFailed

NETWORK_ERRORS = (requests.RequestException, urllib3.exceptions.HTTPError, OSError)
"""Every way in which an exchange can fail for the libraries underneath."""


class Deadline:
    """The end of one exchange: then its connection is shut down, and no other is begun."""

    def __init__(self, seconds: float) -> None:
        self.problem = f"no complete answer within {seconds:g} s"
        self._ends = time.monotonic() + seconds
        self._connection: socket.socket | None = None
        self._lock = threading.Lock()
        self.passed = False

    def watch(self, connection: socket.socket) -> None:
        """Have the exchange go over this connection.

        Raises:
            TimeoutError: it is too late for that.
        """
        with self._lock:
            if self.passed or time.monotonic() >= self._ends:
                self.passed = True
                raise TimeoutError
            self._connection = connection

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
            case requests.exceptions.SSLError() | urllib3.exceptions.SSLError():
                return TlsFailed, f"TLS failed: {_cause(error)}"
            case requests.exceptions.Timeout() | urllib3.exceptions.TimeoutError():
                return TimedOut, self.problem
            case requests.exceptions.ContentDecodingError() | urllib3.exceptions.DecodeError():
                return InvalidResponse, "the answer's compression is broken"
            case requests.exceptions.InvalidSchema() | requests.exceptions.InvalidURL():
                # What is the matter with a proxy's address, or the endpoint's; the texts repeat neither.
                return ConnectionFailed, f"the connection failed: {error}"
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


class _Punctual:
    """A connection that sends no request after the deadline of the thread that uses it."""

    sock: socket.socket
    _spent = False

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
        bound: Deadline | None = getattr(_current, "deadline", None)
        if bound:
            try:
                bound.watch(self.sock)
            except TimeoutError as error:
                raise ConnectTimeoutError("the connection took all the time there was") from error
        super().putrequest(*args, **kwargs)  # type: ignore[misc]

    def getresponse(self) -> Any:
        response = super().getresponse()  # type: ignore[misc]
        self._spent = response.status != HTTPStatus.OK
        return response


class _HTTPConnection(_Punctual, urllib3.connection.HTTPConnection):
    pass


class _HTTPSConnection(_Punctual, urllib3.connection.HTTPSConnection):
    pass


class _HTTPPool(urllib3.connectionpool.HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(urllib3.connectionpool.HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


class _Adapter(HTTPAdapter):
    """requests' adapter with such connections, through a proxy, too."""

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


def _cause(error: BaseException) -> str:
    """The innermost cause in plain words, without the objects and addresses in memory that libraries print."""
    chain: list[BaseException] = []
    todo: BaseException | None = error
    while todo is not None and todo not in chain:
        chain.append(todo)
        inner = next((arg for arg in todo.args if isinstance(arg, BaseException)), None)
        todo = getattr(todo, "reason", None) if isinstance(getattr(todo, "reason", None), BaseException) else None
        todo = todo or inner or chain[-1].__cause__ or chain[-1].__context__
    for each in reversed(chain):
        if isinstance(each, ssl.SSLCertVerificationError):
            return each.verify_message
        if isinstance(each, OSError) and each.strerror:
            return each.strerror
    return type(chain[-1]).__name__
