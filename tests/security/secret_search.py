"""Encoded forms of secrets, and a search for them in output."""

import base64
import html
import json
import sqlite3
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import quote, quote_plus

PART_LENGTH = 20
"""Length of a part of a secret that does not occur by chance."""


def forms(secret: str) -> set[bytes]:
    """Return texts that reveal the secret: parts of it, or all of it in an encoding, also within other encoded text."""
    raw = secret.encode()
    texts = {secret[at : at + PART_LENGTH] for at in range(0, len(secret) - PART_LENGTH + 1, PART_LENGTH)}
    texts |= {quote(secret, safe=""), quote(secret), quote_plus(secret), raw.hex(), raw.hex().upper()}
    texts |= {html.escape(secret), json.dumps(secret)[1:-1], json.dumps(secret).replace("/", r"\/")[1:-1]}
    for before in range(3):
        # A byte has one of three positions in a base64 group. The digits that depend only on the secret are fixed.
        first, last = -(-before * 8 // 6), (before + len(raw)) * 8 // 6
        encoded = base64.b64encode(b"\0" * before + raw).decode()[first:last]
        texts |= {encoded, encoded.replace("+", "-").replace("/", "_")}
    return {text.encode() for text in texts}


def leaks(emitted: Mapping[str, bytes], secrets: Iterable[str]) -> dict[str, set[str]]:
    """Return the secrets that are found in each output."""
    beginnings: dict[bytes, list[tuple[bytes, str]]] = defaultdict(list)
    for secret in secrets:
        for form in forms(secret):
            beginnings[form[:PART_LENGTH]].append((form, secret))
    found: dict[str, set[str]] = defaultdict(set)
    for name, content in emitted.items():
        # One pass over the text, independent of the number of secrets.
        for at in range(len(content)):
            for form, secret in beginnings.get(content[at : at + PART_LENGTH], ()):
                if content.startswith(form, at):
                    found[name].add(secret)
    return dict(found)


def state_files(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the bytes of a state file, of its journal, and of the decompressed responses in it."""
    for file in path.parent.glob(f"{path.name}*"):
        yield file.name, file.read_bytes()
    database = sqlite3.connect(path)
    try:
        responses = [zlib.decompress(row[0]) for row in database.execute("SELECT response FROM responses")]
        yield "responses", b"\n".join(responses)
    finally:
        database.close()
