"""Values of locks and other devices as text, for the status page, `--sync.once` and the dashboards."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum

from exporter.sync.snapshot import AccountStatus, Lock
from exporter.tedee.devices import Accessory, Bridge, Device, DoorSensor, DryContact, Gate, Keypad
from exporter.tedee.models import Code, DeviceState, DoorState, LockState, StateChangeResult

LOW_BATTERY = 20
"""Percent up to which a battery is low, as in Tedee's app."""

CRITICAL_BATTERY = 10
"""Percent up to which a battery is almost empty, as in the alerts."""

LOW_ACCESSORY_BATTERY = 15
"""Percent up to which the battery of a keypad or door sensor is low, as in Tedee's app."""

JAMMED = StateChangeResult.JAMMED.value
"""The `stateChangeResult` of a lock whose bolt did not reach its position."""


@dataclass(frozen=True)
class Display:
    """A value as text, with its severity: good, warn, bad, busy or quiet."""

    text: str
    severity: str = "quiet"


NO_VALUE = Display("–")  # noqa: RUF001
NO_BRIDGE = Display("no bridge")
CONNECTIONS: Mapping[bool, Display] = {True: Display("connected", "good"), False: Display("offline", "bad")}

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


def describe_codes() -> Sequence[tuple[str, Sequence[tuple[int, Display]]]]:
    """Return the metrics whose values are codes, each with its codes and their texts."""
    return (
        ("lock_state", [(code, _display(LockState, code, _STATE_SEVERITIES)) for code in LockState]),
        ("lock_door_state", [(code, _display(DoorState, code, _DOOR_SEVERITIES)) for code in DoorState]),
        (
            "lock_state_change_result",
            [(code, Display(code.text, "bad" if code else "good")) for code in StateChangeResult],
        ),
    )


@dataclass(frozen=True)
class MissingValue:
    """What is shown instead of a value that is missing."""

    text: str
    reason: str


OFFLINE_VALUE = MissingValue("unknown", "not known while the lock is offline")
NO_BRIDGE_VALUE = MissingValue("unknown", "not known without a bridge")
REJECTED_VALUE = MissingValue("not reported", "Tedee reported no value that can be used")


class Attention(IntEnum):
    """How much attention a lock needs, as in the table of the dashboards."""

    NONE = 0
    LOW_BATTERY = 1
    OFFLINE = 2
    NOT_SECURED = 3
    PROBLEM = 4


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
    missing: MissingValue
    """What is shown instead of values that are missing."""
    is_door_secured: bool
    """False if the door has a sensor that does not report that it is closed."""
    time_zone: str | None
    """Name of the time zone in which the lock is."""
    last_known: str
    """The last known state of a lock that is offline, and of its door; empty if unknown."""
    last_seen: float | None
    """Time in monotonic seconds at which a lock that is offline was last seen connected; None if unknown."""

    @classmethod
    def of(cls, lock: Lock) -> "LockRow":
        """Return the row of a lock. Values that Tedee did not report are NO_VALUE or None."""
        state = lock.synced.device_state or DeviceState()
        level, charging, connection = state.battery_level, bool(state.is_charging), _connection(lock)
        return cls(
            name=lock.label,
            description=_description(lock),
            state=_state(state),
            door=_display(DoorState, state.door_state, _DOOR_SEVERITIES),
            connection=connection,
            battery=level,
            battery_low=level is not None and level <= LOW_BATTERY and not charging,
            charging=charging,
            changed=state.last_state_changed_date,
            missing=_missing(connection),
            is_door_secured=state.door_state in {None, DoorState.NOT_PAIRED, DoorState.CLOSED},
            time_zone=lock.details.time_zone if lock.details else None,
            last_known=_describe(lock.last_known.state) if lock.last_known else "",
            last_seen=lock.last_known.seen_at if lock.last_known else None,
        )

    @property
    def attention(self) -> Attention:
        """How much attention the lock needs: the highest level that applies."""
        is_connected = self.connection == CONNECTIONS[True]
        if self.state.severity == "bad" or (is_connected and self.state == NO_VALUE):
            return Attention.PROBLEM
        if self.state.severity in {"warn", "busy"} or not self.is_door_secured:
            return Attention.NOT_SECURED
        if self.connection == CONNECTIONS[False]:
            return Attention.OFFLINE
        return Attention.LOW_BATTERY if self.battery_low else Attention.NONE


def _state(state: DeviceState) -> Display:
    if state.state_change_result == JAMMED:
        return Display("jammed", "bad")
    display = _display(LockState, state.state, _STATE_SEVERITIES, unlisted="bad")
    return Display(f"{display.text}, with an error", "bad") if state.state_change_result else display


def _display(kind: type[Code], code: int | None, severities: Mapping[int, str], unlisted: str = "quiet") -> Display:
    return NO_VALUE if code is None else Display(kind.describe(code), severities.get(code, unlisted))


def _connection(lock: Lock) -> Display:
    if lock.synced.is_connected is not None:
        return CONNECTIONS[lock.synced.is_connected]
    # The value may also have been rejected: only the details show whether there is a bridge.
    return NO_BRIDGE if lock.details and lock.details.connected_to_id is None else NO_VALUE


def _missing(connection: Display) -> MissingValue:
    if connection == CONNECTIONS[False]:
        return OFFLINE_VALUE
    return NO_BRIDGE_VALUE if connection == NO_BRIDGE else REJECTED_VALUE


def _describe(state: DeviceState) -> str:
    """Return a state and that of the door: `locked, door closed`."""
    lock, door = _state(state), _display(DoorState, state.door_state, _DOOR_SEVERITIES)
    has_door = state.door_state in {DoorState.OPENED, DoorState.CLOSED}
    return ", ".join([*([] if lock == NO_VALUE else [lock.text]), *([f"door {door.text}"] if has_door else [])])


def _description(lock: Lock) -> str:
    return _properties(lock.details) if lock.details else f"id {lock.id}"


def _properties(device: Device) -> str:
    """Return model, serial number and firmware of a device, as far as they are known."""
    firmware = f"firmware {device.firmware_version}" if device.firmware_version else None
    update = "update available" if device.firmware_update_available else None
    return " · ".join(filter(None, [device.model, device.serial_number, firmware, update]))


@dataclass(frozen=True)
class DeviceRow:
    """A device other than a lock as a row of a table."""

    id: int
    name: str
    kind: str
    """Such as `bridge`."""
    description: str
    """Model, serial number and firmware."""
    locks: str
    """Names of the locks that belong to it, or to which it belongs."""
    connection: Display
    has_battery: bool
    battery: int | None
    """Percent; None if Tedee omits it."""
    battery_low: bool
    battery_changed: float | None
    """Unix time of the last change of the battery level."""

    @classmethod
    def of(cls, device: Device, locks: Iterable[Lock]) -> "DeviceRow":
        """Return the row of a device. Values that Tedee did not report are NO_VALUE or None."""
        accessory = device if isinstance(device, Accessory) else None
        connected = device.is_connected if isinstance(device, Bridge | Gate) else None
        connection = NO_VALUE if connected is None else CONNECTIONS[connected]
        updates = isinstance(device, Bridge) and device.is_updating
        level = accessory.battery_level if accessory else None
        return cls(
            id=device.id,
            name=device.label,
            kind=_KINDS.get(type(device), ""),
            description=_properties(device),
            locks=", ".join(lock.label for lock in locks),
            connection=Display("updating", "busy") if updates and connected else connection,
            has_battery=accessory is not None,
            battery=level,
            battery_low=level is not None and level <= LOW_ACCESSORY_BATTERY,
            battery_changed=accessory.battery_changed_at if accessory else None,
        )


_KINDS: Mapping[type[Device], str] = {
    Bridge: "bridge",
    Keypad: "keypad",
    DoorSensor: "door sensor",
    Gate: "gate",
    DryContact: "dry contact",
}


def device_rows(status: AccountStatus, locks: Sequence[Lock]) -> tuple[DeviceRow, ...]:
    """Return the devices other than locks: each bridge with the accessories of its locks, then the others."""
    names = {lock.id: lock for lock in locks}
    by_bridge: dict[int | None, list[Lock]] = {}
    for lock in locks:
        by_bridge.setdefault(lock.details.connected_to_id if lock.details else None, []).append(lock)
    by_lock: dict[int | None, list[Accessory]] = {}
    for accessory in (*status.devices(Keypad), *status.devices(DoorSensor)):
        by_lock.setdefault(accessory.connected_to_lock_id, []).append(accessory)

    def accessories(of_locks: Iterable[int | None]) -> list[DeviceRow]:
        return [
            DeviceRow.of(each, [names[lock_id]] if lock_id in names else ())
            for lock_id in of_locks
            for each in by_lock.pop(lock_id, ())
        ]

    rows = []
    for bridge in status.devices(Bridge):
        own = by_bridge.get(bridge.id, [])
        rows += [DeviceRow.of(bridge, own), *accessories(lock.id for lock in own)]
    rows += accessories([*by_lock])
    rows += [DeviceRow.of(each, ()) for each in (*status.devices(Gate), *status.devices(DryContact))]
    return tuple(rows)


def format_time(at: float) -> str:
    """Return Unix seconds as a date and time in UTC, which is also a valid value of HTML's `datetime`."""
    return datetime.fromtimestamp(at, UTC).isoformat(sep=" ", timespec="seconds").replace("+00:00", "Z")


def event_text(event: str, source: str) -> str:
    """Return an event and its source as words: `unlocked (pin)`."""
    words = event.replace("_", " ")
    return words if source in {"device", "unknown"} else f"{words} ({source.replace('_', ' ')})"
