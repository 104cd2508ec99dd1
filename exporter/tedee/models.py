"""The states of locks, as Tedee's sync endpoint reports them."""

from collections.abc import Iterator, Sequence
from enum import IntEnum
from hashlib import blake2b

from msgspec import Struct
from msgspec.structs import replace

from .rows import DeviceId, Number, ParseResult, Percent, Rejection, RejectionCollector, RowParser, Timestamp


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

    id: DeviceId
    is_connected: bool | None = None
    """True if the lock is connected to its bridge; None if it is not paired with a bridge."""
    device_state: DeviceState | None = None
    revision: Number | None = None
    """Revision of the lock's configuration. It changes with each setting and with the name."""


_PARSER = RowParser(SyncedLock)


class SyncReader:
    """Parses the syncs of one account. A row that is the same as in the previous sync is not parsed again."""

    def __init__(self) -> None:
        self._parsed: dict[bytes, SyncedLock] = {}
        """Rows of the last response without rejected values, by a digest of their JSON, which takes less memory."""

    def read(self, raw_rows: Sequence[bytes]) -> ParseResult[int, SyncedLock]:
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
            found = RejectionCollector()
            row = _PARSER.parse(each, found)
            rejections.merge(found, row.id if row else None)
            if row and found.counts:
                # Only a connected lock has a state. If the value of `isConnected` was rejected, it is unknown.
                yield replace(row, device_state=None) if found.counts["is_connected"] else row
            elif row:
                # Added to the same dict: a new one for each sync would fragment the memory.
                self._parsed[digest] = row
                yield row
        for gone in unused:
            del self._parsed[gone]


def read_sync(raw_rows: Sequence[bytes]) -> ParseResult[int, SyncedLock]:
    """Parse the rows of one sync, as a SyncReader does."""
    return SyncReader().read(raw_rows)
