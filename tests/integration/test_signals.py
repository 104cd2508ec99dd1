"""Signals: the thread that receives them, and the end of a process during critical work."""

import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from exporter.signals import OK, SIGNALS
from testing.program import TIMEOUT, running

PROGRAM = """
import os, signal, threading
from exporter import signals
from exporter.background import CRITICAL_WORK

signals.CRITICAL_SECONDS = 2.0

def program(commands):
    with CRITICAL_WORK():
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait()

os._exit(signals.supervise(program, serves=True))
"""


def test_endless_token_exchange_is_reported() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    assert ended.returncode == OK
    assert ended.stderr.startswith("stopped during the exchange of a refresh token; you may have to sign in")


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_signals_reach_only_the_main_thread() -> None:
    """Python runs handlers on the main thread. A signal for another thread does not wake it."""
    with running("--demo") as exporter:
        exporter.wait_until_ready()
        exporter.get("/metrics")
        process = Path(f"/proc/{exporter.process.pid}")
        masks = {}
        for task in (process / "task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):  # the thread has ended
                status = (task / "status").read_text()
                masks[int(task.name)] = int(re.findall("SigBlk:\t([0-9a-f]+)", status)[0], 16)
    assert len(masks) > 4
    for thread, blocked in masks.items():
        for number in SIGNALS:
            assert bool(blocked >> (number - 1) & 1) == (thread != exporter.process.pid)
