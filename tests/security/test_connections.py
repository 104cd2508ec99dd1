# ruff: noqa: E501  (requests are whole)
"""Lost if these fail: scrapes that are answered while somebody does what they can to have it otherwise."""

import contextlib
import logging
import os
import re
import resource
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import bcrypt
import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exporter.secrets import Secret
from exporter.web.configuration import SecurityPolicy, load
from exporter.web.connections import WAITING_BYTES, Limits
from tests.program import TIMEOUT, eventually
from tests.security.serving import LIMITS, Server, everything, serving, statuses
from tests.security.web_files import HASH, PAIR, WebFiles

GET = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def module_server() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture
def server(module_server: Server) -> Server:
    """A server without connections."""
    eventually(lambda: module_server.count() == 0, "the end of the last test's connections")
    return module_server


@pytest.fixture(autouse=True)
def no_traceback(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


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
def test_a_request_that_does_not_end_is_ended(server: Server, sent: bytes) -> None:
    with server.open(sent) as client:
        assert everything(client) == b""


def test_dripping_does_not_help(server: Server) -> None:
    with server.open(GET[:-4]) as client:
        stop = threading.Event()

        def drip() -> None:
            with contextlib.suppress(OSError):
                while not stop.wait(0.05):
                    client.sendall(b"\r\nX: y")

        dripping = threading.Thread(target=drip)
        dripping.start()
        assert everything(client) == b""
        stop.set()
        dripping.join()


def test_a_second_request_that_does_not_end_is_ended_too(server: Server) -> None:
    answers = server.exchange(GET + b"GET / HT")
    assert statuses(answers) == [200]


def test_an_idle_connection_is_used_again_and_ended_some_time(server: Server) -> None:
    with server.open(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n") as client:
        assert b"200 OK" in client.recv(4096)
        client.sendall(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200 OK" in client.recv(4096)
        assert everything(client) == b""


def test_who_does_not_take_the_answer_is_ended(server: Server) -> None:
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(server.address)
        client.sendall(GET)
        eventually(lambda: server.count() == 1, "the connection")
        eventually(lambda: server.count() == 0, "its end")


def test_who_takes_nothing_for_a_while_is_not_waited_for_until_the_answers_time_is_up() -> None:
    with serving(replace(LIMITS, answer_seconds=10 * TIMEOUT)) as server, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(server.address)
        client.sendall(GET * 8)
        eventually(lambda: server.count() == 1, "the connection")
        eventually(lambda: server.count() == 0, "its end")


def test_who_takes_the_answer_slowly_gets_all_of_it() -> None:
    with serving(replace(LIMITS, answer_seconds=10 * TIMEOUT)) as server, socket.socket() as client:
        client.settimeout(TIMEOUT)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WAITING_BYTES // 2)
        client.connect(server.address)
        client.sendall(GET)
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += client.recv(1)
        rest = int(re.search(rb"content-length: (\d+)", answer)[1])  # type: ignore[index]
        assert rest > 10 * WAITING_BYTES
        while rest and (chunk := client.recv(min(rest, WAITING_BYTES // 4))):
            rest -= len(chunk)
            time.sleep(server.connections.limits.stall_seconds / 100)
        assert rest == 0


def test_who_takes_none_of_many_answers_is_ended(server: Server) -> None:
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(server.address)
        client.sendall(GET * 50)
        eventually(lambda: server.count() == 1, "the connection")
        eventually(lambda: server.count() == 0, "its end")


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "secure"])
def test_of_answers_that_are_taken_slowly_only_so_much_is_kept(tls: bool, web: WebFiles) -> None:
    context = ssl.create_default_context()
    web.ca.configure_trust(context)
    policy = load(web.write(tls_server_config=PAIR)).policy if tls else None
    patient = replace(LIMITS, max_pending_bytes=2**20, answer_seconds=10 * TIMEOUT, stall_seconds=10 * TIMEOUT)
    with serving(patient, policy) as server, contextlib.ExitStack() as stack:

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
        assert server.count() == 3, "they share an answer"
        server.registry.publish(replace(server.registry.statuses()[0], requests_remaining=5))
        server.exposition.refresh()
        reader()
        eventually(lambda: server.count() == 1, "the end of those who keep the old answer")
        for client in old:
            everything(client)  # it ends


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
def test_a_request_that_is_too_large_is_refused(server: Server, request_: bytes) -> None:
    with server.open() as client:
        with contextlib.suppress(ConnectionError):
            client.sendall(request_)
        assert statuses(everything(client)) in ([413], [400], [])
    assert "lock_state{" in server.scrape()


def test_headers_without_end_cost_no_memory(server: Server) -> None:
    with server.open(b"GET /metrics HTTP/1.1\r\n") as client:
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 50 * 2**20:
                client.sendall(b"X-Endless: header\r\n" * 1000)
                sent += 19_000
        assert sent < 50 * 2**20, "it was cut off"


@pytest.mark.parametrize("length", [b"Content-Length: 1000000000", b"Transfer-Encoding: chunked"])
def test_a_body_is_not_waited_for(server: Server, length: bytes) -> None:
    answers = server.exchange(b"POST /-/reload HTTP/1.1\r\nHost: x\r\n" + length + b"\r\n\r\n5\r\nhello\r\n")
    assert statuses(answers) == [413]


def test_nobody_is_asked_to_go_on_with_a_body(server: Server) -> None:
    answers = server.exchange(
        b"POST /-/reload HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    )
    assert statuses(answers) == [413]


def test_pipelined_requests_are_answered_in_their_order(server: Server) -> None:
    one, other = b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /-/ready HTTP/1.1\r\nHost: x\r\n\r\n"
    with server.open((one + other) * 20) as client:
        answers = b""
        while answers.count(b"HTTP/1.1") < 40 or not answers.endswith(b"ready.\n"):
            answers += client.recv(2**16)
    assert re.findall(rb"is (healthy|ready)", answers) == [b"healthy", b"ready"] * 20


def test_requests_by_the_thousand_in_one_go_are_cut_off(server: Server) -> None:
    with server.open() as client:
        with contextlib.suppress(ConnectionError):
            client.sendall(GET * 20_000)
        everything(client)
    assert "lock_state{" in server.scrape()


def test_requests_do_not_pile_up_behind_those_that_are_being_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = threading.Semaphore(0)
    monkeypatch.setattr(bcrypt, "checkpw", lambda _password, _hashed: not turns.acquire(timeout=TIMEOUT))
    burst = GET.replace(b"\r\n\r\n", b"\r\nAuthorization: Basic YWxpY2U6eA==\r\n\r\n") * 230
    assert len(burst) < LIMITS.request_bytes < 2 * len(burst)
    patient = replace(LIMITS, answer_seconds=TIMEOUT, request_seconds=TIMEOUT)
    with serving(patient, SecurityPolicy(users={"alice": Secret(HASH)})) as server:
        with server.open(burst) as client:

            def is_cut_off() -> bool:
                turns.release()  # if the burst came in two parts, more is read only after another response
                return server.count() == 0 or client.recv(1, socket.MSG_PEEK) == b""

            turns.release()
            answers = client.recv(100)  # from here on more is read, although the others are not answered yet
            client.sendall(burst)
            eventually(is_cut_off, "it to be cut off")
            answers += everything(client)
        assert statuses(answers)[0] == 401
        assert len(statuses(answers)) < 230
        turns.release(500)
        eventually(lambda: not server.web._server.server_state.tasks, "the requests to come to their end")


def test_who_leaves_while_several_of_his_requests_wait_is_not_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    checking, gone = threading.Event(), threading.Event()

    def slow(_password: bytes, _hashed: bytes) -> bool:
        checking.set()
        return gone.wait(TIMEOUT)

    monkeypatch.setattr(bcrypt, "checkpw", slow)
    request = GET.replace(b"\r\n\r\n", b"\r\nAuthorization: Basic YWxpY2U6eA==\r\n\r\n")
    with serving(policy=SecurityPolicy(users={"alice": Secret(HASH)})) as server:
        with server.open(request * 3):
            assert checking.wait(TIMEOUT)
        eventually(lambda: server.count() == 0, "the exporter to notice")
        gone.set()
        eventually(lambda: not server.web._server.server_state.tasks, "the requests to come to their end")


# Number


def test_a_new_connection_takes_the_place_of_the_one_that_was_served_longest_ago() -> None:
    patient = replace(LIMITS, request_seconds=TIMEOUT, answer_seconds=TIMEOUT)
    with serving(patient) as server, contextlib.ExitStack() as stack:
        served = stack.enter_context(requests.Session())
        stalled = [stack.enter_context(server.open(b"G")) for _ in range(LIMITS.connections - 1)]
        eventually(lambda: server.count() == LIMITS.connections - 1, "the connections")
        assert served.get(f"{server.url}/-/healthy", timeout=TIMEOUT).ok
        newcomer = stack.enter_context(server.open(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n"))
        assert b"200 OK" in newcomer.recv(4096)
        assert everything(stalled[0]) == b"", "it had waited longest"
        assert served.get(f"{server.url}/-/healthy", timeout=TIMEOUT).ok
        assert server.count() == LIMITS.connections


@pytest.mark.parametrize(
    ("files", "connections"),
    [(32, 8), (136, 8), (160, 32), (256, 128), (1024, 512), (1_000_000, 512), (resource.RLIM_INFINITY, 512)],
)
def test_connections_leave_files_to_the_syncs(monkeypatch: pytest.MonkeyPatch, files: int, connections: int) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (files, files))
    assert Limits.of_this_process().connections == connections


# Nonsense


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
def test_what_is_no_request_gets_no_metrics_and_does_no_harm(server: Server, request_: bytes) -> None:
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
def test_odd_requests_that_are_requests_are_answered(server: Server, request_: bytes) -> None:
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


PIECES = st.sampled_from(
    [b"GET", b"POST", b" ", b"/metrics", b"/-/reload", b"HTTP/1.1", b"\r\n", b"\r\n\r\n", b"Host: x", b"Content-Length: ",
     b"Transfer-Encoding: chunked", b"5", b"0", b"Connection: close", b"Upgrade: h2c", b"Expect: 100-continue", b":", b"\0"]
)  # fmt: skip


def test_nothing_that_can_be_sent_stops_it(server: Server) -> None:
    @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(PIECES | st.binary(max_size=20), max_size=30).map(b"".join))
    def attack(sent: bytes) -> None:
        with server.open(sent) as client:
            client.shutdown(socket.SHUT_WR)
            everything(client)

    attack()
    assert "lock_state{" in server.scrape()


# TLS


@pytest.fixture
def secured(web: WebFiles) -> Iterator[Server]:
    with serving(policy=load(web.write(tls_server_config=PAIR)).policy) as server:
        yield server


def scrape_secured(server: Server, web: WebFiles, **options: object) -> requests.Response:
    return requests.get(
        f"https://localhost:{server.address[1]}/metrics",
        verify=str(web.folder / "ca.pem"),
        timeout=TIMEOUT,
        **options,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01", b"\x16" + os.urandom(2000)], ids=["nothing", "a bit", "noise"])
def test_a_handshake_that_does_not_end_is_ended(secured: Server, web: WebFiles, sent: bytes) -> None:
    with secured.open(sent) as client:
        assert b"HTTP/" not in everything(client)
    assert scrape_secured(secured, web).ok


def test_handshakes_that_do_not_end_make_room_for_others(web: WebFiles) -> None:
    patient = replace(LIMITS, request_seconds=TIMEOUT)
    policy = load(web.write(tls_server_config=PAIR)).policy
    with serving(patient, policy) as server, contextlib.ExitStack() as stack:
        for _ in range(3 * LIMITS.connections):
            stack.enter_context(server.open(b"\x16\x03"))
        assert scrape_secured(server, web).ok
        assert server.count() <= LIMITS.connections
