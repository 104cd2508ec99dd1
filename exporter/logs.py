"""Log lines of the exporter and its libraries, in logfmt or JSON on standard error."""

import json
import logging
import sys
import threading
from types import TracebackType
from typing import Any, Literal

import structlog

from .console import LogStream, is_encodable

log = structlog.get_logger(__name__)

Format = Literal["logfmt", "json"]
LEVELS = ("debug", "info", "warn", "error")


def configure(level: str, log_format: Format) -> None:
    """Write all log events of this process to standard error, one line per event.

    Args:
        level: The minimum level, one of LEVELS.
        log_format: logfmt or JSON.
    """
    shared: list[structlog.types.Processor] = [
        structlog.stdlib.add_log_level,
        _name_level_as_flag,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
        structlog.processors.format_exc_info,
        structlog.processors.EventRenamer("msg"),
        _order,
    ]
    render: structlog.types.Processor = structlog.processors.JSONRenderer(_json) if log_format == "json" else _logfmt
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(LogStream())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())  # WARN is a second name of WARNING
    # Tracebacks about lines that cannot be formatted would bypass the queue, and may block.
    logging.raiseExceptions = False
    is_debug = level == "debug"
    for library, least in {
        # It logs response headers that it cannot parse. A gateway may have put the key there.
        "urllib3.connection": logging.ERROR,
        "urllib3": logging.DEBUG if is_debug else logging.WARNING,
        # Its debug lines are about each call.
        "asyncio": logging.WARNING,
        # It logs a warning for each invalid request, which any client can send. Its info lines are about its start and
        # stop, which the exporter logs itself.
        "uvicorn": logging.WARNING if is_debug else logging.ERROR,
    }.items():
        logging.getLogger(library).setLevel(max(least, root.level))


def silence(logger: str) -> None:
    """Write only the errors of a logger, because its other lines would repeat what the program prints."""
    logging.getLogger(logger).setLevel(logging.ERROR)


def capture_unhandled() -> None:
    """Log warnings, and unhandled exceptions in threads and finalizers. By default Python prints them."""
    logging.captureWarnings(True)
    threading.excepthook = lambda raised: _log_unhandled(raised.exc_type, raised.exc_value, raised.exc_traceback)
    sys.unraisablehook = lambda raised: _log_unhandled(raised.exc_type, raised.exc_value, raised.exc_traceback)


def _log_unhandled(kind: type[BaseException], error: BaseException | None, traceback: TracebackType | None) -> None:
    log.error("unhandled exception; please report this", exc_info=(kind, error, traceback))


def _name_level_as_flag(_logger: object, _method: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
    """Write `warn` as in --log.level, and as other exporters do, instead of Python's `warning`."""
    event["level"] = {"warning": "warn", "critical": "error"}.get(event["level"], event["level"])
    return event


def _order(_logger: object, _method: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
    """Move time, level and message to the front, and the logger to the end."""
    first, last = ("ts", "level", "msg"), "logger"
    rest = [key for key in event if key not in first and key != last]
    return {key: event[key] for key in (*first, *rest, last) if key in event}


def _logfmt(_logger: object, _method: str, event: structlog.types.EventDict) -> str:
    # structlog's renderer does not escape carriage returns and terminal control sequences.
    return " ".join(f"{key}={_logfmt_value(value)}" for key, value in event.items())


def _logfmt_value(value: object) -> str:
    text = str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)
    return _json(text) if not _is_printable(text) or set(text) & set(' ="\\') else text


def _json(value: object, **options: Any) -> str:
    """Return JSON without line breaks and terminal control characters. Printable characters are not escaped."""
    text = json.dumps(value, ensure_ascii=False, **options)
    if _is_printable(text):
        return text
    return "".join(char if _is_printable(char) else json.dumps(char)[1:-1] for char in text)


def _is_printable(text: str) -> bool:
    return text.isprintable() and is_encodable(text, sys.stderr)
