"""Parsing of the rows in Tedee's responses. Each field is validated separately.

A value that cannot be used is None and reported as a Rejection; the lock and the other locks are not affected. Both
names of a lock's state are supported: `lockProperties` up to v1.34, `deviceState` since.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from enum import IntEnum
from functools import cache, lru_cache
from hashlib import blake2b
from typing import Annotated, Any, Generic, NamedTuple, TypeVar

import msgspec
from msgspec import Meta, MsgspecError, Struct
from msgspec.structs import replace

from exporter.fields import Converter, KeyPath


class Code(IntEnum):
    """A code of the API with its meaning. Codes without a known meaning are exported unchanged."""

    @property
    def text(self) -> str:
        """The meaning, in lower case and without underscores."""
        return self.name.lower().replace("_", " ")

    @classmethod
    def describe(cls, code: int) -> str:
        """Return the meaning of a code; `code 42` if unknown."""
        try:
            return cls(code).text
        except ValueError:
            return f"code {code}"

    @classmethod
    def legend(cls) -> str:
        """Return all codes on one line, for help texts: `0 uncalibrated, 1 calibrating, …`."""
        return ", ".join(f"{code.value} {code.text}" for code in cls)


class LockState(Code):
    """State of the bolt (docs: enums/lock-state). 255 occurs in responses but is not documented."""

    UNCALIBRATED = 0
    CALIBRATING = 1
    UNLOCKED = 2
    SEMI_LOCKED = 3
    UNLOCKING = 4
    LOCKING = 5
    LOCKED = 6
    PULLED = 7
    PULLING = 8
    UNKNOWN = 9
    UPDATING = 18
    UNPULLING = 255


class DoorState(Code):
    """State of the door sensor (docs: enums/door-state)."""

    NOT_PAIRED = 0
    DISCONNECTED = 1
    OPENED = 2
    CLOSED = 3
    UNCALIBRATED = 4


class StateChangeResult(Code):
    """Result of a lock's last state change. Larger codes are errors without a documented meaning."""

    SUCCESS = 0
    JAMMED = 1
    """The bolt did not reach its position."""


class LockModel(IntEnum):
    """Model of a lock, its `type` (docs: enums/device-type)."""

    LOCK_PRO = 2
    LOCK_GO = 4

    @classmethod
    def describe(cls, number: int) -> str:
        """Return the name of a model as Tedee writes it; `type 9` if unknown."""
        try:
            return cls(number).name.replace("LOCK", "Lock").replace("_", " ")
        except ValueError:
            return f"type {number}"


MAX_REJECTIONS = 1_000
"""Limit of the rejected values that are recorded per response. Further ones are only counted."""


class Rejection(NamedTuple):
    """A value of a response that could not be used."""

    lock_id: int | None
    field: str
    value: str
    """The value in Python syntax, shortened."""


class RejectionCollector:
    """Counts the values of a response that could not be used, and records the first MAX_REJECTIONS of them."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        """By field."""
        self.recorded: list[Rejection] = []

    def add(self, rejection: Rejection) -> None:
        """Add a value."""
        self.counts[rejection.field] += 1
        if len(self.recorded) < MAX_REJECTIONS:
            self.recorded.append(rejection)

    def merge(self, others: "RejectionCollector", lock_id: int) -> None:
        """Add the values of the row of a lock."""
        if not others.counts:
            return
        self.counts.update(others.counts)
        self.recorded += [
            each._replace(lock_id=lock_id) for each in others.recorded[: MAX_REJECTIONS - len(self.recorded)]
        ]


def _shorten(value: object) -> str:
    text = ascii(value) if not isinstance(value, dict | list) else type(value).__name__
    return text if len(text) <= 60 else f"{text[:57]}..."  # noqa: PLR2004


_YEAR_9999 = datetime(9999, 1, 1, tzinfo=UTC).timestamp()


class Timestamp(float):
    """Unix time with fractions."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> "Timestamp":
        """Parse a date in one of the three formats of the API.

        Raises:
            TypeError: It is not text.
            ValueError: It is not a date, or out of range.
        """
        date = datetime.fromisoformat(text)
        seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
        if not 0 <= seconds < _YEAR_9999:
            # Tedee's platform uses the minimum and maximum dates for "never" and "for ever".
            raise ValueError("out of range")
        return cls(seconds)


def _decode(kind: type[Timestamp], value: str) -> Timestamp:
    return kind.parse(value)


def _replace_broken_characters(item: dict[str, object]) -> dict[str, object]:
    # JSON can contain NUL and half a surrogate pair (a name that was cut within an emoji). Prometheus would reject the
    # whole scrape because of them.
    for key, value in item.items():
        if isinstance(value, str) and not value.isprintable():
            item[key] = value.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\0", "\ufffd")
    return item


T = TypeVar("T")


@lru_cache(maxsize=1024)
def _intern(value: T) -> T:
    """Return the same object for equal values, to save memory."""
    return value


Number = Annotated[int, Meta(ge=-(2**31), lt=2**31)]
LockId = Annotated[int, Meta(ge=0, lt=2**53)]
"""Limited to the integers that a float represents exactly, since JSON numbers may be floats."""
Percent = Annotated[int, Meta(ge=0, le=100)]
ShortText = Annotated[str, Meta(max_length=200)]
"""Text that may be interned."""


class DeviceState(Struct, frozen=True, gc=False, rename="camel"):
    """State of a connected lock. A field is None if the response has no usable value."""

    state: Number | None = None
    door_state: Number | None = None
    is_charging: bool | None = None
    battery_level: Percent | None = None
    state_change_result: Number | None = None
    last_state_changed_date: Timestamp | None = None


class SyncedLock(Struct, frozen=True, gc=False, rename="camel"):
    """A row of `GET /my/lock/sync`."""

    id: LockId
    is_connected: bool | None = None
    """True if the lock is connected to its bridge; None if it is not paired with a bridge."""
    device_state: DeviceState | None = None
    revision: Number | None = None
    """Revision of the lock's configuration. It changes with each setting and with the name."""


class SoftwareVersion(Struct, frozen=True, gc=False, rename="camel"):
    """Version of a part of the lock's software."""

    software_type: Number | None = None
    """0 for the device, 1 for Wi-Fi."""
    version: ShortText | None = None
    update_available: bool | None = None


class LockDetails(Struct, frozen=True, gc=False, rename="camel"):
    """A row of `GET /my/lock`, without the state of the lock."""

    id: LockId
    name: str | None = None
    serial_number: str | None = None
    type: Number | None = None
    connected_to_id: Number | None = None
    """Id of the bridge."""
    time_zone: ShortText | None = None
    organization_id: Number | None = None
    software_versions: Annotated[tuple[SoftwareVersion | None, ...], Meta(max_length=20)] | None = None

    @property
    def firmware_version(self) -> str | None:
        """Version of the firmware of the device; None if unknown."""
        return next((each.version for each in self._software() if each.software_type == 0), None)

    @property
    def firmware_update_available(self) -> bool | None:
        """True if Tedee offers an update for any part of the lock's software; None if unknown."""
        offered = [each.update_available for each in self._software() if each.update_available is not None]
        return any(offered) if offered else None

    def _software(self) -> Iterable[SoftwareVersion]:
        return (each for each in self.software_versions or () if each is not None)


LockT = TypeVar("LockT", SyncedLock, LockDetails)


class ParseResult(NamedTuple, Generic[LockT]):
    """Parsed rows of a response by lock id, and the values that could not be used."""

    rows: dict[int, LockT]
    rejection_counts: Mapping[str, int]
    """Number of values that could not be used, by field."""
    rejections: tuple[Rejection, ...]
    """The first MAX_REJECTIONS of these values."""
    raw_rows: Sequence[bytes]
    """The rows in JSON as they were received. Parsing them again gives the same result."""


class SyncReader:
    """Parses the syncs of one account. A row that is the same as in the previous sync is not parsed again."""

    def __init__(self) -> None:
        self._parsed: dict[bytes, SyncedLock] = {}
        """Rows of the last response without rejected values, by a digest of their JSON, which takes less memory."""

    def read(self, raw_rows: Sequence[bytes]) -> ParseResult[SyncedLock]:
        """Parse the rows of a sync.

        The state of a disconnected lock is dropped, since it may be outdated. A lock that is in the response twice with
        different values is left out, since it is unknown which of them is right.
        """
        rejections = RejectionCollector()
        by_id: dict[int, SyncedLock] = {}
        contradictory = set()
        for row in self._parse_rows(raw_rows, rejections):
            lock = replace(row, device_state=None) if row.is_connected is False and row.device_state else row
            if by_id.setdefault(lock.id, lock) != lock:
                contradictory.add(lock.id)
        for lock_id in contradictory:
            del by_id[lock_id]
            rejections.add(Rejection(lock_id, "id", "twice, with different values"))
        return ParseResult(by_id, rejections.counts, tuple(rejections.recorded), raw_rows)

    def _parse_rows(self, raw_rows: Sequence[bytes], rejections: RejectionCollector) -> Iterator[SyncedLock]:
        unused = set(self._parsed)
        for each in raw_rows:
            digest = blake2b(each, digest_size=16).digest()
            if row := self._parsed.get(digest):
                unused.discard(digest)
                yield row
                continue
            count = rejections.counts.total()
            if row := _parse_row(SyncedLock, each, rejections):
                if rejections.counts.total() == count:
                    # Added to the same dict: a new one for each sync would fragment the memory.
                    self._parsed[digest] = row
                yield row
        for gone in unused:
            del self._parsed[gone]


def read_sync(raw_rows: Sequence[bytes]) -> ParseResult[SyncedLock]:
    """Parse the rows of one sync, as a SyncReader does."""
    return SyncReader().read(raw_rows)


def read_details(raw_rows: Sequence[bytes]) -> ParseResult[LockDetails]:
    """Parse the rows of a page of details. If a lock is in it twice, the later row is used."""
    rejections = RejectionCollector()
    parsed = filter(None, (_parse_row(LockDetails, each, rejections) for each in raw_rows))
    rows = {row.id: _interned(row) for row in parsed}
    return ParseResult(rows, rejections.counts, tuple(rejections.recorded), raw_rows)


def _interned(row: LockDetails) -> LockDetails:
    """Return equal details, with the values that many locks have stored once in memory."""
    return replace(row, time_zone=_intern(row.time_zone), software_versions=_intern(row.software_versions))


def write_details(details: LockDetails) -> bytes:
    """Return a JSON row with the fields in use, which `read_details` parses to the same details."""
    return msgspec.json.encode(details)


# Created before any thread starts: msgspec 0.22 crashes if several threads are the first to use a type.
_DECODERS: dict[type, msgspec.json.Decoder[Any]] = {
    kind: msgspec.json.Decoder(kind, dec_hook=_decode) for kind in (SyncedLock, LockDetails)
}
MAX_DIGITS = sys.int_info.default_max_str_digits
"""Limit of the digits of a number, 4300. A row of Tedee has 200 to 1,200 bytes."""


def _parse_row(kind: type[LockT], raw_row: bytes, rejections: RejectionCollector) -> LockT | None:
    """Return a parsed row; None if it cannot be used. Values that cannot be used are added to the rejections."""
    row = bytes(raw_row)
    # An escape can be a broken character. A long row can contain a number that `json.loads` rejects.
    if b"\\" not in row and b"lockProperties" not in row and len(row) < MAX_DIGITS:
        with suppress(MsgspecError, UnicodeError, RecursionError):
            parsed: LockT = _DECODERS[kind].decode(row.decode())
            return parsed
    return _parse_fields(kind, row, rejections)


@cache
def _converter(kind: type) -> Converter:
    return Converter(kind, _decode)


def _parse_fields(kind: type[LockT], row: bytes, rejections: RejectionCollector) -> LockT | None:
    """Parse each field of a row separately. It takes several times as long as parsing the whole row."""
    unusable = RejectionCollector()

    def reject(path: KeyPath, value: object, _error: Exception) -> None:
        field = next((part for part in reversed(path) if isinstance(part, str)), "id")
        unusable.add(Rejection(None, field, _shorten(value)))

    item: Any = "not JSON"
    lock: LockT | msgspec.UnsetType = msgspec.UNSET
    with suppress(ValueError, RecursionError):
        item = json.loads(row, object_hook=_replace_broken_characters)
        if isinstance(item, dict) and "lockProperties" in item:
            item.setdefault("deviceState", item["lockProperties"])
        lock = _converter(kind).convert(item, reject)
    if lock is msgspec.UNSET:
        # A row is left out only if it is not an object or has no usable id.
        rejections.add(Rejection(None, "id", _shorten(item.get("id") if isinstance(item, dict) else item)))
        return None
    rejections.merge(unusable, lock.id)
    # Only a connected lock has a state. If the value of `isConnected` was rejected, the connection is unknown.
    return replace(lock, device_state=None) if "is_connected" in unusable.counts else lock
