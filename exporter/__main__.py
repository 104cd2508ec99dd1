"""Entry point of `python -m exporter` and of the command `tedee-exporter`."""

import contextlib
import gc
import os
import resource
import signal
import sys
from typing import NoReturn

FAILED, INTERRUPTED = 1, 130

MIN_OPEN_FILES = 32
"""Files that may have to be open at the same time: 14 permanently, 8 for clients, the rest for syncs and file reads."""


def main() -> NoReturn:
    """Run the command line and end the process.

    Skip Python's finalization: it waits for threads, which may hang, and writes to streams, which may be blocked.
    """
    os._exit(_run())


def _run() -> int:
    """Run the command line. A signal during startup has the same exit code as later, and no traceback."""
    interrupted = INTERRUPTED if {"--config.check", "--sync.once"} & set(sys.argv) else 0
    signal.signal(signal.SIGTERM, lambda _number, _frame: os._exit(interrupted))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        _protect_secrets()
        _reduce_pauses()
        if not _ensure_file_limit():
            return FAILED
        from . import console, logs, memory  # noqa: PLC0415

        memory.configure()
        console.escape_unencodable()
        logs.capture_unhandled()
        from .cli import main as run  # noqa: PLC0415  (this import takes most of the startup time)

        return run()
    except SystemExit as exit_request:  # --help, --version, or invalid flags
        try:
            print(end="", flush=True)
        except OSError:
            return FAILED
        return int(exit_request.code or 0)
    except KeyboardInterrupt:
        return INTERRUPTED


def _protect_secrets() -> None:
    """Disable core dumps, and make new files accessible to the process's user only."""
    # A core dump would contain the keys.
    _, hard_limit = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard_limit))
    # The inherited umask may be too open, or so strict that the process cannot read its own state file.
    os.umask(0o077)


def _reduce_pauses() -> None:
    """Keep scrapes fast during a sync of many locks, which creates some 100,000 long-lived objects."""
    # With the default thresholds most syncs trigger a full garbage collection, which pauses all threads. Collections
    # also take a tenth of the startup time.
    gc.set_threshold(50_000, 10, 100)
    # The web server waits up to this long for each busy thread to release the GIL. The default is 5 ms.
    sys.setswitchinterval(0.001)


def _ensure_file_limit() -> bool:
    """Raise the limit of open files if it is too low. Returns False if that is not allowed."""
    limit, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY or limit >= MIN_OPEN_FILES:
        return True
    if hard_limit == resource.RLIM_INFINITY or hard_limit >= MIN_OPEN_FILES:
        resource.setrlimit(resource.RLIMIT_NOFILE, (MIN_OPEN_FILES, hard_limit))
        return True
    with contextlib.suppress(OSError, AttributeError):  # AttributeError if standard error is closed
        sys.stderr.write(
            f"tedee-exporter: the limit of open files is {limit}, but at least {MIN_OPEN_FILES} are needed; "
            "raise it (ulimit -n, or LimitNOFILE= in a systemd unit)\n"
        )
        sys.stderr.flush()
    return False


if __name__ == "__main__":
    main()
