"""Log lines, as log collectors and terminals receive them."""

import io
import json
import logging
import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
import structlog

from exporter import logs
from exporter.console import OUTPUT

pytestmark = pytest.mark.usefixtures("restore_logging")

Logged = Callable[[Callable[[], object]], list[dict[str, str]]]
"""Runs a function and returns the lines that it logs, each as a dict."""

READERS: dict[logs.Format, Callable[[str], dict[str, str]]] = {}

# Name of a lock or account with quotes, line ends and the control sequence that clears a terminal.
FORGED_NAME = 'Tür "1" \\\r\nlevel=error msg=forged\x1b[2J\x85\u2028\t=🔒'


def reader(log_format: logs.Format) -> Callable[[Callable[[str], dict[str, str]]], Callable[[str], dict[str, str]]]:
    def register(read: Callable[[str], dict[str, str]]) -> Callable[[str], dict[str, str]]:
        READERS[log_format] = read
        return read

    return register


@reader("logfmt")
def read_logfmt(line: str) -> dict[str, str]:
    """Parse a line by the grammar of go-logfmt: a value with special characters is a JSON string."""
    pair = r'([a-z_]+)=("(?:[^"\\]|\\.)*"|[^\s"=\\]*)'
    assert re.fullmatch(rf"{pair}( {pair})*", line), line
    return {key: json.loads(value) if value[:1] == '"' else value for key, value in re.findall(pair, line)}


@reader("json")
def read_json(line: str) -> dict[str, str]:
    event = json.loads(line)
    assert isinstance(event, dict)
    return event


@pytest.fixture(params=READERS)
def log_format(request: pytest.FixtureRequest) -> logs.Format:
    log_format: logs.Format = request.param
    return log_format


@pytest.fixture
def logged(log_format: logs.Format, capsys: pytest.CaptureFixture[str]) -> Logged:
    def read(act: Callable[[], object]) -> list[dict[str, str]]:
        logs.configure("info", log_format)
        act()
        OUTPUT.flush()
        out, err = capsys.readouterr()
        assert out == ""
        assert {char for char in err if not char.isprintable()} == {"\n"}
        return [READERS[log_format](line) for line in err.splitlines()]

    return read


def fail() -> None:
    raise KeyError(FORGED_NAME)


def test_line_has_time_level_message_and_values(logged: Logged) -> None:
    log = structlog.get_logger("exporter.sync")
    before = datetime.now(UTC)
    (line,) = logged(lambda: log.warning("sync failed", account="home", reason="timeout"))
    assert before <= datetime.fromisoformat(line.pop("ts")) <= datetime.now(UTC)
    assert line == {
        "level": "warn",
        "msg": "sync failed",
        "account": "home",
        "reason": "timeout",
        "logger": "exporter.sync",
    }


def test_time_level_and_message_come_first_in_logfmt(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "logfmt")
    structlog.get_logger("exporter").info("listening", port=10333, tls=True, host=None)
    OUTPUT.flush()
    assert re.sub(r"ts=\S+", "ts=T", capsys.readouterr().err) == (
        "ts=T level=info msg=listening port=10333 tls=true host= logger=exporter\n"
    )


def test_time_level_and_message_come_first_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json")
    structlog.get_logger("exporter").warning("sync failed", account="home")
    OUTPUT.flush()
    event = json.loads(capsys.readouterr().err)
    assert list(event) == ["ts", "level", "msg", "account", "logger"]
    assert event["level"] == "warn"


def test_umlaut_and_emoji_are_not_escaped(log_format: logs.Format, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", log_format)
    structlog.get_logger("exporter").info("Tür 🔒")
    OUTPUT.flush()
    (line,) = capsys.readouterr().err.splitlines()
    assert "Tür 🔒" in line


def test_unencodable_characters_can_be_decoded(log_format: logs.Format, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="backslashreplace")
    monkeypatch.setattr(sys, "stderr", stream)
    logs.configure("info", log_format)
    structlog.get_logger("exporter").info("Tür", account="🔒")
    OUTPUT.flush()
    stream.seek(0)
    (line,) = stream.read().splitlines()
    assert (READERS[log_format](line)["msg"], READERS[log_format](line)["account"]) == ("Tür", "🔒")


@pytest.fixture
def hooks() -> Iterator[None]:
    """Restore Python's hooks for unhandled exceptions after the test."""
    before = threading.excepthook, sys.unraisablehook
    yield
    logging.captureWarnings(False)
    threading.excepthook, sys.unraisablehook = before


@pytest.mark.usefixtures("hooks")
def test_unhandled_exceptions_and_warnings_are_logged(logged: Logged) -> None:
    class Finalized:
        def __del__(self) -> None:
            fail()

    def act() -> None:
        logs.capture_unhandled()
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
        Finalized()
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("an old API", stacklevel=1)

    in_thread, in_finalizer, warning = logged(act)
    for line in (in_thread, in_finalizer):
        assert (line["msg"], line["level"]) == ("unhandled exception; please report this", "error")
        assert "in fail\n" in line["exception"]
    assert "UserWarning: an old API" in warning["msg"]


@pytest.mark.parametrize("name", [FORGED_NAME, *sorted(set(FORGED_NAME)), "a\nb", "level=error", ""])
def test_value_cannot_forge_a_line(logged: Logged, name: str) -> None:
    log = structlog.get_logger("exporter")
    (line,) = logged(lambda: log.info(name, account=name))
    assert (line["msg"], line["account"], line["level"]) == (name, name, "info")


def test_value_in_a_library_message_cannot_forge_a_line(logged: Logged) -> None:
    log = logging.getLogger("urllib3.connectionpool")
    (line,) = logged(lambda: log.warning("Retrying %s", FORGED_NAME))
    assert (line["msg"], line["level"]) == (f"Retrying {FORGED_NAME}", "warn")


@pytest.mark.parametrize("log", [structlog.get_logger("exporter"), logging.getLogger("uvicorn.error")])
def test_exception_is_logged_as_one_line(logged: Logged, log: logging.Logger) -> None:
    def act() -> None:
        try:
            fail()
        except KeyError:
            log.exception("unhandled exception while syncing")

    (line,) = logged(act)
    assert (line["msg"], line["level"]) == ("unhandled exception while syncing", "error")
    assert line["exception"].startswith("Traceback (most recent call last):\n")
    assert "in fail\n" in line["exception"]


@pytest.mark.parametrize(
    ("level", "written"),
    [
        ("debug", ["debug", "info", "warn", "error"]),
        ("info", ["info", "warn", "error"]),
        ("warn", ["warn", "error"]),
        ("error", ["error"]),
    ],
)
def test_events_below_the_level_are_not_written(
    log_format: logs.Format, capsys: pytest.CaptureFixture[str], level: str, written: list[str]
) -> None:
    logs.configure(level, log_format)
    log = structlog.get_logger("exporter")
    for write in (log.debug, log.info, log.warning, log.error):
        write("event")
    OUTPUT.flush()
    assert [READERS[log_format](line)["level"] for line in capsys.readouterr().err.splitlines()] == written


@pytest.mark.parametrize(
    ("library", "level", "written"),
    [
        ("urllib3.connectionpool", "debug", ["debug", "info", "warn", "error"]),
        ("urllib3.connectionpool", "info", ["warn", "error"]),
        ("urllib3.connectionpool", "error", ["error"]),
        ("asyncio", "debug", ["warn", "error"]),
        ("asyncio", "info", ["warn", "error"]),
        ("asyncio", "error", ["error"]),
        # It warns of each invalid request, which any client can send.
        ("uvicorn.error", "debug", ["warn", "error"]),
        ("uvicorn.error", "info", ["error"]),
        ("uvicorn.error", "error", ["error"]),
    ],
)
def test_library_events_are_rarely_written(
    log_format: logs.Format, capsys: pytest.CaptureFixture[str], library: str, level: str, written: list[str]
) -> None:
    logs.configure(level, log_format)
    log = logging.getLogger(library)
    for write in (log.debug, log.info, log.warning, log.error):
        write("event")
    OUTPUT.flush()
    lines = [READERS[log_format](line) for line in capsys.readouterr().err.splitlines()]
    assert [line["level"] for line in lines] == written
    assert {line["logger"] for line in lines} == {library}


def test_levels_and_formats_are_complete() -> None:
    assert logs.LEVELS == ("debug", "info", "warn", "error")
    assert set(READERS) == {"logfmt", "json"}
