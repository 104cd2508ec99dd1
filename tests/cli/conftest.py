"""The program as a child process, and this process put back as it was after a run of it in here."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog

from exporter.console import OUTPUT
from tests.program import TIMEOUT

ROOT = Path(__file__).parents[2]
TESTDATA = Path(__file__).parent / "testdata"
EXAMPLE = ROOT / "tedee-exporter.example.yml"

SECRET = "PK-5ecr3t-of-home"
"""Stands in the files of testdata/bad, in the right place or in a wrong one."""

NOBODY = 65_534

Program = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def program() -> Program:
    """Runs `python -m exporter` to its end, with these arguments, and with these variables alone."""

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
    """The example file, with keys in place of its placeholders."""
    path = tmp_path / "tedee-exporter.yml"
    path.write_text(EXAMPLE.read_text("utf-8").replace("replace-with-", "PK-"), "utf-8")
    return path


@pytest.fixture
def stop_being_root() -> Iterator[Callable[[], None]]:
    """From its call to the end of the test, file permissions hold: root, whom they do not stop, is somebody else."""
    user = os.geteuid()
    yield lambda: None if user else os.seteuid(NOBODY)
    os.seteuid(user)


@pytest.fixture
def logging_put_back() -> Iterator[None]:
    """What `logs.configure` changes in this process lasts as long as the test."""
    loggers = [logging.getLogger(name) for name in (None, "uvicorn", "asyncio", "urllib3", "urllib3.connection")]
    before = [(logger, logger.level, logger.handlers[:]) for logger in loggers]
    yield
    OUTPUT.flush()
    for logger, level, handlers in before:
        logger.setLevel(level)
        logger.handlers = handlers
    structlog.reset_defaults()
