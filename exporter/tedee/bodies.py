"""Response bodies and the limit of their total memory."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from .errors import InvalidResponse, TransportError

MAX_BODY_BYTES = 16 * 2**20
"""Limit of one decompressed body. A lock takes about 200 bytes in a sync and 1,200 in a page of details."""
MAX_TOTAL_BYTES = 48 * 2**20
"""Limit of all bodies that are being received or parsed. The process itself takes about 45 MiB."""
LARGE_BODY_BYTES = 2**16
"""Bodies over this size are parsed one at a time, since parsing can take 36 times the size of a body."""


class BodyTooLarge(TransportError):
    """A body exceeds the limit of one body, or is the largest when all bodies exceed the limit of the total."""

    def __init__(self, problem: str) -> None:
        super().__init__(InvalidResponse, problem)


class Bodies:
    """Limits the total memory of response bodies.

    If they exceed the limit, the largest is dropped and the others continue. A huge response of one account does not
    make the normal responses of others fail.
    """

    def __init__(self, max_bytes: int = MAX_TOTAL_BYTES) -> None:
        self.max_bytes = max_bytes
        self.lock = threading.Lock()
        """Held while sizes change."""
        self.large_body_lock = threading.Lock()
        """Held while a large body is parsed."""
        self._bodies: set[Body] = set()

    @contextmanager
    def body(self, max_bytes: int = MAX_BODY_BYTES) -> Iterator["Body"]:
        """Provide an empty body of limited size, whose memory is counted until the context ends."""
        body = Body(self, max_bytes)
        with self.lock:
            self._bodies.add(body)
        try:
            yield body
        finally:
            with self.lock:
                self._bodies.remove(body)
                body.content = bytearray()

    def drop_excess(self) -> None:
        """Drop the largest bodies that are not pinned until the rest is within the limit."""
        while sum(len(body.content) for body in self._bodies) > self.max_bytes:
            unpinned = [body for body in self._bodies if not body.is_pinned]
            if not unpinned:
                break
            max(unpinned, key=lambda body: len(body.content)).drop()


class Body:
    """The decompressed body of one response."""

    def __init__(self, bodies: Bodies, max_bytes: int) -> None:
        self.content = bytearray()
        self.is_pinned = False
        self._bodies = bodies
        self._max_bytes = max_bytes
        self._dropped: int | None = None

    def append(self, data: bytes) -> None:
        """Add received data.

        Raises:
            BodyTooLarge: The body exceeds a limit and was dropped.
        """
        with self._bodies.lock:
            self._check()
            self.content += data
            if len(self.content) > self._max_bytes:
                self.drop()
                raise BodyTooLarge(f"the response exceeds {self._max_bytes:,} bytes")
            self._bodies.drop_excess()
            self._check()

    @contextmanager
    def pinned(self) -> Iterator[None]:
        """Keep the complete body in memory until the context ends. A large body waits until no other one is pinned.

        Raises:
            BodyTooLarge: The body was dropped before.
        """
        with self._bodies.large_body_lock if len(self.content) > LARGE_BODY_BYTES else nullcontext():
            with self._bodies.lock:
                self._check()
                self.is_pinned = True
            yield

    def drop(self) -> None:
        """Free the memory of the body."""
        self._dropped = len(self.content)
        self.content = bytearray()

    def _check(self) -> None:
        if self._dropped is not None:
            raise BodyTooLarge(
                f"the response has over {self._dropped:,} bytes and was the largest when all responses together "
                f"exceeded {self._bodies.max_bytes:,} bytes"
            )


BODIES = Bodies()
"""The response bodies of this process."""
