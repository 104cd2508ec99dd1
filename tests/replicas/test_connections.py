"""Connections to the database that end at any moment: whether the last commit succeeded is then unknown."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import inf

import pytest

from testing.postgresql import PostgreSQL
from tests.tcp import tcp_server

from .conftest import DatabaseClock
from .test_limits import UNKNOWN, Replica

MESSAGES = 18
"""Number of messages from the database at most, until a call is reserved and its end recorded."""


class Proxy:
    """Ends its connections after a number of messages from the database, and refuses new ones."""

    def __init__(self, database: PostgreSQL) -> None:
        self._database = database
        self.messages_left = inf

    @contextmanager
    def serve(self) -> Iterator[str]:
        """Run the proxy, and return the URL of the database behind it."""
        with tcp_server(self._connect) as port:
            yield self._database.url.replace(str(self._database.port), str(port))

    def _connect(self, client: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", self._database.port)) as database:
            threading.Thread(target=self._send_requests, args=(client, database), daemon=True).start()
            while message := database.recv(65536):
                if self.messages_left <= 0:
                    break
                self.messages_left -= 1
                client.sendall(message)
            for each in (client, database):
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def _send_requests(self, client: socket.socket, database: socket.socket) -> None:
        with suppress(OSError):
            while request := client.recv(65536):
                database.sendall(request)


@pytest.mark.parametrize("messages", range(MESSAGES + 1))
def test_connection_that_ends_at_any_moment(database: PostgreSQL, clock: DatabaseClock, messages: int) -> None:
    proxy = Proxy(database)
    with proxy.serve() as url:
        first, second = Replica(database, clock, url), Replica(database, clock)
        clock.advance(UNKNOWN)
        proxy.messages_left = messages
        called = first.wait() == 0
        # The end of the call may not be recorded, but its begin is.
        wait = second.wait()
        assert wait in ({20, UNKNOWN} if called else {0, UNKNOWN})
        if messages == MESSAGES:
            assert (called, wait) == (True, 20)
        proxy.messages_left = inf
        clock.advance(UNKNOWN + 2.1)
        assert 0 in (first.wait(), first.wait())
