"""The end of a process that does what must not be cut off."""

import subprocess
import sys

from exporter.signals import OK
from tests.program import PATIENCE

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


def test_exchange_that_does_not_end_is_reported() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert ended.returncode == OK
    assert ended.stderr.startswith("stopped while a refresh token was exchanged; it may be necessary to sign in")
