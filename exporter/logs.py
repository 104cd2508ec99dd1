"""Log lines: logfmt or JSON on standard error, for the exporter's own and for its libraries' messages."""

import json
import logging
import sys
import threading
from types import TracebackType
from typing import Any, Literal

import structlog

from .console import LogStream, encodable

log = structlog.get_logger(__name__)

Format = Literal["logfmt", "json"]
LEVELS = ("debug", "info", "warn", "error")


def configure(level: str, form: Format) -> None:
    """Send everything that is logged in this process to standard error, one line an event.

    Args:
        level: the least of LEVELS that is written.
        form: logfmt or JSON.
    """
    before: list[structlog.types.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
        structlog.processors.format_exc_info,
        structlog.processors.EventRenamer("msg"),
    ]
    render: structlog.types.Processor = structlog.processors.JSONRenderer(_json) if form == "json" else _logfmt
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *before,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(LogStream())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=before,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(getattr(logging, {"warn": "WARNING"}.get(level, level.upper())))
    # A traceback about a line that cannot be formatted would be written past the queue, and block.
    logging.raiseExceptions = False
    # It repeats what it could not parse of an answer's headers, where a gateway may have repeated the key.
    logging.getLogger("urllib3.connection").setLevel(logging.ERROR)
    if level != "debug":
        for library in ("asyncio", "urllib3"):
            logging.getLogger(library).setLevel(max(logging.WARNING, root.level))
        # It warns of every request that is none, which anybody may send.
        logging.getLogger("uvicorn").setLevel(logging.ERROR)


def capture_unhandled() -> None:
    """Log warnings, and exceptions that nothing handles in threads and finalizers; Python would print them itself."""
    logging.captureWarnings(True)
    threading.excepthook = lambda raised: _log_unhandled(raised.exc_type, raised.exc_value, raised.exc_traceback)
    sys.unraisablehook = lambda raised: _log_unhandled(raised.exc_type, raised.exc_value, raised.exc_traceback)


def _log_unhandled(kind: type[BaseException], error: BaseException | None, where: TracebackType | None) -> None:
    log.error("unhandled exception; please report this", exc_info=(kind, error, where))


def _logfmt(_logger: object, _method: str, event: structlog.types.EventDict) -> str:
    # structlog's own renderer leaves carriage returns and terminal escapes as they are.
    first = {key: event.pop(key) for key in ("ts", "level", "msg") if key in event}
    return " ".join(f"{key}={_logfmt_value(value)}" for key, value in {**first, **event}.items())


def _logfmt_value(value: object) -> str:
    text = str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)
    return _json(text) if not _legible(text) or set(text) & set(' ="\\') else text


def _json(value: object, **options: Any) -> str:
    """JSON that is legible and cannot break a line or steer a terminal."""
    text = json.dumps(value, ensure_ascii=False, **options)
    return text if _legible(text) else "".join(char if _legible(char) else json.dumps(char)[1:-1] for char in text)


def _legible(text: str) -> bool:
    return text.isprintable() and encodable(text, sys.stderr)
