"""The envelope of a response: `{"result": …, "success": …, "errorMessages": […], "statusCode": …}`."""

import json
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import msgspec
from msgspec import MsgspecError, Raw

from exporter.secrets import redact

MAX_VALUES = 1_000_000
"""Limit of the values in a response, counted by commas. A body has room for locks with 760,000 values."""
MAX_ROWS = 100_000
"""Limit of the rows in a result. A body has room for 85,000 locks."""
MAX_ROW_BYTES = 2**21
"""Limit of one row. Tedee documents no limit for names, and a parsed row can take 30 times its size."""
MAX_MEMBER_BYTES = 2**16
"""Limit of each of the other members, which are short texts or numbers."""


class Envelope(NamedTuple):
    """An envelope with unparsed rows: most rows are the same as in the previous response and need no parsing."""

    success: object
    status_code: object
    error_messages: object
    raw_rows: Sequence[bytes] | None
    """The elements of the result as JSON; None if the result is not a list."""


class TooManyValues(Exception):
    """A body has more values than a list of locks can have."""


class _Members(msgspec.Struct, rename="camel"):
    result: Raw = Raw(b"null")
    success: Raw = Raw(b"null")
    status_code: Raw = Raw(b"null")
    error_messages: Raw = Raw(b"null")


_MEMBERS_DECODER = msgspec.json.Decoder(_Members)
_ROWS_DECODER = msgspec.json.Decoder(list[Raw])
_JSON_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+"|[][{},]', re.DOTALL)
_MEMBER_NAME = re.compile(rb'\s*"((?:[^"\\]|\\.)*+)"\s*:', re.DOTALL)


def open_envelope(body: bytes | bytearray, secret: str) -> Envelope | None:
    """Split a body into the members of the envelope and the rows of its result, and redact the secret.

    A row that is not JSON does not affect the others: rows are split at the commas between them and parsed separately.

    Returns:
        The envelope; None if the body is not a JSON object.

    Raises:
        TooManyValues: Parsing the body would take too much memory.
    """
    if body.count(b",") > MAX_VALUES:
        raise TooManyValues(f"the response has over {MAX_VALUES:,} values")
    raw_rows: list[bytes] | None = None
    try:
        members = _MEMBERS_DECODER.decode(body)
        if _is_list(members.result):
            raw_rows = list(_ROWS_DECODER.decode(members.result))
        # An escape would hide a secret from a search of the bytes.
        must_rewrite = b"\\" in body or secret.encode() in body
    except (MsgspecError, RecursionError):
        # msgspec rejects the whole body for one invalid value. Splitting takes ten times as long, but parses no value.
        try:
            members = _split_members(_to_utf8(body))
            if _is_list(members.result):
                raw_rows = list(islice(_split(bytes(members.result)), MAX_ROWS + 1))
        except ValueError:  # UnicodeError is one
            return None
        must_rewrite = True
    if raw_rows and len(raw_rows) > MAX_ROWS:
        raise TooManyValues(f"the response has over {MAX_ROWS:,} rows")
    if raw_rows and must_rewrite:
        # In place, so that no row is in memory twice.
        for index, raw_row in enumerate(raw_rows):
            raw_rows[index] = _redact_row(raw_row, secret)
    return Envelope(
        success=_parse_member(members.success, secret),
        status_code=_parse_member(members.status_code, secret),
        error_messages=_parse_member(members.error_messages, secret),
        raw_rows=raw_rows,
    )


def json_object(body: bytes | bytearray) -> dict[str, object] | None:
    """Return the content of a body; None if it is not a JSON object."""
    try:
        value = json.loads(bytes(body))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _is_list(value: Raw) -> bool:
    return bytes(memoryview(value)[:1]) == b"["


def _parse_member(member: bytes, secret: str) -> object:
    """Return the value of a member; None if it cannot be parsed."""
    try:
        return redact(json.loads(bytes(member)), secret) if len(member) <= MAX_MEMBER_BYTES else None
    except (ValueError, RecursionError):
        return None


def _redact_row(raw_row: bytes, secret: str) -> bytes:
    """Return a row with the secret redacted; empty if the row cannot be parsed."""
    try:
        return json.dumps(redact(json.loads(bytes(raw_row)), secret)).encode() if len(raw_row) <= MAX_ROW_BYTES else b""
    except (ValueError, RecursionError):
        return b""


def _to_utf8(body: bytes | bytearray) -> bytes:
    """Return a body in UTF-8, decoded from any encoding of JSON."""
    encoding = json.detect_encoding(body)
    if encoding == "utf-8":
        return bytes(body)
    return body.decode(encoding, "surrogatepass").encode(errors="surrogatepass")


def _split_members(body: bytes) -> _Members:
    """Split an object into its members.

    Raises:
        ValueError: It is not an object.
    """
    members = _Members()
    if body.strip()[:1] != b"{":
        raise ValueError("not a JSON object")
    for member in _split(body):
        name = _MEMBER_NAME.match(member)
        if name is None:
            raise ValueError("a member without a name")
        value = Raw(member[name.end() :].strip())
        match name[1]:
            case b"result":
                members.result = value
            case b"success":
                members.success = value
            case b"statusCode":
                members.status_code = value
            case b"errorMessages":
                members.error_messages = value
    return members


def _split(container: bytes) -> Iterator[bytes]:
    """Split a JSON list or object at its top-level commas, without parsing its elements.

    Raises:
        ValueError: Its brackets do not match.
    """
    open_brackets = bytearray()
    begin = 0
    for token in _JSON_TOKEN.finditer(container):
        character = container[token.start()]
        if character in b"[{":
            if not open_brackets:
                begin = token.end()
            open_brackets.append(character)
        elif character in b"]}":
            # In ASCII, a closing bracket is two after its opening one.
            if not open_brackets or open_brackets.pop() + 2 != character:
                break
            if not open_brackets:
                if container[begin : token.start()].strip():
                    yield container[begin : token.start()]
                if container[token.end() :].strip():
                    break
                return
        elif character == ord(",") and len(open_brackets) == 1:
            yield container[begin : token.start()]
            begin = token.end()
    raise ValueError("brackets that do not match")
