"""Deadlines that cover a whole call.

A time-out of `requests` applies to each read. A server that sends one byte now and then could hold a call for hours,
and the rate limiter would not know when it ends. Here the connection is shut down at the deadline, whatever the state
of the call.
"""

import contextlib
import os
import socket
import threading
from collections.abc import Iterator

from urllib3.util.ssltransport import SSLTransport

from exporter.clock import boottime


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


def current_deadline() -> Deadline:
    """Return the deadline of this thread."""
    deadline: Deadline = _thread_local.deadline
    return deadline
