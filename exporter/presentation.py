"""Values of locks as text, for the status page, `--sync.once` and the dashboards."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from exporter.sync.snapshot import Lock
from exporter.tedee.models import Code, DeviceState, DoorState, LockState, StateChangeResult

LOW_BATTERY = 20
"""Percent up to which a battery is low, as in Tedee's app."""

JAMMED = StateChangeResult.JAMMED.value
"""The `stateChangeResult` of a lock whose bolt did not reach its position."""


@dataclass(frozen=True)
class Display:
    """A value as text, with its severity: good, warn, bad, busy or quiet."""

    text: str
    severity: str = "quiet"


NO_VALUE = Display("–")  # noqa: RUF001

_STATE_SEVERITIES: Mapping[int, str] = {
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
_DOOR_SEVERITIES: Mapping[int, str] = {
    DoorState.CLOSED: "good",
    DoorState.OPENED: "warn",
    DoorState.DISCONNECTED: "bad",
}


@dataclass(frozen=True)
class LockRow:
    """A lock as a row of a table."""

    name: str
    description: str
    """Model, serial number and firmware; the id if they are unknown."""
    state: Display
    door: Display
    connection: Display
    battery: int | None
    """Percent."""
    battery_low: bool
    charging: bool
    changed: float | None
    """Unix time of the last state change."""

    @classmethod
    def of(cls, lock: Lock) -> "LockRow":
        """Return the row of a lock. Values that Tedee did not report are NO_VALUE or None."""
        state = lock.synced.device_state or DeviceState()
        level, charging = state.battery_level, bool(state.is_charging)
        return cls(
            name=lock.name,
            description=_description(lock),
            state=_state(state),
            door=_display(DoorState, state.door_state, _DOOR_SEVERITIES),
            connection=_connection(lock),
            battery=level,
            battery_low=level is not None and level <= LOW_BATTERY and not charging,
            charging=charging,
            changed=state.last_state_changed_date,
        )


def _state(state: DeviceState) -> Display:
    if state.state_change_result == JAMMED:
        return Display("jammed", "bad")
    display = _display(LockState, state.state, _STATE_SEVERITIES, unlisted="bad")
    return Display(f"{display.text}, with an error", "bad") if state.state_change_result else display


def _display(kind: type[Code], code: int | None, severities: Mapping[int, str], unlisted: str = "quiet") -> Display:
    return NO_VALUE if code is None else Display(kind.describe(code), severities.get(code, unlisted))


def _connection(lock: Lock) -> Display:
    match lock.synced.is_connected:
        case True:
            return Display("connected", "good")
        case False:
            return Display("offline", "bad")
        case None:
            # The value may also have been rejected: only the details show whether there is a bridge.
            return Display("no bridge") if lock.details and lock.details.connected_to_id is None else NO_VALUE


def _description(lock: Lock) -> str:
    details = lock.details
    if not details:
        return f"id {lock.id}"
    firmware = f"firmware {details.firmware_version}" if details.firmware_version else None
    update = "update available" if details.firmware_update_available else None
    return " · ".join(filter(None, [details.model, details.serial_number, firmware, update]))


def format_time(at: float) -> str:
    """Return Unix seconds as a date and time in UTC, which is also a valid value of HTML's `datetime`."""
    return datetime.fromtimestamp(at, UTC).isoformat(sep=" ", timespec="seconds").replace("+00:00", "Z")
