"""A secret, held so that it does not get out by accident; and one that somebody put in a wrong place."""

import errno
import os
import re
import stat
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

from pydantic import SecretStr

HIDDEN = "[hidden: it looks like a secret]"
READ_BYTES = 2**16
"""Read at once. A buffer for the largest file at once would teach the C library to keep what it is given back."""
SHORTEST = 8
"""Characters of a secret that is looked for in what others say. Tedee's have some 60; three may stand in any word."""


class Secret(SecretStr):
    """Text that only `get_secret_value` hands out.

    Printed, formatted, logged or dumped by pydantic it is a row of stars; pickled, copied or written as JSON or YAML
    it is an error.
    """

    # Takes the attribute out of `vars()`, and of whatever shows an object's insides by that.
    __slots__ = ("_secret_value",)

    def __getstate__(self) -> NoReturn:
        """Refuse: pickle and copy ask for this."""
        raise TypeError("a secret is not to be written down")


def without(secret: str, told: Any) -> Any:
    """JSON, or a text, without the secret in its texts."""
    if len(secret) < SHORTEST:
        return told
    match told:
        case str():
            return told.replace(secret, "[secret]")
        case list():
            return [without(secret, each) for each in told]
        case dict():
            return {without(secret, key): without(secret, value) for key, value in told.items()}
    return told


def disguised(text: str) -> str:
    """The text without its words that may be a secret: long, and with a digit or a capital somewhere."""
    return re.sub(r"[\w+/.~-]{16,}=*", lambda word: HIDDEN if re.search("[0-9A-Z]", word[0]) else word[0], text)


def file_named(path: Path) -> str:
    """The name of a file, to be told; of one that is not there, only what cannot be a secret in place of a name."""
    if os.access(path, os.F_OK):
        return str(path)
    there = next((folder for folder in path.parents if os.access(folder, os.F_OK)), Path())
    return str(there / disguised(str(path.relative_to(there))))


def read_regular_file(path: Path, most: int) -> bytes | None:
    """Return at most so many bytes of a file, or None if it is not a regular one.

    A FIFO or a device might never end, or never begin.

    Raises:
        OSError: it cannot be read.
    """
    # Without O_NONBLOCK the opening of a FIFO waits until another process opens it for writing.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            return None
        parts = iter(partial(os.read, descriptor, READ_BYTES), b"")
        return b"".join(islice(parts, most // READ_BYTES + 1))[:most]
    finally:
        os.close(descriptor)
