"""Standard output and standard error, which may be blocked, closed, on a full disk, or unable to encode a character."""

import io
import sys
import threading
from collections import deque
from typing import NamedTuple, TextIO

import structlog

log = structlog.get_logger(__name__)

MAX_BUFFERED = 2**20
"""Queued characters (about 5,000 lines) above which log lines are dropped."""


class _QueuedText(NamedTuple):
    stream: TextIO
    text: str
    is_log_line: bool


class Output:
    """Queue of text, written in order by one thread.

    A pipe without a reader, or a terminal stopped with Ctrl+S, blocks only that thread.
    """

    def __init__(self, max_pending: int = MAX_BUFFERED) -> None:
        self.dropped_lines = 0
        """Number of log lines that were not written since the start."""
        self.failed: set[TextIO | None] = set()
        """Streams that lost text other than log lines. None is a stream that was closed at the start."""
        self._max_pending = max_pending
        self._pending: deque[_QueuedText] = deque()
        self._size = 0
        self._unreported = 0
        self._lock = threading.RLock()
        self._filled = threading.Condition(self._lock)
        self._written = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None

    def put(self, stream: TextIO | None, text: str, *, is_log_line: bool = False) -> None:
        """Queue text without waiting. A log line is dropped if the queue is full."""
        with self._lock:
            if stream is None or (is_log_line and self._size + len(text) > self._max_pending):
                self._record_loss(stream, is_log_line=is_log_line)
                return
            self._pending.append(_QueuedText(stream, text, is_log_line))
            self._size += len(text)
            self._filled.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="output", daemon=True)
                self._thread.start()

    def flush(self, stall: float | None = None) -> bool:
        """Wait until the queue is written.

        Args:
            stall: Seconds without progress after which to give up. None to wait without a limit.

        Returns:
            False if some text is not written.
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
            except (OSError, ValueError):  # ValueError if the stream is closed
                written = False
            dropped = 0
            with self._lock:
                self._pending.popleft()
                self._size -= len(text)
                if not written:
                    self._record_loss(stream, is_log_line=is_log_line)
                elif self._size <= self._max_pending // 2:  # otherwise a slow reader gets one warning per dropped line
                    dropped, self._unreported = self._unreported, 0
                self._written.notify_all()
            if dropped:
                log.warning("log lines were dropped because standard error was blocked", lines=dropped)

    def _record_loss(self, stream: TextIO | None, *, is_log_line: bool) -> None:
        if is_log_line:
            self.dropped_lines += 1
            self._unreported += 1
        else:
            self.failed.add(stream)


OUTPUT = Output()
"""The output of this process."""


class LogStream:
    """Standard error for log lines. `write` never blocks."""

    def write(self, line: str) -> None:
        """Queue a line, or drop it if the queue is full."""
        OUTPUT.put(sys.stderr, line, is_log_line=True)


def print_out(text: str) -> None:
    """Print a line to standard output without waiting."""
    OUTPUT.put(sys.stdout, f"{text}\n")


def print_err(text: str) -> None:
    """Print a line to standard error without waiting."""
    OUTPUT.put(sys.stderr, f"{text}\n")


def flush_stdout() -> bool:
    """Wait until the queue is written. Returns False if standard output has failed."""
    OUTPUT.flush()
    return sys.stdout not in OUTPUT.failed


def escape_unencodable() -> None:
    r"""Make both streams write characters outside their encoding as escape sequences, such as `\xfc`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def is_encodable(text: str, stream: TextIO | None) -> bool:
    """Return True if the encoding of a stream has all characters of the text."""
    try:
        text.encode(getattr(stream, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def printable(text: str) -> str:
    """Escape control characters, which could control the terminal, and characters outside its encoding."""
    return "".join(
        char if char.isprintable() and is_encodable(char, sys.stdout) else char.encode("unicode_escape").decode()
        for char in text
    )
