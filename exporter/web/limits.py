"""Limits for the clients of the web server."""

import resource
from dataclasses import dataclass

RESERVED_FILES = 128
"""File descriptors that are not available to clients. Most are for calls to Tedee, up to 32 at the same time."""
MIN_CONNECTIONS = 8
"""Connections that are always possible, however few files the process may open."""


@dataclass(frozen=True)
class Limits:
    """Limits for clients."""

    connections: int = 512
    """Number of connections. If a further client connects, the least recently served connection is closed."""
    request_bytes: int = 16 * 2**10
    """Size of a request, or of several that a client sends without waiting for responses. Requests have no body."""
    request_seconds: float = 10.0
    """From the connection or the first byte of a request to its last byte, including the TLS handshake."""
    response_seconds: float = 75.0
    """From a request until the client has read the whole response, and after that for an idle connection. It is longer
    than the common scrape intervals, so that scrapes reuse connections."""
    stall_seconds: float = 10.0
    """Time in which a client must read some of a pending response."""
    max_pending_bytes: int = 64 * 2**20
    """Total size of large bodies that clients are still reading, without the newest. A body is counted once for all
    clients that read it. If the limit is exceeded, the clients of the oldest body are disconnected."""
    sweep_seconds: float = 1.0
    """Interval at which overdue connections are closed."""

    @classmethod
    def of_this_process(cls) -> "Limits":
        """Return limits with connections for at most half of the files that this process may open."""
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if files == resource.RLIM_INFINITY:
            return cls()
        possible = min(files // 2, files - RESERVED_FILES)
        return cls(connections=min(cls.connections, max(MIN_CONNECTIONS, possible)))
