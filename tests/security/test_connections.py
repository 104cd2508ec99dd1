# ruff: noqa: E501  (requests are on one line)
"""Limits of connections: time, size and number; invalid requests; TLS handshakes."""

import contextlib
import gc
import logging
import os
import re
import resource
import socket
import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import replace

import bcrypt
import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exporter.secrets import Secret
from exporter.web.configuration_file import load_web_configuration
from exporter.web.connections import WRITE_BUFFER
from exporter.web.limits import Limits
from exporter.web.policy import SecurityPolicy
from testing.program import TIMEOUT, eventually
from tests.security.serving import LIMITS, Server, read_all, serving, statuses
from tests.security.web_files import HASH, PAIR, WebFiles

GET = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
HEALTHY = b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def module_server() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture
def server(module_server: Server) -> Server:
    """A server without connections."""
    eventually(lambda: module_server.count() == 0, "the connections of the last test to be closed")
    return module_server


@pytest.fixture(autouse=True)
def no_traceback(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Check that nothing logs an error, and that asyncio logs no warning about writing to closed connections."""
    yield
    # `caplog.records` would have only the records of the teardown.
    records = caplog.get_records("setup") + caplog.get_records("call")
    assert [each.getMessage() for each in records if each.levelno >= logging.ERROR or each.name == "asyncio"] == []


# Time


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"G",
        b"GET /metrics HTTP/1.1\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-",
        b"POST /-/reload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chun",
    ],
)
def test_incomplete_request_is_timed_out(server: Server, sent: bytes) -> None:
    with server.open(sent) as client:
        assert read_all(client) == b""


def test_slowly_sent_request_is_timed_out(server: Server) -> None:
    with server.open(GET[:-4]) as client:
        stop = threading.Event()

        def drip() -> None:
            with contextlib.suppress(OSError):
                while not stop.wait(0.05):
                    client.sendall(b"\r\nX: y")

        dripping = threading.Thread(target=drip)
        dripping.start()
        assert read_all(client) == b""
        stop.set()
        dripping.join()


def test_incomplete_second_request_is_timed_out(server: Server) -> None:
    responses = server.exchange(GET + b"GET / HT")
    assert statuses(responses) == [200]


def test_idle_connection_is_reused_and_closed(server: Server) -> None:
    with server.open(HEALTHY) as client, client.makefile("rb") as responses:
        for request in (HEALTHY, b""):
            assert b"200 OK" in responses.readline()
            assert any(line.endswith(b"is healthy.\n") for line in responses)
            client.sendall(request)
        assert responses.read() == b""


def test_client_that_does_not_read_is_closed(server: Server) -> None:
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(server.address)
        client.sendall(GET)
        eventually(lambda: server.count() == 1, "the connection")
        eventually(lambda: server.count() == 0, "the connection to be closed")


def test_stalled_client_is_closed_before_response_timeout() -> None:
    with serving(replace(LIMITS, response_seconds=10 * TIMEOUT)) as server, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(server.address)
        client.sendall(GET * 8)
        eventually(lambda: server.count() == 1, "the connection")
        eventually(lambda: server.count() == 0, "the connection to be closed")


def test_slow_client_gets_whole_response() -> None:
    with serving(replace(LIMITS, response_seconds=10 * TIMEOUT)) as server, socket.socket() as client:
        client.settimeout(TIMEOUT)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WRITE_BUFFER // 2)
        client.connect(server.address)
        client.sendall(GET)
        response = b""
        while not response.endswith(b"\r\n\r\n"):
            response += client.recv(1)
        remaining = int(re.search(rb"content-length: (\d+)", response)[1])  # type: ignore[index]
        assert remaining > 10 * WRITE_BUFFER
        while remaining and (data := client.recv(min(remaining, WRITE_BUFFER // 4))):
            remaining -= len(data)
            time.sleep(server.connections.limits.stall_seconds / 100)
        assert remaining == 0


def test_client_that_reads_no_pipelined_response_is_closed(server: Server) -> None:
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(server.address)
        client.sendall(GET * 50)
        eventually(lambda: server.count() == 1, "the connection")
        eventually(lambda: server.count() == 0, "the connection to be closed")


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "secure"])
def test_memory_of_slow_clients_is_limited(tls: bool, web: WebFiles) -> None:
    context = web.client_context()
    policy = load_web_configuration(web.write(tls_server_config=PAIR)).security_policy if tls else None
    limits = replace(LIMITS, max_pending_bytes=2**20, response_seconds=10 * TIMEOUT, stall_seconds=10 * TIMEOUT)
    with serving(limits, policy) as server, contextlib.ExitStack() as stack:

        def reader() -> socket.socket:
            client = socket.socket()
            client.settimeout(TIMEOUT)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(server.address)
            if tls:
                client = context.wrap_socket(client, server_hostname="localhost")
            client.sendall(GET)
            assert client.recv(1) == b"H"
            return stack.enter_context(client)

        old = [reader() for _ in range(3)]
        assert server.count() == 3, "they share a response"
        server.registry.publish(replace(server.registry.statuses()[0], requests_remaining=5))
        server.exposition.render()
        reader()
        eventually(lambda: server.count() == 1, "the clients of the old response to be disconnected")
        for client in old:
            read_all(client)  # ends because the connection was closed


# Size


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /metrics HTTP/1.1\r\n" + b"X-Header: value\r\n" * 3000,
        b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 100_000,
        b"GET /" + b"x" * 100_000,
        b"x" * 100_000,
    ],
    ids=["many headers", "a long header", "a long path", "no HTTP"],
)
def test_oversized_request_is_rejected(server: Server, request_: bytes) -> None:
    with server.open() as client:
        with contextlib.suppress(ConnectionError):
            client.sendall(request_)
        assert statuses(read_all(client)) in ([413], [400], [])
    assert "lock_state{" in server.scrape()


def test_endless_headers_are_cut_off(server: Server) -> None:
    with server.open(b"GET /metrics HTTP/1.1\r\n") as client:
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 50 * 2**20:
                client.sendall(b"X-Endless: header\r\n" * 1000)
                sent += 19_000
        assert sent < 50 * 2**20, "it was not cut off"


@pytest.mark.parametrize("length", [b"Content-Length: 1000000000", b"Transfer-Encoding: chunked"])
def test_body_is_rejected_unread(server: Server, length: bytes) -> None:
    responses = server.exchange(b"POST /-/reload HTTP/1.1\r\nHost: x\r\n" + length + b"\r\n\r\n5\r\nhello\r\n")
    assert statuses(responses) == [413]


def test_expect_continue_is_rejected(server: Server) -> None:
    responses = server.exchange(
        b"POST /-/reload HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    )
    assert statuses(responses) == [413]


def test_pipelined_requests_are_served_in_order(server: Server) -> None:
    one, other = HEALTHY, b"GET /-/ready HTTP/1.1\r\nHost: x\r\n\r\n"
    with server.open((one + other) * 20) as client:
        responses = b""
        while responses.count(b"HTTP/1.1") < 40 or not responses.endswith(b"ready.\n"):
            responses += client.recv(2**16)
    assert re.findall(rb"is (healthy|ready)", responses) == [b"healthy", b"ready"] * 20


def test_thousands_of_pipelined_requests_are_cut_off(server: Server) -> None:
    with server.open() as client:
        with contextlib.suppress(ConnectionError):
            client.sendall(GET * 20_000)
        read_all(client)
    assert "lock_state{" in server.scrape()


def test_requests_are_limited_during_a_response(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = threading.Semaphore(0)
    monkeypatch.setattr(bcrypt, "checkpw", lambda _password, _hashed: not checks.acquire(timeout=TIMEOUT))
    burst = GET.replace(b"\r\n\r\n", b"\r\nAuthorization: Basic YWxpY2U6eA==\r\n\r\n") * 230
    assert len(burst) < LIMITS.request_bytes < 2 * len(burst)
    limits = replace(LIMITS, response_seconds=TIMEOUT, request_seconds=TIMEOUT)
    with serving(limits, SecurityPolicy(users={"alice": Secret(HASH)})) as server:
        with server.open(burst) as client:

            def is_cut_off() -> bool:
                checks.release()  # if the burst came in two parts, more is read only after another response
                return server.count() == 0 or client.recv(1, socket.MSG_PEEK) == b""

            checks.release()
            responses = client.recv(100)  # from now on more is read, although the other requests have no response yet
            client.sendall(burst)
            eventually(is_cut_off, "the connection to be cut off")
            responses += read_all(client)
        assert statuses(responses)[0] == 401
        assert len(statuses(responses)) < 230
        checks.release(500)
        eventually(lambda: not server.web._server.server_state.tasks, "the requests to end")


def test_requests_of_disconnected_client_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    checking, disconnected = threading.Event(), threading.Event()

    def slow(_password: bytes, _hashed: bytes) -> bool:
        checking.set()
        return disconnected.wait(TIMEOUT)

    monkeypatch.setattr(bcrypt, "checkpw", slow)
    request = GET.replace(b"\r\n\r\n", b"\r\nAuthorization: Basic YWxpY2U6eA==\r\n\r\n")
    with serving(policy=SecurityPolicy(users={"alice": Secret(HASH)})) as server:
        with server.open(request * 3):
            assert checking.wait(TIMEOUT)
        eventually(lambda: server.count() == 0, "the server to notice")
        disconnected.set()
        eventually(lambda: not server.web._server.server_state.tasks, "the requests to end")


def test_rest_of_a_response_is_discarded_if_tls_is_aborted(web: WebFiles) -> None:
    policy = load_web_configuration(web.write(tls_server_config=PAIR)).security_policy
    limits = replace(LIMITS, response_seconds=10 * TIMEOUT, stall_seconds=10 * TIMEOUT)
    context = web.client_context()
    with serving(limits, policy) as server, context.wrap_socket(server.open(), server_hostname="localhost") as client:
        client.sendall(GET)
        eventually(lambda: any(each.pending_body for each in server.connections._all), "the response to begin")
        (connection,) = server.connections._all
        eventually(lambda: connection.flow.write_paused, "the buffers to be full")

        def abort() -> None:
            connection.abort()
            connection.resume_writing()  # as if the client had just read some of the response

        connection.loop.call_soon_threadsafe(abort)
        eventually(lambda: not server.web._server.server_state.tasks, "the request to end")


@pytest.fixture
def without_garbage_collection() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("without_garbage_collection")
@pytest.mark.parametrize("sent", [HEALTHY, HEALTHY + GET[:9], GET * 50], ids=["idle", "incomplete", "pipelined"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "secure"])
def test_closed_connection_is_freed(web: WebFiles, tls: bool, sent: bytes) -> None:
    policy = load_web_configuration(web.write(tls_server_config=PAIR)).security_policy if tls else None
    limits = replace(LIMITS, request_seconds=TIMEOUT, response_seconds=10 * TIMEOUT, stall_seconds=10 * TIMEOUT)
    with serving(limits, policy) as server:
        client = server.open()
        if tls:
            client = web.client_context().wrap_socket(client, server_hostname="localhost")
        client.sendall(sent)
        assert client.recv(1) == b"H"
        (connection,) = map(weakref.ref, server.connections._all)
        client.close()  # with unread data, which resets the connection
        with server.open():  # because the server refers to the last connection that it accepted
            eventually(lambda: connection() is None, "the connection to be freed")


# Number of connections


def test_new_connection_evicts_least_recently_served() -> None:
    limits = replace(LIMITS, request_seconds=TIMEOUT, response_seconds=TIMEOUT)
    with serving(limits) as server, contextlib.ExitStack() as stack:
        served = stack.enter_context(requests.Session())
        stalled = [stack.enter_context(server.open(b"G")) for _ in range(LIMITS.connections - 1)]
        eventually(lambda: server.count() == LIMITS.connections - 1, "the connections")
        assert served.get(f"{server.url}/-/healthy", timeout=TIMEOUT).ok
        new = stack.enter_context(server.open(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n"))
        assert b"200 OK" in new.recv(4096)
        assert read_all(stalled[0]) == b"", "it was served least recently"
        assert served.get(f"{server.url}/-/healthy", timeout=TIMEOUT).ok
        assert server.count() == LIMITS.connections


@pytest.mark.parametrize(
    ("files", "connections"),
    [(32, 8), (136, 8), (160, 32), (256, 128), (1024, 512), (1_000_000, 512), (resource.RLIM_INFINITY, 512)],
)
def test_connections_leave_file_descriptors_for_syncs(
    monkeypatch: pytest.MonkeyPatch, files: int, connections: int
) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (files, files))
    assert Limits.of_this_process().connections == connections


# Invalid and unusual requests


@pytest.mark.parametrize(
    "request_",
    [
        b"\0" * 100,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 200,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET\r\n\r\n",
        b"get /metrics http/1.1\r\n\r\n",
        b"GET /metrics HTTP/9.9\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /%ff%fe%00 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http://[::1/metrics HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET metrics HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT evil.example:443 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"BREW /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"GET /metrics HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nTransfer-Encoding: chunked, identity\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nBad Header: x\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: a\r\nHost: b\r\nX:\x00\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    ],
    ids=range(19),
)
def test_invalid_request_gets_no_metrics(server: Server, request_: bytes) -> None:
    assert b"lock_state{" not in server.exchange(request_)
    assert "lock_state{" in server.scrape()


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept-Encoding: " + b"gzip;q=x," * 500 + b"\r\nConnection: close\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: " + b"application/openmetrics-text;" * 300 + b"\r\nConnection: close\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: \xff\xfe\r\nAccept-Encoding: \xff\r\nConnection: close\r\n\r\n",
        b"GET /metrics?" + b"a=%ff&" * 500 + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET /metrics HTTP/1.0\r\n\r\n",
        b"GET /metrics\r\n\r\n",
        b"GET http://evil.example/metrics HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\nHost: x\r\n\r\n",
    ],
    ids=range(8),
)  # fmt: skip
def test_unusual_valid_request_is_served(server: Server, request_: bytes) -> None:
    assert statuses(server.exchange(request_)) == [200]


@pytest.mark.parametrize(
    ("version", "hosts", "status"),
    [
        (b"1.1", [], 400),
        (b"1.1", [b"a"], 200),
        (b"1.1", [b""], 200),
        (b"1.1", [b"a", b"a"], 400),
        (b"1.1", [b"a", b"b"], 400),
        (b"1.0", [], 200),
        (b"1.0", [b"a"], 200),
        (b"1.0", [b"a", b"b"], 400),
    ],
)
def test_request_needs_exactly_one_host(server: Server, version: bytes, hosts: list[bytes], status: int) -> None:
    lines = [b"GET /-/healthy HTTP/" + version, *(b"Host: " + host for host in hosts), b"Connection: close", b"", b""]
    assert statuses(server.exchange(b"\r\n".join(lines))) == [status]


TOKENS = st.sampled_from(
    [b"GET", b"POST", b" ", b"/metrics", b"/-/reload", b"HTTP/1.1", b"\r\n", b"\r\n\r\n", b"Host: x", b"Content-Length: ",
     b"Transfer-Encoding: chunked", b"5", b"0", b"Connection: close", b"Upgrade: h2c", b"Expect: 100-continue", b":", b"\0"]
)  # fmt: skip


def test_server_survives_any_input(server: Server) -> None:
    @settings(max_examples=300, suppress_health_check=list(HealthCheck))
    @given(st.lists(TOKENS | st.binary(max_size=20), max_size=30).map(b"".join))
    def attack(sent: bytes) -> None:
        with server.open(sent) as client:
            client.shutdown(socket.SHUT_WR)
            read_all(client)

    attack()
    assert "lock_state{" in server.scrape()


# TLS


@pytest.fixture
def secured(web: WebFiles) -> Iterator[Server]:
    with serving(policy=load_web_configuration(web.write(tls_server_config=PAIR)).security_policy) as server:
        yield server


def scrape_secured(server: Server, web: WebFiles, **options: object) -> requests.Response:
    return requests.get(
        f"https://localhost:{server.address[1]}/metrics",
        verify=str(web.folder / "ca.pem"),
        timeout=TIMEOUT,
        **options,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    "sent", [b"", b"\x16\x03\x01", b"\x16" + os.urandom(2000)], ids=["nothing", "a few bytes", "noise"]
)
def test_incomplete_handshake_is_timed_out(secured: Server, web: WebFiles, sent: bytes) -> None:
    with secured.open(sent) as client:
        assert b"HTTP/" not in read_all(client)
    assert scrape_secured(secured, web).ok


def test_incomplete_handshakes_make_room_for_others(web: WebFiles) -> None:
    limits = replace(LIMITS, request_seconds=TIMEOUT)
    policy = load_web_configuration(web.write(tls_server_config=PAIR)).security_policy
    with serving(limits, policy) as server, contextlib.ExitStack() as stack:
        for _ in range(3 * LIMITS.connections):
            stack.enter_context(server.open(b"\x16\x03"))
        assert scrape_secured(server, web).ok
        assert server.count() <= LIMITS.connections
