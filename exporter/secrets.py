"""Secrets: a type that does not print them, and what to do if text from elsewhere may contain one."""

import errno
import html
import os
import re
import stat
from base64 import b64encode
from collections.abc import Iterable
from difflib import get_close_matches
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

from pydantic import SecretStr

HIDDEN = "[hidden: may be a secret]"
READ_BYTES = 2**16
"""Read at once. A buffer for the largest file at once would teach the C library to keep what it is given back."""
SHORTEST = 8
"""Characters of a secret that are searched for in text from elsewhere. Fewer may occur in any word; Tedee's keys have
some 60."""
LONG = 16
"""Characters from which on a name that does not exist may be a secret in a wrong place. Shorter ones are repeated,
which helps to find a mistake; Tedee issues none so short."""


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


def redact(value: Any, secret: str) -> Any:
    """Return JSON data, or a text, with `[secret]` in place of the secret."""
    if len(secret) < SHORTEST:
        return value
    match value:
        case str():
            return value.replace(secret, "[secret]")
        case list():
            return [redact(each, secret) for each in value]
        case dict():
            return {redact(key, secret): redact(each, secret) for key, each in value.items()}
    return value


class SecretDetector:
    """Finds parts of a secret in text that a server sent, which may have been encoded on the way."""

    def __init__(self, secret: Secret) -> None:
        """Create a detector of one secret."""
        self._secret = secret

    def finds_in(self, text: str) -> bool:
        """Return whether a text contains eight or more characters of the secret in a row.

        Case and punctuation do not matter. The characters may be percent-encoded, escaped as in HTML or JSON, or
        encoded in hexadecimal or base64 at any position.
        """
        decoded = [text, once := _unescaped(text), _unescaped(once)]
        forms = {form for each in decoded for form in (each.lower(), _alphanumeric(each))}
        return any(
            not parts.isdisjoint(_parts(form, length)) for length, parts in self._secret_parts.items() for form in forms
        )

    @cached_property
    def _secret_parts(self) -> dict[int, set[str]]:
        """The parts to look for, by their length."""
        secret = self._secret.get_secret_value()
        raw = secret.encode()
        parts = _parts(secret.lower(), SHORTEST) | _parts(_alphanumeric(secret), SHORTEST)
        for before in range(3):
            # A byte has one of three positions in a group of base64. What only the secret determines is the same in
            # whatever it is encoded with.
            encoded = b64encode(bytes(before) + raw).decode()[-(-8 * before // 6) : 8 * (before + len(raw)) // 6]
            parts |= _parts(_alphanumeric(encoded), SHORTEST)
        return {SHORTEST: parts, 2 * SHORTEST: _parts(raw.hex(), 2 * SHORTEST)}


def _parts(text: str, length: int) -> set[str]:
    """Return all substrings of a length."""
    return {text[at : at + length] for at in range(len(text) - length + 1)}


def _alphanumeric(text: str) -> str:
    return re.sub("[^0-9a-z]", "", text.lower())


def _unescaped(text: str) -> str:
    r"""Return a text without percent-encoding, character references, and escapes such as `\u0041` or `=41`."""
    characters = re.sub(r"(?:%|=|0x|\\x|\\u00|&#x0*)([0-9A-Fa-f]{2});?", lambda code: chr(int(code[1], 16)), text)
    return html.unescape(characters)


def safe_path(path: Path) -> str:
    """Return the name of a file for a message.

    If there is no such file, a secret may have been given instead of its name: of a long name, only the folders that
    exist are repeated.
    """
    try:
        existing = next(part for part in (path, *path.parents) if os.path.lexists(part))
    except StopIteration:  # there is no working directory
        existing = Path()
    missing = str(path.relative_to(existing))
    return str(existing / HIDDEN if len(missing) >= LONG and existing != path else path)


def is_near(word: str, known: Iterable[str]) -> bool:
    """Return whether a word is one of the known ones, or looks like a misspelt one, and so is no secret."""
    return bool(get_close_matches(word, known, n=1, cutoff=0.7))


def hide_arguments(message: str, arguments: Iterable[str], known: Iterable[str]) -> str:
    """Return a message about command-line arguments without long ones, which may be a secret in a wrong place.

    Args:
        message: What is wrong.
        arguments: The arguments that were given.
        known: The flags that exist. One that is nearly the same is repeated.
    """
    # argparse takes arguments apart: a flag and its value, or a short flag and the value right behind it.
    parts = {part for each in arguments for part in (each, each.lstrip("-"), each[2:], *each.split("=", 1))}
    for part in sorted(parts, key=len, reverse=True):
        if len(part) >= LONG and not is_near(part, known):
            message = message.replace(repr(part)[1:-1], HIDDEN).replace(part, HIDDEN)
    return message


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
