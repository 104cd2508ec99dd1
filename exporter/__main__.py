"""The program's entrance: `python -m exporter`, and the command `tedee-exporter`."""

import sys

INTERRUPTED = 130
"""The exit code by which shells know a program that Ctrl+C ended."""


def main() -> int:
    """Run the command line; Ctrl+C during the start is no reason for a traceback."""
    try:
        from .cli import main as run  # noqa: PLC0415  (most of the start is this import)

        return run()
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
