"""Connections: no reuse, several addresses per host, error messages, deadlines and memory limits."""

import contextlib
import errno
import gc
import json
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NoReturn

import pytest

from exporter.clock import boottime
from exporter.secrets import Secret
from exporter.sync.counters import Counters
from exporter.tedee.bodies import LARGE_BODY_BYTES, Bodies
from exporter.tedee.client import TedeeClient
from exporter.tedee.connections import HTTPConnection
from exporter.tedee.credentials import personal_key
from exporter.tedee.endpoint import Endpoint
from exporter.tedee.errors import CallError, ConnectionFailed, InvalidResponse, TimedOut
from exporter.tedee.oauth import SCOPE
from exporter.tedee.oauth.token_endpoint import TokenEndpoint
from exporter.tedee.session import session
from testing.program import TIMEOUT
from tests.security.listeners import listening
from tests.tcp import tcp_server

SHARED = session("tedee-exporter/test")
"""Session that is shared as by all accounts of a process."""
PASSWORD = "the-password-of-the-proxy"


class UnlimitedRateLimiter:
    def acquire(self, endpoint: Endpoint, user: str) -> AbstractContextManager[float]:
        return nullcontext(boottime())


def client(url: str, *, key: str = "key-1", timeout: float = 5.0, **changes: Any) -> TedeeClient:
    defaults: dict[str, Any] = {"limiter": UnlimitedRateLimiter()}
    return TedeeClient(
        "home",
        url=url,
        version="v37",
        credentials=personal_key(Secret(key)),
        timeout=timeout,
        session=SHARED,
        observer=Counters("home"),
        **defaults | changes,
    )


def sync(url: str, timeout: float = 5.0) -> object:
    return client(url, timeout=timeout).sync().rows


def refresh(url: str, timeout: float = 5.0) -> object:
    endpoint = TokenEndpoint(
        "home",
        url=f"{url}/token",
        client_id="a-client",
        client_secret=None,
        scope=SCOPE,
        timeout=timeout,
        session=SHARED,
    )
    return endpoint.refresh(Secret("a-refresh-token"), "its file", lambda _: None).lifetime


Call = Callable[..., object]
both = pytest.mark.parametrize("call", [sync, refresh])
"""Run a test with a call of the API and with one of the token endpoint."""


@pytest.fixture(autouse=True)
def no_proxy_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def response(lock_id: int) -> bytes:
    result = [{"id": lock_id, "isConnected": True}]
    body = json.dumps({"result": result, "success": True, "errorMessages": [], "statusCode": 200}).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body


# One connection per call


@both
def test_connection_is_closed_after_call(call: Call) -> None:
    """The server would keep the connection open."""
    ended = threading.Semaphore(0)
    with listening() as server:
        get_request = server.finish_request

        def finish(request: Any, client_address: Any) -> None:
            get_request(request, client_address)
            ended.release()

        server.finish_request = finish  # type: ignore[method-assign]
        for _ in range(2):
            call(server.url("127.0.0.1"))
            assert ended.acquire(timeout=30)
    assert [each.headers["Connection"] for each in server.received] == ["close", "close"]


@both
def test_connection_is_closed_after_refused_header(call: Call) -> None:
    """urllib3 drops a response whose Content-Length it rejects."""
    closed = threading.Event()

    def respond(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        connection.recv(65536)
        closed.set()

    with tcp_server(respond) as port:
        with pytest.raises(CallError, match="InvalidHeader") as caught:
            call(f"http://127.0.0.1:{port}")
        assert closed.wait(TIMEOUT)
    assert caught.value.reason == "connection"  # the error refers to the response until here


def test_request_is_not_sent_long_after_reservation(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process may be stopped after the reservation, for longer than it is valid."""
    late = 0.0

    class Stopped:
        @contextlib.contextmanager
        def acquire(self, endpoint: Endpoint, user: str) -> Iterator[float]:
            nonlocal late
            reserved_at = boottime()
            late = 34.0
            yield reserved_at

    monkeypatch.setattr("exporter.tedee.deadline.boottime", lambda: boottime() + late)
    with listening() as server, pytest.raises(TimedOut):
        client(server.url("127.0.0.1"), limiter=Stopped()).sync()
    assert server.received == []


def test_request_is_not_sent_long_after_connecting(monkeypatch: pytest.MonkeyPatch) -> None:
    late = 0.0
    connect = HTTPConnection.connect

    def connect_and_stop(connection: HTTPConnection) -> None:
        nonlocal late
        connect(connection)
        late = 34.0

    monkeypatch.setattr(HTTPConnection, "connect", connect_and_stop)
    monkeypatch.setattr("exporter.tedee.deadline.boottime", lambda: boottime() + late)
    with listening() as server, pytest.raises(TimedOut):
        client(server.url("127.0.0.1"), limiter=UnlimitedRateLimiter()).sync()
    assert server.received == []


def test_late_response_reaches_no_other_account() -> None:
    """A gateway sends the response to the previous request of the connection."""

    def respond(connection: socket.socket) -> None:
        ids: list[int] = []
        while request := connection.recv(65536):
            ids.append(int(re.findall(rb"PersonalKey key-(\d+)", request)[0]))
            connection.sendall(response(ids[-2:][0]))

    with tcp_server(respond) as port:
        for number in (1, 2, 3):
            assert list(client(f"http://127.0.0.1:{port}", key=f"key-{number}").sync().rows) == [number]


# Hosts with several addresses


Addresses = list[tuple[str, int]]


@pytest.fixture
def resolve_to(monkeypatch: pytest.MonkeyPatch) -> Callable[[Addresses], None]:
    """Resolve every name to the given addresses."""

    def resolve_to(addresses: Addresses) -> None:
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **more: found)

    return resolve_to


@pytest.fixture
def unresponsive() -> Iterator[tuple[str, int]]:
    """An address that does not respond to a connection attempt, because its backlog is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()


@pytest.fixture
def closed() -> tuple[str, int]:
    """An address that refuses connections."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address: tuple[str, int] = free.getsockname()
    return address


@both
def test_unresponsive_first_address_is_skipped(
    call: Call, unresponsive: tuple[str, int], closed: tuple[str, int], resolve_to: Callable[[Addresses], None]
) -> None:
    with listening() as server:
        resolve_to([unresponsive, closed, unresponsive, ("127.0.0.1", server.port)])
        assert call("http://localhost:1")
    assert len(server.received) == 1


@both
def test_unresponsive_proxy_address_is_skipped(
    call: Call,
    unresponsive: tuple[str, int],
    resolve_to: Callable[[Addresses], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with listening(password="of-another-user") as proxy:
        resolve_to([unresponsive, ("127.0.0.1", proxy.port)])
        monkeypatch.setenv("HTTPS_PROXY", "http://proxy.test:1")
        with pytest.raises(ConnectionFailed, match="the proxy returned HTTP 407"):
            call("https://tedee.test")
    assert len(proxy.received) == 1


@both
def test_refusing_addresses_are_named(
    call: Call, closed: tuple[str, int], resolve_to: Callable[[Addresses], None]
) -> None:
    resolve_to([closed, ("127.0.0.3", closed[1]), ("255.255.255.255", 1)])
    with pytest.raises(ConnectionFailed) as caught:
        call("http://localhost:8080")
    assert caught.value.problem == (
        "no connection to localhost (127.0.0.1, 127.0.0.3, 255.255.255.255) port 8080: "
        "Connection refused, Network is unreachable"
    )


@both
def test_unresponsive_addresses_are_named(
    call: Call, unresponsive: tuple[str, int], resolve_to: Callable[[Addresses], None]
) -> None:
    resolve_to([unresponsive, ("127.0.0.1", unresponsive[1])])
    with pytest.raises(TimedOut) as caught:
        call("http://localhost:8080", 0.3)
    assert caught.value.problem == "no connection to localhost (127.0.0.1) port 8080 within 0.3 s"


@both
def test_too_many_open_files_are_a_failed_connection(
    closed: tuple[str, int], call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object) -> NoReturn:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(socket, "socketpair", fail)
    with pytest.raises(ConnectionFailed, match="Too many open files"):
        call(f"http://{closed[0]}:{closed[1]}")
    gc.collect()  # an exception of the collector fails the test


def test_list_of_addresses_is_shortened(closed: tuple[str, int], resolve_to: Callable[[Addresses], None]) -> None:
    resolve_to([(f"127.0.0.{number}", closed[1]) for number in range(1, 8)])
    with pytest.raises(ConnectionFailed, match=r"\(127\.0\.0\.1, 127\.0\.0\.2, 127\.0\.0\.3, 127\.0\.0\.4, 3 more\)"):
        sync("http://localhost")


@both
@pytest.mark.parametrize("host", ["tedee.invalid", "t" * 70 + ".test"])
def test_unresolvable_name_is_named(call: Call, host: str) -> None:
    with pytest.raises(ConnectionFailed, match=f"the name {host} cannot be resolved: "):
        call(f"https://{host}")


@both
@pytest.mark.parametrize("host", ["proxy.invalid", f'"http://user:{PASSWORD}@proxy.test"', f"{PASSWORD}@proxy.invalid"])
def test_unresolvable_proxy_is_named_as_proxy(call: Call, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://user:{PASSWORD}@{host}:3128")
    with pytest.raises(ConnectionFailed) as caught:
        call("https://tedee.test")
    assert "the proxy" in caught.value.problem
    assert PASSWORD not in caught.value.problem
    assert (
        host != "proxy.invalid"
        or "the name of the proxy in HTTPS_PROXY or ALL_PROXY cannot be resolved: " in caught.value.problem
    )


@both
def test_refusing_proxy_is_named_as_proxy(call: Call, closed: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://user:{PASSWORD}@localhost:{closed[1]}")
    with pytest.raises(ConnectionFailed) as caught:
        call("https://tedee.test")
    assert re.fullmatch(
        rf"no connection to the proxy \((::1, )?127\.0\.0\.1\) port {closed[1]}: Connection refused.*",
        caught.value.problem,
    )


# Memory limit


def test_huge_response_does_not_affect_normal_one() -> None:
    """The huge response has not ended, so that its memory is in use."""
    started, normal_is_done = threading.Event(), threading.Event()
    huge = 8 * LARGE_BODY_BYTES

    def respond(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % huge + b" " * (huge // 2))
        started.set()
        normal_is_done.wait(30)
        connection.sendall(b" " * (huge // 2))

    bodies = Bodies(max_bytes=huge // 2)
    failures: list[CallError] = []

    def sync_huge(url: str) -> None:
        try:
            client(url, timeout=60, bodies=bodies).sync()
        except CallError as error:
            failures.append(error)

    with tcp_server(respond) as port, listening() as server:
        thread = threading.Thread(target=sync_huge, args=(f"http://127.0.0.1:{port}",))
        thread.start()
        assert started.wait(30)
        assert list(client(server.url("127.0.0.1"), bodies=bodies).sync().rows) == [1]
        normal_is_done.set()
        thread.join(timeout=60)
    assert [type(each) for each in failures] == [InvalidResponse]
    assert "the largest when all responses together exceeded 262,144 bytes" in str(failures[0])
