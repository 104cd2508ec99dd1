"""The envelope of a response: `{"result": …, "success": …, "errorMessages": […], "statusCode": …}`."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
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
    lists: Mapping[str, Sequence[bytes]] | None
    """The elements of each list in the result as JSON, by name. If the result is a list itself, its name is empty. None
    if the result is neither a list nor an object."""


class TooManyValues(Exception):
    """A body has more values than a list of locks can have."""


class _Members(msgspec.Struct, rename="camel"):
    result: Raw = Raw(b"null")
    success: Raw = Raw(b"null")
    status_code: Raw = Raw(b"null")
    error_messages: Raw = Raw(b"null")


_MEMBERS_DECODER = msgspec.json.Decoder(_Members)
_ROWS_DECODER = msgspec.json.Decoder(list[Raw])
_OBJECT_DECODER = msgspec.json.Decoder(dict[str, Raw])
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
    lists: dict[str, list[bytes]] | None
    try:
        members = _MEMBERS_DECODER.decode(body)
        lists = _decode_lists(members.result)
        # An escape would hide a secret from a search of the bytes.
        must_rewrite = b"\\" in body or secret.encode() in body
    except (MsgspecError, RecursionError):
        # msgspec rejects the whole body for one invalid value. Splitting takes ten times as long, but parses no value.
        try:
            members = _split_members(_to_utf8(body))
            lists = _split_lists(bytes(members.result))
        except ValueError:  # UnicodeError is one
            return None
        must_rewrite = True
    if lists and sum(map(len, lists.values())) > MAX_ROWS:
        raise TooManyValues(f"the response has over {MAX_ROWS:,} rows")
    if lists and must_rewrite:
        # In place, so that no row is in memory twice.
        for raw_rows in lists.values():
            for index, raw_row in enumerate(raw_rows):
                raw_rows[index] = _redact_row(raw_row, secret)
    return Envelope(
        success=_parse_member(members.success, secret),
        status_code=_parse_member(members.status_code, secret),
        error_messages=_parse_member(members.error_messages, secret),
        lists=lists,
    )


def json_object(body: bytes | bytearray) -> dict[str, object] | None:
    """Return the content of a body; None if it is not a JSON object."""
    try:
        value = json.loads(bytes(body))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _decode_lists(result: Raw) -> dict[str, list[bytes]] | None:
    """Return the lists of a result, as in `Envelope.lists`."""
    match _first_character(result):
        case b"[":
            return {"": list(_ROWS_DECODER.decode(result))}
        case b"{":
            members = _OBJECT_DECODER.decode(result)
            return {
                name: list(_ROWS_DECODER.decode(value))
                for name, value in members.items()
                if _first_character(value) == b"["
            }
    return None


def _split_lists(result: bytes) -> dict[str, list[bytes]] | None:
    """Return the lists of a result without parsing their elements.

    Raises:
        ValueError: Its brackets do not match.
    """
    match _first_character(result):
        case b"[":
            return {"": list(islice(_split(result), MAX_ROWS + 1))}
        case b"{":
            return {
                name.decode(errors="replace"): list(islice(_split(value), MAX_ROWS + 1))
                for name, value in _split_object(result)
                if _first_character(value) == b"["
            }
    return None


def _first_character(value: bytes | Raw) -> bytes:
    return bytes(memoryview(value)[:1])


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
    for name, value in _split_object(body):
        match name:
            case b"result":
                members.result = Raw(value)
            case b"success":
                members.success = Raw(value)
            case b"statusCode":
                members.status_code = Raw(value)
            case b"errorMessages":
                members.error_messages = Raw(value)
    return members


def _split_object(container: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield name and value of each member of an object, without parsing the values.

    Raises:
        ValueError: Its brackets do not match, or a member has no name.
    """
    for member in _split(container):
        name = _MEMBER_NAME.match(member)
        if name is None:
            raise ValueError("a member without a name")
        yield name[1], member[name.end() :].strip()


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
