"""Standard output and standard error, which may be blocked, closed, full, or unable to encode a character."""

import io
import sys
import threading
from collections import deque
from typing import NamedTuple, TextIO

import structlog

log = structlog.get_logger(__name__)

MAX_PENDING = 2**20
"""Characters that may wait to be written before further log lines are dropped: some 5,000 lines."""


class _Text(NamedTuple):
    stream: TextIO
    text: str
    is_log_line: bool


class Output:
    """A queue of text and the one thread that writes it, in the order in which it came.

    A pipe without a reader, or a terminal stopped with Ctrl+S, blocks only that thread.
    """

    def __init__(self, max_pending: int = MAX_PENDING) -> None:
        self.dropped_lines = 0
        """Log lines that were not written, since the start."""
        self.failed: set[TextIO | None] = set()
        """Streams that did not take all of what was not a log line. None is a stream closed before the start."""
        self._max_pending = max_pending
        self._pending: deque[_Text] = deque()
        self._size = 0
        self._unreported = 0
        self._lock = threading.RLock()
        self._filled = threading.Condition(self._lock)
        self._written = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None

    def put(self, stream: TextIO | None, text: str, *, is_log_line: bool = False) -> None:
        """Queue text without waiting. A log line is dropped if too much text waits already."""
        with self._lock:
            if stream is None or (is_log_line and self._size + len(text) > self._max_pending):
                self._lose(stream, is_log_line=is_log_line)
                return
            self._pending.append(_Text(stream, text, is_log_line))
            self._size += len(text)
            self._filled.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="output", daemon=True)
                self._thread.start()

    def flush(self, stall: float | None = None) -> bool:
        """Wait until everything is written.

        Args:
            stall: seconds without progress after which to give up; None to wait as long as it takes.

        Returns:
            False if it was given up.
        """
        with self._lock:
            while self._pending:
                if not self._written.wait(stall):
                    return False
        return True

    def _run(self) -> None:
        while True:
            with self._lock:
                self._filled.wait_for(lambda: self._pending)
                stream, text, is_log_line = self._pending[0]
            try:
                stream.write(text)
                stream.flush()
                written = True
            except (OSError, ValueError):  # the latter if the stream is closed
                written = False
            dropped = 0
            with self._lock:
                self._pending.popleft()
                self._size -= len(text)
                if not written:
                    self._lose(stream, is_log_line=is_log_line)
                elif self._size <= self._max_pending // 2:  # or a slow reader would get one such line for each other
                    dropped, self._unreported = self._unreported, 0
                self._written.notify_all()
            if dropped:
                log.warning("log lines were dropped because standard error did not take them", lines=dropped)

    def _lose(self, stream: TextIO | None, *, is_log_line: bool) -> None:
        if is_log_line:
            self.dropped_lines += 1
            self._unreported += 1
        else:
            self.failed.add(stream)


OUTPUT = Output()
"""The process's own."""


class LogStream:
    """Standard error for log lines: a `write` never blocks."""

    def write(self, line: str) -> None:
        """Queue a line, or drop it."""
        OUTPUT.put(sys.stderr, line, is_log_line=True)


def print_out(text: str) -> None:
    """Print to standard output, without waiting."""
    OUTPUT.put(sys.stdout, f"{text}\n")


def print_err(text: str) -> None:
    """Print to standard error, without waiting."""
    OUTPUT.put(sys.stderr, f"{text}\n")


def delivered() -> bool:
    """Wait until everything is written. Returns False if standard output did not take it."""
    OUTPUT.flush()
    return sys.stdout not in OUTPUT.failed


def escape_unencodable() -> None:
    r"""Have both outputs write a character that their encoding lacks as an escape sequence, such as `\xfc`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def encodable(text: str, stream: TextIO | None) -> bool:
    """Return whether a stream's encoding has all characters of the text."""
    try:
        text.encode(getattr(stream, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def printable(text: str) -> str:
    """Text that cannot steer a terminal: control characters, and those that its encoding lacks, are escaped."""
    return "".join(
        char if char.isprintable() and encodable(char, sys.stdout) else char.encode("unicode_escape").decode()
        for char in text
    )
