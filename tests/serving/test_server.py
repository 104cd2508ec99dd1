"""Lost if these fail: a quick answer, and a process that notices that it serves no more."""

import socket
import time

import pytest

from exporter.clock import SystemClock
from exporter.web.configuration import Protection
from exporter.web.connections import Connections, Limits
from exporter.web.server import WebServer, listen


def test_an_answer_is_not_held_back_for_more_bytes() -> None:
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()) as client:
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert client


def test_a_server_whose_thread_has_ended_is_not_alive() -> None:
    listener = listen("127.0.0.1", 0)
    connections = Connections(Limits(), Protection)
    server = WebServer(lambda scope, receive, send: None, listener, connections)  # type: ignore[arg-type, return-value]
    server.start()
    assert server.alive()
    server.stop()
    assert not server.alive()


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="only Linux counts the time a machine is suspended")
def test_ages_count_the_time_a_machine_is_suspended() -> None:
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert before <= SystemClock().monotonic() <= time.clock_gettime(time.CLOCK_BOOTTIME)
