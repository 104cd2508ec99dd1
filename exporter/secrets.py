"""A type for secrets that does not print them, and functions that read files and find or hide secrets in text."""

import errno
import html
import os
import re
import stat
from base64 import b64encode
from collections.abc import Iterable
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

from .typos import close_match

HIDDEN = "[hidden: may be a secret]"
READ_BYTES = 2**16
"""Bytes per read. After freeing a larger buffer, glibc would keep memory of that size instead of returning it."""
MIN_MATCH_LENGTH = 8
"""Minimum length of the parts of a secret that are searched for. Shorter parts occur by chance; Tedee's keys have about
60 characters."""
MIN_HIDDEN_LENGTH = 16
"""Minimum length of an unknown name that is hidden because it may be a misplaced secret. Shorter names are repeated,
which helps to find a typo; Tedee issues no secrets so short."""


class Secret:
    """Text that only `get_secret_value` returns.

    Printing, formatting and logging show asterisks. Pickling, copying and writing as JSON or YAML raise an error.
    """

    # Keeps the value out of `vars()`, and of tools that use it to show the attributes of an object.
    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def get_secret_value(self) -> str:
        """Return the text."""
        return self._value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return "Secret('**********')"

    def __str__(self) -> str:
        return "**********"

    def __getstate__(self) -> NoReturn:
        """Raise TypeError, so that secrets cannot be pickled or copied."""
        raise TypeError("a secret cannot be pickled or copied")


def redact(value: Any, secret: str) -> Any:
    """Return JSON data, or a text, with `[secret]` instead of the secret."""
    if len(secret) < MIN_MATCH_LENGTH:
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
    """Finds parts of a secret in text from a server, also if they are encoded."""

    def __init__(self, secret: Secret) -> None:
        self._secret = secret

    def finds_in(self, text: str) -> bool:
        """Return True if a text contains at least eight consecutive characters of the secret.

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
        """The parts to search for, by their length."""
        secret = self._secret.get_secret_value()
        raw = secret.encode()
        parts = _parts(secret.lower(), MIN_MATCH_LENGTH) | _parts(_alphanumeric(secret), MIN_MATCH_LENGTH)
        for before in range(3):
            # A byte has one of three positions in a base64 group. The digits that depend only on the secret are the
            # same whatever text surrounds it.
            encoded = b64encode(bytes(before) + raw).decode()[-(-8 * before // 6) : 8 * (before + len(raw)) // 6]
            parts |= _parts(_alphanumeric(encoded), MIN_MATCH_LENGTH)
        return {MIN_MATCH_LENGTH: parts, 2 * MIN_MATCH_LENGTH: _parts(raw.hex(), 2 * MIN_MATCH_LENGTH)}


def _parts(text: str, length: int) -> set[str]:
    """Return all substrings of this length."""
    return {text[at : at + length] for at in range(len(text) - length + 1)}


def _alphanumeric(text: str) -> str:
    return re.sub("[^0-9a-z]", "", text.lower())


def _unescaped(text: str) -> str:
    r"""Decode percent-encoding, character references, and escapes such as `\u0041` or `=41`."""
    characters = re.sub(r"(?:%|=|0x|\\x|\\u00|&#x0*)([0-9A-Fa-f]{2});?", lambda code: chr(int(code[1], 16)), text)
    return html.unescape(characters)


def safe_path(path: Path) -> str:
    """Return a path for messages.

    A long name of a missing file may be a secret that was given instead of a path. It is hidden, unless it looks like
    the name of a file; only the existing folders are repeated.
    """
    try:
        existing = next(part for part in (path, *path.parents) if os.path.lexists(part))
    except StopIteration:  # the working directory was removed
        existing = Path()
    missing = str(path.relative_to(existing))
    is_hidden = len(missing) >= MIN_HIDDEN_LENGTH and existing != path and not _is_file_name(missing)
    return str(existing / HIDDEN if is_hidden else path)


def _is_file_name(text: str) -> bool:
    """Return True for words of lower-case letters that name this program, or end as a file of it does."""
    words = r"[a-z]{1,14}[0-9]{0,2}([./_-][a-z]{1,14}[0-9]{0,2})*"
    return bool(re.fullmatch(words, text)) and bool(re.search(r"tedee|key$|\.(ya?ml|pem|crt|txt)$", text))


def is_similar(word: str, known: Iterable[str]) -> bool:
    """Return True if a word is known, or looks like a typo of a known word, and therefore is no secret."""
    return close_match(word, known, cutoff=0.7) is not None


FLAG_NAME = "-{0,2}[a-z]{1,14}([.-][a-z]{1,14})+"
"""Words of lower-case letters, such as the flags of other exporters. A secret has other characters or no separators."""


def hide_arguments(message: str, arguments: Iterable[str], known: Iterable[str]) -> str:
    """Hide long arguments in a message about the command line: they may be misplaced secrets.

    Args:
        message: The error message.
        arguments: The arguments of the command line.
        known: The existing flags. Arguments similar to one of them are not hidden.
    """
    # argparse splits arguments: a flag and its value, or a short flag and the value that follows it directly.
    pieces = [piece for each in arguments for piece in each.split("=", 1)]
    parts = {part for piece in pieces for part in (piece, piece.lstrip("-"), piece[2:])}
    for part in sorted(parts, key=len, reverse=True):
        if len(part) >= MIN_HIDDEN_LENGTH and not re.fullmatch(FLAG_NAME, part) and not is_similar(part, known):
            message = message.replace(repr(part)[1:-1], HIDDEN).replace(part, HIDDEN)
    return message


def read_regular_file(path: Path, max_bytes: int) -> bytes | None:
    """Return at most `max_bytes` of a file, or None if it is not a regular file.

    Reading a FIFO or a device might block, or never end.

    Raises:
        OSError: The file cannot be read.
    """
    # Without O_NONBLOCK, opening a FIFO waits until another process opens it for writing.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            return None
        parts = iter(partial(os.read, descriptor, READ_BYTES), b"")
        return b"".join(islice(parts, max_bytes // READ_BYTES + 1))[:max_bytes]
    finally:
        os.close(descriptor)
