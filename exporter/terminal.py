"""What a person reads on standard output and standard error, which may be closed, or a disk that is full."""

import os
import sys
from typing import TextIO


def say(text: str) -> bool:
    """Print to standard output; whether it arrived."""
    return _write(sys.stdout, text)


def complain(text: str) -> bool:
    """Print to standard error; whether it arrived."""
    return _write(sys.stderr, text)


def printable(text: str) -> str:
    """A name as a terminal may show it: control characters are escaped, so that they cannot steer it."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _write(stream: TextIO | None, text: str) -> bool:
    if stream is None:
        return False
    try:
        print(text, file=stream, flush=True)
    except OSError:
        # What is left in the buffer must not fail once more at the end of the process.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return False
    return True
