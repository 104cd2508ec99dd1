"""What a secret may look like on its way out, and looking for it there."""

import base64
import html
import json
import sqlite3
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import quote, quote_plus

PIECE = 20
"""Characters of a secret that are too many to have come together by chance."""


def forms(secret: str) -> set[bytes]:
    """Pieces of text that each give it away: a piece of it, or all of it in another coding, amid other text."""
    raw = secret.encode()
    texts = {secret[at : at + PIECE] for at in range(0, len(secret) - PIECE + 1, PIECE)}
    texts |= {quote(secret, safe=""), quote(secret), quote_plus(secret), raw.hex(), raw.hex().upper()}
    texts |= {html.escape(secret), json.dumps(secret)[1:-1], json.dumps(secret).replace("/", r"\/")[1:-1]}
    for before in range(3):
        # A byte of it stands at one of three places in a group of base64; what only it decides is the same everywhere.
        first, last = -(-before * 8 // 6), (before + len(raw)) * 8 // 6
        encoded = base64.b64encode(b"\0" * before + raw).decode()[first:last]
        texts |= {encoded, encoded.replace("+", "-").replace("/", "_")}
    return {text.encode() for text in texts}


def leaks(emitted: Mapping[str, bytes], secrets: Iterable[str]) -> dict[str, set[str]]:
    """Where which secrets stand."""
    beginnings: dict[bytes, list[tuple[bytes, str]]] = defaultdict(list)
    for secret in secrets:
        for form in forms(secret):
            beginnings[form[:PIECE]].append((form, secret))
    found: dict[str, set[str]] = defaultdict(set)
    for where, content in emitted.items():
        # Once over the text, however many secrets there are.
        for at in range(len(content)):
            for form, secret in beginnings.get(content[at : at + PIECE], ()):
                if content.startswith(form, at):
                    found[where].add(secret)
    return dict(found)


def state_files(path: Path) -> Iterator[tuple[str, bytes]]:
    """The bytes of a state file, of the files next to it, and of what is compressed in it."""
    for file in path.parent.glob(f"{path.name}*"):
        yield file.name, file.read_bytes()
    database = sqlite3.connect(path)
    try:
        responses = [zlib.decompress(row[0]) for row in database.execute("SELECT response FROM responses")]
        yield "responses", b"\n".join(responses)
    finally:
        database.close()
