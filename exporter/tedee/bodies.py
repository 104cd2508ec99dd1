"""Response bodies, which share one budget of memory."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

MAX_BODY_BYTES = 16 * 2**20
"""Size of a decompressed body. A lock takes some 200 bytes in a sync and 1,200 in a page of details."""
MAX_BYTES_TOGETHER = 64 * 2**20
"""Size of all bodies that are being received or read. The process itself takes some 60 MiB."""
LARGE = 2**16
"""Bytes from which on bodies are read one at a time: while it is read, a body can take 36 times its size."""


class BodyTooLarge(Exception):
    """A body exceeds its own limit, or is the largest of those that together exceed theirs."""


class Bodies:
    """Limits the memory of all response bodies together.

    If they exceed the limit, the largest is dropped and the others continue: a huge response of one account does not
    fail the normal responses of others.
    """

    def __init__(self, max_bytes: int = MAX_BYTES_TOGETHER) -> None:
        """Create a budget without bodies.

        Args:
            max_bytes: size of all bodies together.
        """
        self.max_bytes = max_bytes
        self.lock = threading.Lock()
        """StoredToken while sizes change."""
        self.large_reader = threading.Lock()
        """StoredToken while a large body is read."""
        self._bodies: set[Body] = set()

    @contextmanager
    def body(self) -> Iterator["Body"]:
        """Provide an empty body, whose memory counts until the context ends."""
        body = Body(self)
        with self.lock:
            self._bodies.add(body)
        try:
            yield body
        finally:
            with self.lock:
                self._bodies.remove(body)

    def drop_excess(self) -> None:
        """Drop the largest bodies that nothing reads yet until the others are within the limit."""
        while sum(len(body.content) for body in self._bodies) > self.max_bytes:
            unread = [body for body in self._bodies if not body.is_being_read]
            if not unread:
                break
            max(unread, key=lambda body: len(body.content)).drop()


class Body:
    """The decompressed body of one response."""

    def __init__(self, bodies: Bodies) -> None:
        self.content = bytearray()
        self.is_being_read = False
        self._bodies = bodies
        self._dropped: int | None = None

    def append(self, data: bytes) -> None:
        """Add received data.

        Raises:
            BodyTooLarge: The body exceeds a limit and was dropped.
        """
        with self._bodies.lock:
            self._check()
            self.content += data
            if len(self.content) > MAX_BODY_BYTES:
                self.drop()
                raise BodyTooLarge(f"a response of over {MAX_BODY_BYTES:,} bytes")
            self._bodies.drop_excess()
            self._check()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Enclose the reading of the complete body, during which it is not dropped.

        Raises:
            BodyTooLarge: The body was dropped.
        """
        with self._bodies.large_reader if len(self.content) > LARGE else nullcontext():
            with self._bodies.lock:
                self._check()
                self.is_being_read = True
            yield

    def drop(self) -> None:
        """Free the memory of the body."""
        self._dropped = len(self.content)
        self.content = bytearray()

    def _check(self) -> None:
        if self._dropped is not None:
            raise BodyTooLarge(
                f"a response of over {self._dropped:,} bytes, the largest when all responses being received "
                f"took more than {self._bodies.max_bytes:,} bytes"
            )


BODIES = Bodies()
"""The bodies of this process."""
