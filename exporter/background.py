"""Low-priority threads, so that syncing and rendering do not delay scrapes; work that a shutdown must not interrupt."""

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator

NICENESS = 5
"""Added to the niceness of the process. On a busy core such a thread gets a third of the time of a normal thread."""


def start(work: Callable[[], None], name: str) -> None:
    """Run a function on a low-priority daemon thread, which does not delay the end of the process."""
    threading.Thread(target=_run_with_low_priority, args=(work,), name=name, daemon=True).start()


def _run_with_low_priority(work: Callable[[], None]) -> None:
    if sys.platform == "linux":  # elsewhere niceness applies to the whole process
        with contextlib.suppress(OSError):  # a sandbox may forbid the system call
            # Not relative to the present niceness of the thread, which is that of the thread that started it.
            niceness = os.getpriority(os.PRIO_PROCESS, os.getpid()) + NICENESS
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)
    work()


class CriticalWork:
    """Counter of work that a shutdown must not interrupt, such as storing a new refresh token."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Count the body of a `with` statement as critical work."""
        with self._lock:
            self._count += 1
        try:
            yield
        finally:
            with self._lock:
                self._count -= 1

    def in_progress(self) -> bool:
        """Return True if critical work is in progress."""
        return self._count > 0


CRITICAL_WORK = CriticalWork()
"""The critical work of this process."""
