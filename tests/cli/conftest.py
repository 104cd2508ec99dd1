"""Fixtures that run the program as a child process, and that restore this process after a run in it."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog

from exporter.console import OUTPUT
from testing.program import TIMEOUT

ROOT = Path(__file__).parents[2]
TESTDATA = Path(__file__).parent / "testdata"
EXAMPLE = ROOT / "tedee-exporter.example.yml"

SECRET = "PK-5ecr3t-of-home"
"""Secret in the files of testdata/bad, in the right place or a wrong one."""

UNPRIVILEGED_UID = 65_534

Program = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def program() -> Program:
    """Return a function that runs `python -m exporter` to its end, with only the given environment variables."""

    def run(*arguments: str | Path, **environ: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "exporter", *arguments],
            cwd=ROOT,
            env=environ,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT,
        )

    return run


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """The example file with keys instead of its placeholders."""
    path = tmp_path / "tedee-exporter.yml"
    path.write_text(EXAMPLE.read_text("utf-8").replace("replace-with-", "PK-"), "utf-8")
    return path


@pytest.fixture
def drop_privileges() -> Iterator[Callable[[], None]]:
    """Return a function that changes the user until the test ends. File permissions do not apply to root."""
    user = os.geteuid()
    yield lambda: None if user else os.seteuid(UNPRIVILEGED_UID)
    os.seteuid(user)


@pytest.fixture
def restore_logging() -> Iterator[None]:
    """Undo the changes of `logs.configure` after the test."""
    loggers = [logging.getLogger(name) for name in (None, "uvicorn", "asyncio", "urllib3", "urllib3.connection")]
    # Stopping a web server silences this logger for the rest of the process.
    logging.getLogger("uvicorn.error").setLevel(logging.NOTSET)
    before = [(logger, logger.level, logger.handlers[:]) for logger in loggers]
    yield
    OUTPUT.flush()
    for logger, level, handlers in before:
        logger.setLevel(level)
        logger.handlers = handlers
    structlog.reset_defaults()
    # A logger caches its configuration at its first use, which `capture_logs` in later tests could not replace.
    for name, module in list(sys.modules.items()):
        if name.startswith("exporter.") and hasattr(module, "log"):
            vars(module.log).pop("bind", None)
