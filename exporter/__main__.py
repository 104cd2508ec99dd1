"""The program's entrance: `python -m exporter`, and the command `tedee-exporter`."""

import contextlib
import ctypes
import gc
import os
import resource
import signal
import sys
from typing import NoReturn

FAILED, INTERRUPTED = 1, 130

NEEDED_FILES = 32
"""Files that may have to be open at the same time: 14 always, 8 for clients, the others for syncs and what is read."""


def main() -> NoReturn:
    """Run the command line and end the process.

    Python's own finalization is left out: it waits for threads, which may hang, and writes to outputs, which may be
    blocked.
    """
    os._exit(_run())


def _run() -> int:
    """Run the command line. A signal during the start ends it as it would later, without a traceback."""
    interrupted = INTERRUPTED if {"--config.check", "--sync.once"} & set(sys.argv) else 0
    signal.signal(signal.SIGTERM, lambda _number, _frame: os._exit(interrupted))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        _keep_to_itself()
        _share_the_processor()
        _return_memory()
        if not _enough_files():
            return FAILED
        from . import console, logs  # noqa: PLC0415

        console.escape_unencodable()
        logs.capture_unhandled()
        from .cli import main as run  # noqa: PLC0415  (most of the start is this import)

        return run()
    except SystemExit as ended:  # --help, --version, or wrong flags
        try:
            print(end="", flush=True)
        except OSError:
            return FAILED
        return int(ended.code or 0)
    except KeyboardInterrupt:
        return INTERRUPTED


def _keep_to_itself() -> None:
    """Leave nothing behind that others could read, whatever the process was started with."""
    # A core dump would have the keys in it.
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, most))
    # What it writes, the state file above all, is for its user; and under an odd umask not even that one could read it.
    os.umask(0o077)


def _share_the_processor() -> None:
    """Have scrapes answered beside the sync of a large fleet, which makes some hundred thousand objects that stay."""
    # With Python's defaults the garbage collector looks through all there are in most syncs, and everybody waits for
    # it; and a tenth of a start is its looking through what is being imported.
    gc.set_threshold(50_000, 10, 100)
    # Whoever wants to answer waits that long for a thread that does not let go by itself: by default, 5 ms each time.
    sys.setswitchinterval(0.001)


def _enough_files() -> bool:
    """Return whether enough files may be open at the same time, after raising the limit if that is allowed."""
    limit, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY or limit >= NEEDED_FILES:
        return True
    if hard_limit == resource.RLIM_INFINITY or hard_limit >= NEEDED_FILES:
        resource.setrlimit(resource.RLIMIT_NOFILE, (NEEDED_FILES, hard_limit))
        return True
    with contextlib.suppress(OSError, AttributeError):  # the latter if standard error is closed
        sys.stderr.write(
            f"tedee-exporter: the process may open only {limit} files at the same time and needs {NEEDED_FILES}; "
            "raise the limit (ulimit -n, or LimitNOFILE= in a systemd unit)\n"
        )
        sys.stderr.flush()
    return False


def _return_memory() -> None:
    """Have the C library return freed memory to the system, if it is glibc."""
    # By default glibc keeps what large responses took: after the first, it no longer maps blocks of their size one by
    # one, and each thread may have a heap of its own. Values are those of <malloc.h>.
    m_trim_threshold, m_mmap_threshold, m_arena_max = -1, -3, -8
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(m_mmap_threshold, 2**17)
        mallopt(m_trim_threshold, 2**17)
        mallopt(m_arena_max, 2)


if __name__ == "__main__":
    main()
