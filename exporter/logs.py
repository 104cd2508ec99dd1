"""Log lines: logfmt or JSON on standard error, for the exporter's own and for its libraries' messages."""

import logging
import sys
from typing import Literal

import structlog

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
    render: structlog.types.Processor = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if form == "json"
        else structlog.processors.LogfmtRenderer(key_order=["ts", "level", "msg"], drop_missing=True)
    )
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
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=before,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(getattr(logging, {"warn": "WARNING"}.get(level, level.upper())))
    if level != "debug":
        for library in ("uvicorn", "asyncio", "urllib3"):
            logging.getLogger(library).setLevel(max(logging.WARNING, root.level))
