"""Low-priority threads, so that syncing and rendering do not delay scrapes; and work that the end must not cut off."""

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator

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


class CriticalWork:
    """Work that the end of the process must not cut off, such as storing what cannot be had again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._number = 0

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Enclose such work."""
        with self._lock:
            self._number += 1
        try:
            yield
        finally:
            with self._lock:
                self._number -= 1

    def is_under_way(self) -> bool:
        """Return True if there is such work now."""
        return self._number > 0


CRITICAL_WORK = CriticalWork()
"""The process's own."""
