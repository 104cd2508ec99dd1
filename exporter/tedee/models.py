"""Parsing of the rows in Tedee's responses. Each field is validated separately.

A value that cannot be used is None and reported as a Rejection; the lock and the other locks are not affected. Both
names of a lock's state are supported: `lockProperties` up to v1.34, `deviceState` since.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import IntEnum
from functools import lru_cache
from hashlib import blake2b
from typing import Annotated, Any, ClassVar, Generic, NamedTuple, TypeVar

from pydantic import (
    AfterValidator,
    AliasChoices,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic.alias_generators import to_camel


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


T = TypeVar("T")


def _none_if_invalid(value: object, validate: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
    try:
        return validate(value)
    except ValidationError:
        rejections: RejectionCollector = info.context  # type: ignore[assignment]  # _parse_row passes it
        rejections.add(Rejection(None, info.field_name or "", _shorten(value)))
        return None


def _none_if_connection_unknown(state: T | None, info: ValidationInfo) -> T | None:
    # Only a connected lock has a state. If the value of `isConnected` was rejected, the connection is unknown.
    rejections: RejectionCollector = info.context  # type: ignore[assignment]  # _parse_row passes it
    return None if "is_connected" in rejections.counts else state


def _shorten(value: object) -> str:
    text = ascii(value) if not isinstance(value, dict | list) else type(value).__name__
    return text if len(text) <= 60 else f"{text[:57]}..."  # noqa: PLR2004


_YEAR_9999 = datetime(9999, 1, 1, tzinfo=UTC).timestamp()


def _unix_seconds(value: object) -> float:
    if not isinstance(value, str):
        raise ValueError("not a date in text")  # noqa: TRY004  (pydantic reports ValueErrors)
    date = datetime.fromisoformat(value)
    seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    if not 0 <= seconds < _YEAR_9999:
        # Tedee's platform uses the minimum and maximum dates for "never" and "for ever".
        raise ValueError("out of range")
    return seconds


def _replace_broken_characters(value: object) -> object:
    # JSON can contain NUL and half a surrogate pair (a name that was cut within an emoji). Prometheus would reject the
    # whole scrape because of them.
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\0", "\ufffd")
    return value


@lru_cache(maxsize=1024)
def _intern(value: T) -> T:
    """Return the same object for equal values, to save memory."""
    return value


Usable = Annotated[T | None, WrapValidator(_none_if_invalid)]
"""A value that is None and reported as a Rejection if it cannot be used."""

Interned = Annotated[T, AfterValidator(_intern)]
"""A value that many locks have, stored once in memory."""

Flag = Annotated[bool, Strict()]
Number = Annotated[int, Strict(), Field(ge=-(2**31), lt=2**31)]
LockId = Annotated[int, Strict(), Field(ge=0, lt=2**53)]
"""Limited to the integers that a float represents exactly, since JSON numbers may be floats."""
Percent = Annotated[int, Strict(), Field(ge=0, le=100)]
CleanText = Annotated[str, Strict(), BeforeValidator(_replace_broken_characters)]
ShortText = Annotated[CleanText, Field(max_length=200)]
"""Text that may be interned."""
Timestamp = Annotated[float, BeforeValidator(_unix_seconds)]
"""Unix time with fractions, parsed from the three date formats of the API."""


class CamelCaseModel:
    """Base of the dataclasses that a TypeAdapter validates with the field names of the API, which are in camel case."""

    __slots__ = ()
    __pydantic_config__: ClassVar = ConfigDict(alias_generator=to_camel)


@dataclass(frozen=True, slots=True)
class DeviceState(CamelCaseModel):
    """State of a connected lock. A field is None if the response has no usable value."""

    state: Usable[Number] = None
    door_state: Usable[Number] = None
    is_charging: Usable[Flag] = None
    battery_level: Usable[Percent] = None
    state_change_result: Usable[Number] = None
    last_state_changed_date: Usable[Timestamp] = None


@dataclass(frozen=True, slots=True)
class SyncedLock(CamelCaseModel):
    """A row of `GET /my/lock/sync`."""

    id: LockId
    is_connected: Usable[Flag] = None
    """True if the lock is connected to its bridge; None if it is not paired with a bridge."""
    device_state: Annotated[
        Usable[DeviceState],
        AfterValidator(_none_if_connection_unknown),
        Field(validation_alias=AliasChoices("deviceState", "lockProperties")),
    ] = None
    revision: Usable[Number] = None
    """Revision of the lock's configuration. It changes with each setting and with the name."""


@dataclass(frozen=True, slots=True)
class SoftwareVersion(CamelCaseModel):
    """Version of a part of the lock's software."""

    software_type: Usable[Number] = None
    """0 for the device, 1 for Wi-Fi."""
    version: Usable[ShortText] = None
    update_available: Usable[Flag] = None


@dataclass(frozen=True, slots=True)
class LockDetails(CamelCaseModel):
    """A row of `GET /my/lock`, without the state of the lock."""

    id: LockId
    name: Usable[CleanText] = None
    serial_number: Usable[CleanText] = None
    type: Usable[Number] = None
    connected_to_id: Usable[Number] = None
    """Id of the bridge."""
    time_zone: Usable[Interned[ShortText]] = None
    organization_id: Usable[Number] = None
    software_versions: Usable[Interned[Annotated[tuple[Usable[SoftwareVersion], ...], Field(max_length=20)]]] = None

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


_SYNCED_ADAPTER = TypeAdapter(SyncedLock)
_DETAILS_ADAPTER = TypeAdapter(LockDetails)


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
            if row := _parse_row(_SYNCED_ADAPTER, each, rejections):
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
    rows = {row.id: row for each in raw_rows if (row := _parse_row(_DETAILS_ADAPTER, each, rejections))}
    return ParseResult(rows, rejections.counts, tuple(rejections.recorded), raw_rows)


def write_details(details: LockDetails) -> bytes:
    """Return a JSON row with the fields in use, which `read_details` parses to the same details."""
    return _DETAILS_ADAPTER.dump_json(details, by_alias=True)


def _parse_row(adapter: TypeAdapter[LockT], raw_row: bytes, rejections: RejectionCollector) -> LockT | None:
    """Return a parsed row; None if it cannot be used. Values that cannot be used are added to the rejections."""
    unusable = RejectionCollector()
    item: object = "not JSON"
    try:
        item = json.loads(bytes(raw_row))
        row = adapter.validate_python(item, context=unusable)
    except (ValueError, RecursionError):  # pydantic's ValidationError is a ValueError
        # A row is left out only if it is not an object or has no usable id.
        value = item.get("id") if isinstance(item, dict) else item
        rejections.add(Rejection(None, "id", _shorten(value)))
        return None
    rejections.merge(unusable, row.id)
    return row
