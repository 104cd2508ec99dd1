"""Cached responses: the last response of each endpoint, which other processes can use as well."""

import json
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import inf
from typing import Protocol

import msgspec

from exporter.clock import Instant


@dataclass(frozen=True, slots=True)
class Failure:
    """Reason for a failed call, in plain text."""

    reason: str
    message: str
    at: float
    """Unix seconds."""


MAX_UNPACKED_BYTES = 64 * 2**20
"""Maximum size of a response in the store, which other programs may have changed. Tedee's are at most 16 MiB."""


@dataclass(frozen=True, slots=True)
class CachedResponse:
    """The last successful response of an endpoint, and the failure of its last call."""

    rows: Sequence[bytes] | None = None
    """Rows in JSON, as the resource reads and writes them."""
    at: Instant | None = None
    """Time at which the rows were received."""
    failure: Failure | None = None
    """None if the last call succeeded."""
    revisions: Mapping[int, int | None] = field(default_factory=dict)
    """For the devices: revisions of the synced locks before the fetch."""
    requested_ids: tuple[int, ...] = ()
    """For a sync: ids of the requested locks; empty for all locks."""


class ResponseStore(Protocol):
    """Cached responses by account and endpoint. A response that cannot be stored or read is only fetched again."""

    poll_interval: float
    """Seconds between two checks for responses of other processes."""

    def store_response(self, account: str, endpoint: str, fingerprint: str, response: CachedResponse) -> None:
        """Store the last response to the credential with this fingerprint. Does nothing if that is not possible."""
        ...

    def cached_response(self, account: str, endpoint: str, fingerprint: str) -> CachedResponse | None:
        """Return the last response that any process stored for this fingerprint; None if there is none."""
        ...

    def delete_other_accounts(self, accounts: Collection[str]) -> None:
        """Delete the responses of all other accounts. Does nothing if that is not possible."""
        ...

    def subscribe(self, listener: Callable[[str], None]) -> None:
        """Call the listener with the name of an account when another process has stored a response for it.

        Does nothing if the store cannot notice that.
        """
        ...


class NoResponses:
    """Stores nothing: the accounts have their responses in memory as well."""

    poll_interval = inf

    def store_response(self, account: str, endpoint: str, fingerprint: str, response: CachedResponse) -> None:
        """Do nothing."""

    def cached_response(self, account: str, endpoint: str, fingerprint: str) -> CachedResponse | None:  # noqa: ARG002
        """Return None."""
        return None

    def delete_other_accounts(self, accounts: Collection[str]) -> None:
        """Do nothing."""

    def subscribe(self, listener: Callable[[str], None]) -> None:
        """Do nothing."""


def pack(response: CachedResponse) -> bytes:
    """Compress a response: a line of JSON with all fields but the rows, and their number; then a line for each row."""
    rows = response.rows or ()
    fields = asdict(replace(response, rows=None)) | {"rows": None if response.rows is None else len(rows)}
    # Newlines in JSON are white space.
    lines = (row.replace(b"\n", b" ") if b"\n" in row else row for row in map(bytes, rows))
    return zlib.compress(b"\n".join([json.dumps(fields).encode(), *lines]), level=1)


def unpack(packed: bytes) -> CachedResponse | None:
    """Return a response that `pack` compressed; None if it is damaged, or of another version of the program."""
    try:
        decompressor = zlib.decompressobj()
        first, *rows = decompressor.decompress(packed, MAX_UNPACKED_BYTES).split(b"\n")
        if not decompressor.eof:
            return None
        fields = json.loads(first)
        number = fields.pop("rows")
        response = msgspec.convert(fields, CachedResponse, str_keys=True)
    except (zlib.error, ValueError, LookupError, TypeError, AttributeError, msgspec.MsgspecError):
        return None
    return response if number is None else replace(response, rows=rows)
