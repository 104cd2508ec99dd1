"""Output to streams that are slow, blocked, full, closed, or have another encoding."""

import io
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TextIO

import pytest

from exporter import console
from exporter.console import Output, escape_unencodable, flush_stdout, print_out, printable
from testing.program import TIMEOUT, eventually


class Stream(io.StringIO):
    """A stream whose writes wait while it is blocked."""

    def __init__(self) -> None:
        super().__init__()
        self.open = threading.Event()
        self.entered = threading.Semaphore(0)

    def write(self, text: str) -> int:
        self.entered.release()
        assert self.open.wait(TIMEOUT)
        return super().write(text)


@pytest.fixture
def blocked() -> Iterator[Stream]:
    stream = Stream()
    yield stream
    stream.open.set()


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """Values of the log lines about dropped lines."""
    logged: list[dict[str, object]] = []

    class Log:
        def warning(self, message: str, **values: object) -> None:
            logged.append(values)

    monkeypatch.setattr(console, "log", Log())
    return logged


def test_text_arrives_in_order() -> None:
    output, stream = Output(), io.StringIO()
    for number in range(500):
        output.put(stream, f"{number}\n", is_log_line=bool(number % 3))
    assert output.flush()
    assert stream.getvalue() == "".join(f"{number}\n" for number in range(500))


def test_put_does_not_wait_for_a_blocked_stream(blocked: Stream) -> None:
    output = Output()
    for _ in range(1000):
        output.put(blocked, "line\n", is_log_line=True)
    blocked.open.set()
    assert output.flush()
    assert blocked.getvalue() == "line\n" * 1000
    assert output.dropped_lines == 0


def test_lines_beyond_the_limit_are_dropped_and_counted(blocked: Stream, lines: list[dict[str, object]]) -> None:
    output = Output(max_pending=10)
    output.put(blocked, "1234\n", is_log_line=True)
    assert blocked.entered.acquire(timeout=TIMEOUT)
    for line in ("5678\n", "lost\n", "lost\n"):
        output.put(blocked, line, is_log_line=True)
    output.put(blocked, "an error message is written\n")
    assert output.dropped_lines == 2
    blocked.open.set()
    assert output.flush()
    eventually(lambda: lines, "the warning")
    assert lines == [{"lines": 2}]
    assert blocked.getvalue() == "1234\n5678\nan error message is written\n"


def test_flush_waits_while_lines_are_added(blocked: Stream) -> None:
    output = Output()
    output.put(blocked, "line\n")
    flushing = threading.Thread(target=output.flush, args=(TIMEOUT,))
    flushing.start()
    for _ in range(100):
        output.put(blocked, "line\n")
    assert flushing.is_alive()
    blocked.open.set()
    flushing.join(TIMEOUT)
    assert blocked.getvalue() == "line\n" * 101


def test_flush_gives_up_if_nothing_is_written(blocked: Stream) -> None:
    output = Output()
    output.put(blocked, "line\n")
    assert not output.flush(stall=0.01)
    blocked.open.set()
    assert output.flush()


class Broken(io.StringIO):
    """A stream on a full disk."""

    def flush(self) -> None:
        raise OSError(28, "No space left on device")


def test_lines_that_cannot_be_written_are_counted(lines: list[dict[str, object]]) -> None:
    output, good = Output(), io.StringIO()
    output.put(Broken(), "line\n", is_log_line=True)
    output.put(None, "line\n", is_log_line=True)
    assert output.flush()
    assert output.dropped_lines == 2
    assert lines == []
    output.put(good, "line\n", is_log_line=True)
    eventually(lambda: lines, "the warning")
    assert lines == [{"lines": 2}]


@pytest.mark.parametrize("make", [Broken, lambda: None], ids=["full", "closed"])
def test_failed_stdout_is_reported_by_flush(monkeypatch: pytest.MonkeyPatch, make: Callable[[], TextIO | None]) -> None:
    monkeypatch.setattr(sys, "stdout", make())
    print_out("text")
    assert not flush_stdout()


def test_written_stdout_is_reported_by_flush(capsys: pytest.CaptureFixture[str]) -> None:
    print_out("text")
    assert flush_stdout()
    assert capsys.readouterr().out == "text\n"


def test_unencodable_characters_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(io.BytesIO(), encoding="latin-1", errors="strict"))
    escape_unencodable()
    for stream in (sys.stdout, sys.stderr):
        print("Küche 🔑", file=stream, flush=True)
        assert isinstance(stream, io.TextIOWrapper)
        assert stream.buffer.getvalue() == b"K\xfcche \\U0001f511\n"


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [("utf-8", r"Küche 🔑\x1b"), ("latin-1", r"Küche \U0001f511\x1b"), ("ascii", r"K\xfcche \U0001f511\x1b")],
)
def test_printable_text_fits_the_encoding(monkeypatch: pytest.MonkeyPatch, encoding: str, shown: str) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    assert printable("Küche 🔑\x1b") == shown
    assert sys.stdout.encoding == encoding
    monkeypatch.setattr(sys, "stdout", None)
    assert printable("Küche 🔑\x1b") == r"Küche 🔑\x1b"


def test_pipe_without_a_reader_fails() -> None:
    output = Output()
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream:
        os.close(reading)
        output.put(stream, "text\n")
        assert output.flush()
        assert output.failed == {stream}
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # so that flushing its buffer does not fail
