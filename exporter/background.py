"""Threads that work for nobody who waits, and give way to those that answer scrapes."""

import contextlib
import os
import sys
import threading
from collections.abc import Callable

NICENESS = 5
"""Added to the process's own: a third of the weight, where both want the same core. Enough to get on under any load."""


def start(work: Callable[[], None], name: str) -> None:
    """Do some work on a thread of its own, which does not hold up the end of the process."""
    threading.Thread(target=_give_way_and, args=(work,), name=name, daemon=True).start()


def _give_way_and(work: Callable[[], None]) -> None:
    if sys.platform == "linux":  # where it is the thread's alone
        with contextlib.suppress(OSError):  # a sandbox may forbid it
            os.nice(NICENESS)
    work()
