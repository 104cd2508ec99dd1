"""What the board knows, in words."""

from dataclasses import dataclass

from exporter.sync.snapshot import AccountStatus, Board, Lock
from exporter.tedee.models import Code, DeviceState, DoorState, LockModel, LockState

LOW_BATTERY = 20
"""Percent up to which a battery is shown as low; Tedee's app warns there too."""


@dataclass(frozen=True)
class Said:
    """A value in words, with the tone it is shown in: good, warn, bad, busy or quiet."""

    words: str
    tone: str = "quiet"


UNSAID = Said("–")  # noqa: RUF001

_STATE_TONES: dict[int, str] = {
    LockState.LOCKED: "good",
    LockState.UNLOCKED: "warn",
    LockState.PULLED: "warn",
    LockState.SEMI_LOCKED: "bad",
    LockState.UNCALIBRATED: "bad",
    LockState.UNKNOWN: "bad",
    LockState.UNLOCKING: "busy",
    LockState.LOCKING: "busy",
    LockState.PULLING: "busy",
    LockState.UNPULLING: "busy",
    LockState.CALIBRATING: "busy",
    LockState.UPDATING: "busy",
}
_DOOR_TONES: dict[int, str] = {DoorState.CLOSED: "good", DoorState.OPENED: "warn", DoorState.DISCONNECTED: "bad"}
JAMMED = 1
"""The `stateChangeResult` of a lock whose bolt did not get where it should."""


@dataclass(frozen=True)
class LockRow:
    """A lock in words."""

    name: str
    facts: str
    state: Said
    door: Said
    connection: Said
    battery: int | None
    """Percent."""
    battery_low: bool
    charging: bool
    changed: float | None
    """Unix seconds."""

    @classmethod
    def of(cls, lock: Lock) -> "LockRow":
        """A lock in words. What Tedee did not say stays unsaid."""
        state = lock.synced.device_state or DeviceState()
        level, charging = state.battery_level, bool(state.is_charging)
        return cls(
            name=lock.name,
            facts=_facts(lock),
            state=_state(state),
            door=_said(DoorState, state.door_state, _DOOR_TONES),
            connection=_connection(lock.synced.is_connected),
            battery=level,
            battery_low=level is not None and level <= LOW_BATTERY and not charging,
            charging=charging,
            changed=state.last_state_changed_date,
        )


@dataclass(frozen=True)
class AccountSection:
    """An account and its locks in words."""

    status: AccountStatus
    rows: tuple[LockRow, ...] | None
    """None where there is nothing fresh enough to show."""

    @property
    def summary(self) -> tuple[tuple[int, str, str], ...]:
        """(number, words, tone) of what a person looks for first."""
        rows = self.rows or ()
        counts = (
            (sum(row.state.words == LockState.LOCKED.words for row in rows), "locked", "good"),
            (sum(row.state.tone == "warn" for row in rows), "not locked", "warn"),
            (sum(row.door.tone == "warn" for row in rows), "with door open", "warn"),
            (sum(row.state.tone == "bad" for row in rows), "jammed or unknown", "bad"),
            (sum(row.connection.tone == "bad" for row in rows), "offline", "bad"),
            (sum(row.battery_low for row in rows), "with low battery", "bad"),
        )
        return tuple((count, words, tone if count else "quiet") for count, words, tone in counts)


def sections(board: Board, now: float) -> list[AccountSection]:
    """The accounts in words.

    Args:
        board: the newest of each.
        now: monotonic seconds; a snapshot that is too old by then is not shown.
    """
    return [
        AccountSection(status, tuple(map(LockRow.of, current.locks)) if (current := status.current(now)) else None)
        for status in board.statuses()
    ]


def _state(state: DeviceState) -> Said:
    if state.state_change_result == JAMMED:
        return Said("jammed", "bad")
    said = _said(LockState, state.state, _STATE_TONES)
    return Said(f"{said.words}, with an error", "bad") if state.state_change_result else said


def _said(kind: type[Code], code: int | None, tones: dict[int, str]) -> Said:
    return UNSAID if code is None else Said(kind.describe(code), tones.get(code, "quiet"))


def _connection(connected: bool | None) -> Said:
    match connected:
        case True:
            return Said("connected", "good")
        case False:
            return Said("offline", "bad")
        case None:
            return Said("no bridge")


def _facts(lock: Lock) -> str:
    details = lock.details
    if not details:
        return f"id {lock.id}"
    model = LockModel.describe(details.type) if details.type is not None else None
    firmware = f"firmware {details.firmware_version}" if details.firmware_version else None
    update = "update available" if details.firmware_update_available else None
    return " · ".join(filter(None, [model, details.serial_number, firmware, update]))
