"""Log lines, as a log collector and a terminal get them."""

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

pytestmark = pytest.mark.usefixtures("logging_put_back")

Logged = Callable[[Callable[[], object]], list[dict[str, str]]]
"""The lines that a call logs, each as its keys and values."""

FORMS: dict[logs.Format, Callable[[str], dict[str, str]]] = {}

# A name that somebody gave to a lock or an account: quotes, line ends and a terminal's "clear the screen".
FORGER = 'Tür "1" \\\r\nlevel=error msg=forged\x1b[2J\x85\u2028\t=🔒'


def reader(form: logs.Format) -> Callable[[Callable[[str], dict[str, str]]], Callable[[str], dict[str, str]]]:
    def keep(read: Callable[[str], dict[str, str]]) -> Callable[[str], dict[str, str]]:
        FORMS[form] = read
        return read

    return keep


@reader("logfmt")
def read_logfmt(line: str) -> dict[str, str]:
    """Keys and values of a line, by the grammar of go-logfmt: a value with anything special in it is a JSON string."""
    pair = r'([a-z_]+)=("(?:[^"\\]|\\.)*"|[^\s"=\\]*)'
    assert re.fullmatch(rf"{pair}( {pair})*", line), line
    return {key: json.loads(value) if value[:1] == '"' else value for key, value in re.findall(pair, line)}


@reader("json")
def read_json(line: str) -> dict[str, str]:
    event = json.loads(line)
    assert isinstance(event, dict)
    return event


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> logs.Format:
    form: logs.Format = request.param
    return form


@pytest.fixture
def logged(form: logs.Format, capsys: pytest.CaptureFixture[str]) -> Logged:
    def read(speak: Callable[[], object]) -> list[dict[str, str]]:
        logs.configure("info", form)
        speak()
        OUTPUT.flush()
        out, err = capsys.readouterr()
        assert out == ""
        assert {char for char in err if not char.isprintable()} == {"\n"}
        return [FORMS[form](line) for line in err.splitlines()]

    return read


def fail() -> None:
    raise KeyError(FORGER)


def test_a_line_has_the_time_the_level_the_message_and_what_it_is_about(logged: Logged) -> None:
    log = structlog.get_logger("exporter.sync")
    before = datetime.now(UTC)
    (line,) = logged(lambda: log.warning("sync failed", account="home", reason="timeout"))
    assert before <= datetime.fromisoformat(line.pop("ts")) <= datetime.now(UTC)
    assert line == {
        "level": "warning",
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


def test_an_umlaut_and_an_emoji_stay_legible(form: logs.Format, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", form)
    structlog.get_logger("exporter").info("Tür 🔒")
    OUTPUT.flush()
    (line,) = capsys.readouterr().err.splitlines()
    assert "Tür 🔒" in line


def test_characters_that_the_encoding_lacks_can_be_read_back(
    form: logs.Format, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="backslashreplace")
    monkeypatch.setattr(sys, "stderr", stream)
    logs.configure("info", form)
    structlog.get_logger("exporter").info("Tür", account="🔒")
    OUTPUT.flush()
    stream.seek(0)
    (line,) = stream.read().splitlines()
    assert (FORMS[form](line)["msg"], FORMS[form](line)["account"]) == ("Tür", "🔒")


@pytest.fixture
def hooks() -> Iterator[None]:
    """Python's own ways to tell what nothing handles, put back after the test."""
    before = threading.excepthook, sys.unraisablehook
    yield
    logging.captureWarnings(False)
    threading.excepthook, sys.unraisablehook = before


@pytest.mark.usefixtures("hooks")
def test_what_python_would_print_is_logged(logged: Logged) -> None:
    class Finalized:
        def __del__(self) -> None:
            fail()

    def speak() -> None:
        logs.capture_unhandled()
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
        Finalized()
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("an old API", stacklevel=1)

    in_thread, in_finalizer, warning = logged(speak)
    for line in (in_thread, in_finalizer):
        assert (line["msg"], line["level"]) == ("unhandled exception; please report this", "error")
        assert "in fail\n" in line["exception"]
    assert "UserWarning: an old API" in warning["msg"]


@pytest.mark.parametrize("name", [FORGER, *sorted(set(FORGER)), "a\nb", "level=error", ""])
def test_a_name_cannot_forge_a_line(logged: Logged, name: str) -> None:
    log = structlog.get_logger("exporter")
    (line,) = logged(lambda: log.info(name, account=name))
    assert (line["msg"], line["account"], line["level"]) == (name, name, "info")


def test_a_name_in_a_librarys_message_cannot_forge_a_line(logged: Logged) -> None:
    log = logging.getLogger("urllib3.connectionpool")
    (line,) = logged(lambda: log.warning("Retrying %s", FORGER))
    assert (line["msg"], line["level"]) == (f"Retrying {FORGER}", "warning")


@pytest.mark.parametrize("log", [structlog.get_logger("exporter"), logging.getLogger("uvicorn.error")])
def test_an_exception_is_one_line(logged: Logged, log: logging.Logger) -> None:
    def speak() -> None:
        try:
            fail()
        except KeyError:
            log.exception("unhandled exception while syncing")

    (line,) = logged(speak)
    assert (line["msg"], line["level"]) == ("unhandled exception while syncing", "error")
    assert line["exception"].startswith("Traceback (most recent call last):\n")
    assert "in fail\n" in line["exception"]


@pytest.mark.parametrize(
    ("level", "written"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warn", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_what_is_below_the_level_is_not_written(
    form: logs.Format, capsys: pytest.CaptureFixture[str], level: str, written: list[str]
) -> None:
    logs.configure(level, form)
    log = structlog.get_logger("exporter")
    for speak in (log.debug, log.info, log.warning, log.error):
        speak("heard")
    OUTPUT.flush()
    assert [FORMS[form](line)["level"] for line in capsys.readouterr().err.splitlines()] == written


@pytest.mark.parametrize("library", ["uvicorn.error", "urllib3.connectionpool", "asyncio"])
@pytest.mark.parametrize(
    ("level", "written"),
    [("debug", ["debug", "info", "error"]), ("info", ["error"]), ("error", ["error"])],
)
def test_what_libraries_say_in_passing_is_for_debugging(
    form: logs.Format, capsys: pytest.CaptureFixture[str], library: str, level: str, written: list[str]
) -> None:
    logs.configure(level, form)
    log = logging.getLogger(library)
    for speak in (log.debug, log.info, log.error):
        speak("heard")
    OUTPUT.flush()
    lines = [FORMS[form](line) for line in capsys.readouterr().err.splitlines()]
    assert [line["level"] for line in lines] == written
    assert {line["logger"] for line in lines} == {library}


def test_there_are_no_other_levels_and_forms() -> None:
    assert logs.LEVELS == ("debug", "info", "warn", "error")
    assert set(FORMS) == {"logfmt", "json"}
