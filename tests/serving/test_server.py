"""The web server: listen addresses, start and stop."""

import asyncio
import errno
import gc
import os
import socket
import sys
import time
from contextlib import ExitStack
from typing import Any

import pytest
import requests
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from exporter.clock import SystemClock
from exporter.web.connections import Connections
from exporter.web.limits import Limits
from exporter.web.listeners import BadAddress, CannotListen, is_socket_activated, listen, parse_address
from exporter.web.policy import SecurityPolicy
from exporter.web.server import WebServer
from testing.program import TIMEOUT

HOSTS = ("127.0.0.1", "127.0.0.1", "[::1]")


def test_sockets_disable_nagles_algorithm() -> None:
    (listening,) = listen(["127.0.0.1:0"])
    with listening as listener, socket.create_connection(listener.getsockname()) as client:
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert client


def test_stopped_server_is_not_alive() -> None:
    listeners = listen(["127.0.0.1:0"])
    connections = Connections(Limits(), SecurityPolicy)
    server = WebServer(lambda scope, receive, send: None, listeners, connections)  # type: ignore[arg-type, return-value]
    server.start()
    assert server.alive()
    server.stop()
    assert not server.alive()


class FloodedListener(socket.socket):
    """A listening socket on which a client connects each time that a connection is accepted, up to a maximum."""

    def __init__(self, listener: socket.socket, clients: int) -> None:
        super().__init__(fileno=listener.detach())
        self.max_clients = clients
        self.clients: list[socket.socket] = []

    def accept(self) -> tuple[socket.socket, Any]:
        if len(self.clients) < self.max_clients:
            self.clients.append(socket.create_connection(self.getsockname(), timeout=TIMEOUT))
        return super().accept()


def test_request_is_served_during_a_flood_without_uvloop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)  # importing it fails, as on PyPy, which has no uvloop
    (listening,) = listen(["127.0.0.1:0"])
    listener = FloodedListener(listening, clients=100)
    served: list[tuple[type, int]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        served.append((type(asyncio.get_running_loop()), len(listener.clients)))
        await PlainTextResponse("OK")(scope, receive, send)

    server = WebServer(app, [listener], Connections(Limits(), SecurityPolicy))
    with ExitStack() as stack:
        client = stack.enter_context(socket.create_connection(listener.getsockname(), timeout=TIMEOUT))
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        server.start()
        stack.callback(server.stop)
        assert client.recv(100).startswith(b"HTTP/1.1 200 OK")
    for each in listener.clients:
        each.close()
    ((loop, clients),) = served
    assert issubclass(loop, asyncio.SelectorEventLoop)
    assert clients < listener.max_clients, "the request was served after the flood"


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="only on Linux does a clock count suspended time")
def test_clock_counts_time_in_suspend() -> None:
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert before <= SystemClock().monotonic() <= time.clock_gettime(time.CLOCK_BOOTTIME)


# Addresses


@pytest.mark.parametrize(
    ("address", "families"),
    [
        (":0", {"127.0.0.1", "::1"}),
        ("[::]:0", {"127.0.0.1", "::1"}),
        ("[0:0::0]:0", {"127.0.0.1", "::1"}),
        ("0.0.0.0:0", {"127.0.0.1"}),
        ("127.0.0.1:0", {"127.0.0.1"}),
        ("localhost:0", {"127.0.0.1"}),
        ("[::ffff:127.0.0.1]:0", {"127.0.0.1"}),
        ("[::ffff:0.0.0.0]:0", {"127.0.0.1"}),
        ("[::1]:0", {"::1"}),
    ],
)
def test_address_is_reachable_by_its_families(address: str, families: set[str]) -> None:
    (listening,) = listen([address])
    with listening as listener:
        port = listener.getsockname()[1]
        assert {host for host in ("127.0.0.1", "::1") if is_reachable(host, port)} == families


def is_reachable(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=TIMEOUT).close()
    except ConnectionRefusedError:
        return False
    return True


@pytest.mark.parametrize("address", [":0", "[::]:0"])
def test_all_addresses_are_ipv4_without_ipv6(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    create_server = socket.create_server

    def without_ipv6(address: tuple[str, int], *, family: socket.AddressFamily, **options: Any) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
        return create_server(address, family=family, **options)

    monkeypatch.setattr(socket, "create_server", without_ipv6)
    (listening,) = listen([address])
    with listening as listener:
        assert is_reachable("127.0.0.1", listener.getsockname()[1])


def test_zone_of_a_link_local_address_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    bound: list[tuple[str | int, ...]] = []

    def create_server(address: tuple[str | int, ...], **_: object) -> socket.socket:
        bound.append(address)
        return socket.socket()

    monkeypatch.setattr(socket, "create_server", create_server)
    (listening,) = listen(["[fe80::1%lo]:10333"])
    listening.close()
    assert bound == [("fe80::1", 10333, 0, socket.if_nametoindex("lo"))]


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("[::1%lo]:1", "'::1%lo' has a zone, which only link-local addresses (fe80::) have"),
        ("[fe80::1]:1", "'fe80::1' is a link-local address without its zone, such as fe80::1%eth0"),
        ("[127.0.0.1]:1", "'127.0.0.1' is not an IPv6 address"),
        ("[localhost]:1", "'localhost' is not an IPv6 address"),
        ("[::1%]:1", "'::1%' is not an IPv6 address"),
    ],
)
def test_invalid_address_is_rejected(address: str, problem: str) -> None:
    with pytest.raises(BadAddress) as raised:
        parse_address(address)
    assert str(raised.value) == problem


def test_failed_address_is_named_and_others_are_closed(recwarn: pytest.WarningsRecorder) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(CannotListen) as raised:
            listen(["127.0.0.1:0", taken, "[::1]:0"])
    assert str(raised.value) == f"cannot listen on {taken}: Address already in use"
    gc.collect()
    assert not recwarn.list, "a socket was left open"


def test_every_address_serves_until_stop() -> None:
    listeners = listen(["127.0.0.1:0", "127.0.0.1:0", "[::1]:0"])
    urls = [f"http://{host}:{each.getsockname()[1]}/" for host, each in zip(HOSTS, listeners, strict=True)]
    server = WebServer(PlainTextResponse("OK"), listeners, Connections(Limits(), SecurityPolicy))
    server.start()
    assert [requests.get(url, timeout=TIMEOUT).text for url in urls] == ["OK"] * 3
    server.stop()
    assert not server.alive()
    for url in urls:
        with pytest.raises(requests.ConnectionError):
            requests.get(url, timeout=TIMEOUT)


def test_systemd_sockets_belong_to_one_process() -> None:
    assert is_socket_activated({"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())})
    assert not is_socket_activated({"LISTEN_FDS": "1", "LISTEN_PID": str(os.getppid())})
    assert not is_socket_activated({"LISTEN_PID": str(os.getpid())})
    assert not is_socket_activated({})
