"""The envelope around what Tedee answers: `{"result": …, "success": …, "errorMessages": […], "statusCode": …}`."""

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from msgspec import MsgspecError, Raw
from msgspec.json import Decoder

from .secret import without

_MEMBERS = Decoder(dict[str, Raw])
_ROWS = Decoder(list[Raw])


class Envelope(NamedTuple):
    """An answer, opened, of which the rows of the result are not read yet: most stand there as they stood before."""

    said: Mapping[str, object]
    """All of it but the rows."""
    rows: Sequence[bytes] | None
    """The result, each element as it is written in JSON; None where the result is no list."""


def opened(body: bytes | bytearray, secret: str) -> Envelope | None:
    """An answer's envelope, without the secret, where it repeats that; None where the answer is no JSON object."""
    try:
        members = _MEMBERS.decode(body)
        rows: Sequence[bytes] = _ROWS.decode(members.pop("result"))
        said = {name: _read(value, secret) for name, value in members.items()}
        # Looking at thousands of rows takes its time; an escape would hide from a search what `without` finds.
        if b"\\" in body or secret.encode() in body:
            rows = [_rewritten(row, secret) for row in rows]
    except (MsgspecError, ValueError, KeyError, RecursionError):
        # There is no list; or there is something that Python's parser lets pass, such as half a surrogate pair.
        value = json_object(body, secret)
        if value is None:
            return None
        result = value.get("result")
        return Envelope(value, [_written(row) for row in result] if isinstance(result, list) else None)
    return Envelope(said, rows)


def json_object(body: bytes | bytearray, secret: str = "") -> dict[str, object] | None:
    """What a body holds if that is a JSON object, else None; without the secret, where it repeats that."""
    try:
        value = _read(body, secret)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _rewritten(row: bytes, secret: str) -> bytes:
    """A row without the secret; nothing of one that cannot be read, which costs no other."""
    try:
        return _written(_read(row, secret))
    except (ValueError, RecursionError):
        return b""


def _read(written: bytes | bytearray, secret: str) -> object:
    return without(secret, json.loads(bytes(written)))


def _written(value: object) -> bytes:
    return json.dumps(value).encode()
