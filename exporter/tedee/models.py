"""Wire to values: what Tedee's answers say, each field checked by itself.

A field that cannot be used costs that one value and is reported as a Rejection; the lock it belongs to, and the
other locks, stay. Both wire shapes of the lock's state (`lockProperties` up to v1.34, `deviceState` since) are read.
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
    """A number of the API that has a meaning in text. A number without one is passed on as it is."""

    @property
    def text(self) -> str:
        """The member's name as a person writes it."""
        return self.name.lower().replace("_", " ")

    @classmethod
    def describe(cls, code: int) -> str:
        """The code in text; a number nobody knows is said to be one."""
        try:
            return cls(code).text
        except ValueError:
            return f"code {code}"

    @classmethod
    def legend(cls) -> str:
        """All codes in one line, for help texts: `0 uncalibrated, 1 calibrating, …`."""
        return ", ".join(f"{code.value} {code.text}" for code in cls)


class LockState(Code):
    """What the bolt does (docs: enums/lock-state). 255 was seen in the wild and is not documented."""

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
    """What the door sensor says (docs: enums/door-state)."""

    NOT_PAIRED = 0
    DISCONNECTED = 1
    OPENED = 2
    CLOSED = 3
    UNCALIBRATED = 4


class LockModel(IntEnum):
    """The lock's `type` (docs: enums/device-type)."""

    LOCK_PRO = 2
    LOCK_GO = 4

    @classmethod
    def describe(cls, number: int) -> str:
        """The model as Tedee writes it; a type nobody knows is said to be one."""
        try:
            return cls(number).name.replace("LOCK", "Lock").replace("_", " ")
        except ValueError:
            return f"type {number}"


MAX_REJECTIONS = 1_000
"""Rejected values of one response that are kept. The others are only counted."""


class Rejection(NamedTuple):
    """A value of a response that could not be used."""

    lock_id: int | None
    field: str
    value: str
    """The value as Python writes it, shortened."""


class Rejections:
    """The values of a response that could not be used. All are counted, the first ones are kept."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        """By field."""
        self.first: list[Rejection] = []

    def add(self, rejection: Rejection) -> None:
        """Count a value."""
        self.counts[rejection.field] += 1
        if len(self.first) < MAX_REJECTIONS:
            self.first.append(rejection)

    def add_all(self, others: "Rejections", lock_id: int) -> None:
        """Count the values of one lock's row."""
        if not others.counts:
            return
        self.counts.update(others.counts)
        self.first += [each._replace(lock_id=lock_id) for each in others.first[: MAX_REJECTIONS - len(self.first)]]


T = TypeVar("T")


def _or_absent(value: object, validate: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
    try:
        return validate(value)
    except ValidationError:
        rejections: Rejections = info.context  # type: ignore[assignment]  # _row passes it
        rejections.add(Rejection(None, info.field_name or "", _shorten(value)))
        return None


def _if_connection_is_usable(state: T | None, info: ValidationInfo) -> T | None:
    # Only a connected lock has a state. If the value of the connection was rejected, it is not known.
    rejections: Rejections = info.context  # type: ignore[assignment]  # _row passes it
    return None if "is_connected" in rejections.counts else state


def _shorten(value: object) -> str:
    text = ascii(value) if not isinstance(value, dict | list) else type(value).__name__
    return text if len(text) <= 60 else f"{text[:57]}..."  # noqa: PLR2004


_YEAR_9999 = datetime(9999, 1, 1, tzinfo=UTC).timestamp()


def _unix_seconds(value: object) -> float:
    if not isinstance(value, str):
        raise ValueError("not a date in text")  # noqa: TRY004  (pydantic reports ValueErrors)
    moment = datetime.fromisoformat(value)
    seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if not 0 <= seconds < _YEAR_9999:
        # The first and the last date there is are how Tedee's platform writes "never" and "for ever".
        raise ValueError("not a moment of this age")
    return seconds


def _without_broken_characters(value: object) -> object:
    # Half a surrogate pair (a name cut in the middle of an emoji) and NUL exist in JSON but not in an exposition:
    # Prometheus would refuse the whole scrape for them.
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\0", "\ufffd")
    return value


@lru_cache(maxsize=1024)
def _shared(value: T) -> T:
    """Return the same object for equal values, so that what many locks have in common is in memory once."""
    return value


Usable = Annotated[T | None, WrapValidator(_or_absent)]
"""A value that is None, and reported, if it cannot be used."""

Common = Annotated[T, AfterValidator(_shared)]
"""A value that many locks have in common."""

Flag = Annotated[bool, Strict()]
Number = Annotated[int, Strict(), Field(ge=-(2**31), lt=2**31)]
LockId = Annotated[int, Strict(), Field(ge=0, lt=2**53)]
"""Up to what a float holds exactly, as JSON's numbers are."""
Percent = Annotated[int, Strict(), Field(ge=0, le=100)]
Text = Annotated[str, Strict(), BeforeValidator(_without_broken_characters)]
ShortText = Annotated[Text, Field(max_length=200)]
"""Text that is cached for other locks to share."""
Moment = Annotated[float, BeforeValidator(_unix_seconds)]
"""Unix seconds, fractions kept, from the API's three ways to write a date."""


class Wire:
    """Read from the wire by a TypeAdapter, under the API's names; made in code, it is a plain dataclass."""

    __slots__ = ()
    __pydantic_config__: ClassVar = ConfigDict(alias_generator=to_camel)


@dataclass(frozen=True, slots=True)
class DeviceState(Wire):
    """The state of a connected lock. A field is None where Tedee did not say it."""

    state: Usable[Number] = None
    door_state: Usable[Number] = None
    is_charging: Usable[Flag] = None
    battery_level: Usable[Percent] = None
    state_change_result: Usable[Number] = None
    last_state_changed_date: Usable[Moment] = None


@dataclass(frozen=True, slots=True)
class SyncedLock(Wire):
    """What `GET /my/lock/sync` says about one lock."""

    id: LockId
    is_connected: Usable[Flag] = None
    """Connected to its bridge; None if the lock is not paired with a bridge."""
    device_state: Annotated[
        Usable[DeviceState],
        AfterValidator(_if_connection_is_usable),
        Field(validation_alias=AliasChoices("deviceState", "lockProperties")),
    ] = None
    revision: Usable[Number] = None
    """Of the lock's configuration: it moves when a setting, the name included, changes."""


@dataclass(frozen=True, slots=True)
class SoftwareVersion(Wire):
    """One of the programs on a lock."""

    software_type: Usable[Number] = None
    """0 the device, 1 Wi-Fi."""
    version: Usable[ShortText] = None
    update_available: Usable[Flag] = None


@dataclass(frozen=True, slots=True)
class LockDetails(Wire):
    """What `GET /my/lock` says about one lock beside its state."""

    id: LockId
    name: Usable[Text] = None
    serial_number: Usable[Text] = None
    type: Usable[Number] = None
    connected_to_id: Usable[Number] = None
    """The bridge's id."""
    time_zone: Usable[Common[ShortText]] = None
    organization_id: Usable[Number] = None
    software_versions: Usable[Common[Annotated[tuple[Usable[SoftwareVersion], ...], Field(max_length=20)]]] = None

    @property
    def firmware_version(self) -> str | None:
        """The version of the device's own software."""
        return next((each.version for each in self._software() if each.software_type == 0), None)

    @property
    def firmware_update_available(self) -> bool | None:
        """Whether Tedee offers an update for any of the lock's software; None where it does not say."""
        said = [each.update_available for each in self._software() if each.update_available is not None]
        return any(said) if said else None

    def _software(self) -> Iterable[SoftwareVersion]:
        return (each for each in self.software_versions or () if each is not None)


Row = TypeVar("Row", SyncedLock, LockDetails)


class Reading(NamedTuple, Generic[Row]):
    """The rows of a response by lock id, and its values that could not be used."""

    rows: dict[int, Row]
    rejected: Mapping[str, int]
    """Number of values that could not be used, by field."""
    rejections: tuple[Rejection, ...]
    """The first of them."""
    written: Sequence[bytes]
    """The response's rows as they were received, in JSON: all this can be read from them again."""


_SYNCED = TypeAdapter(SyncedLock)
_DETAILS = TypeAdapter(LockDetails)


class SyncReader:
    """Reads the syncs of one account. A row that is the same as in the previous sync is not parsed again."""

    def __init__(self) -> None:
        self._known: dict[bytes, SyncedLock] = {}
        """By a digest of how it was written, which is a quarter as long: the rows of the last answer without flaws."""

    def read(self, written: Sequence[bytes]) -> Reading[SyncedLock]:
        """Read the rows of a sync.

        A disconnected lock has no state, even if the response has one: nobody knows what the door did since. A lock
        that is in the response twice with different values is left out: which of them is true is not known.
        """
        rejections = Rejections()
        by_id: dict[int, SyncedLock] = {}
        contradicted = set()
        for row in self._rows(written, rejections):
            lock = replace(row, device_state=None) if row.is_connected is False and row.device_state else row
            if by_id.setdefault(lock.id, lock) != lock:
                contradicted.add(lock.id)
        for lock_id in contradicted:
            del by_id[lock_id]
            rejections.add(Rejection(lock_id, "id", "twice, with different values"))
        return Reading(by_id, rejections.counts, tuple(rejections.first), written)

    def _rows(self, written: Sequence[bytes], rejections: Rejections) -> Iterator[SyncedLock]:
        before = set(self._known)
        for each in written:
            digest = blake2b(each, digest_size=16).digest()
            if row := self._known.get(digest):
                before.discard(digest)
                yield row
                continue
            rejected = rejections.counts.total()
            if row := _row(_SYNCED, each, rejections):
                if rejections.counts.total() == rejected:
                    # What was known stays: made anew for each sync, it would lie scattered among what passes.
                    self._known[digest] = row
                yield row
        for gone in before:
            del self._known[gone]


def read_sync(written: Sequence[bytes]) -> Reading[SyncedLock]:
    """Read the rows of one sync, as a SyncReader does."""
    return SyncReader().read(written)


def read_details(written: Sequence[bytes]) -> Reading[LockDetails]:
    """Read the rows of a page of locks. If a lock is in it twice, the later row is taken."""
    rejections = Rejections()
    rows = {row.id: row for each in written if (row := _row(_DETAILS, each, rejections))}
    return Reading(rows, rejections.counts, tuple(rejections.first), written)


def write_details(details: LockDetails) -> bytes:
    """A row from which `read_details` reads the same: what is of use of the one that came."""
    return _DETAILS.dump_json(details, by_alias=True)


def _row(adapter: TypeAdapter[Row], written: bytes, rejections: Rejections) -> Row | None:
    """Return a row, or None if nothing of it can be used. Values that cannot be used are added to the rejections."""
    unusable = Rejections()
    item: object = "not JSON"
    try:
        item = json.loads(bytes(written))
        row = adapter.validate_python(item, context=unusable)
    except (ValueError, RecursionError):  # pydantic's ValidationError is a ValueError
        # Only what is not an object, or has no usable id, costs the whole lock.
        value = item.get("id") if isinstance(item, dict) else item
        rejections.add(Rejection(None, "id", _shorten(value)))
        return None
    rejections.add_all(unusable, row.id)
    return row
