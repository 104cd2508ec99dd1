"""The program's entrance: `python -m exporter`, and the command `tedee-exporter`."""

import os
import signal
import sys

INTERRUPTED = 130
"""The exit code by which shells know a program that Ctrl+C ended."""


def main() -> int:
    """Run the command line. A signal during the start ends it as it would later, without a traceback."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda _number, _frame: os._exit(0))
    try:
        from .cli import main as run  # noqa: PLC0415  (most of the start is this import)

        return run()
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
