"""What the registry knows, in text."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from exporter.clock import Clock
from exporter.sync.snapshot import AccountStatus, Lock, StatusRegistry
from exporter.tedee.models import Code, DeviceState, DoorState, LockModel, LockState

LOW_BATTERY = 20
"""Percent up to which a battery is shown as low; Tedee's app warns there too."""

WAIT_WORTH_TELLING = 60.0
"""Seconds: names that come sooner than that need no explanation."""


@dataclass(frozen=True)
class Display:
    """A value in text, with the tone it is shown in: good, warn, bad, busy or quiet."""

    text: str
    severity: str = "quiet"


NO_VALUE = Display("–")  # noqa: RUF001

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
    """A lock in text."""

    name: str
    facts: str
    state: Display
    door: Display
    connection: Display
    battery: int | None
    """Percent."""
    battery_low: bool
    charging: bool
    changed: float | None
    """Unix seconds."""

    @classmethod
    def of(cls, lock: Lock) -> "LockRow":
        """A lock in text. What Tedee did not say stays unsaid."""
        state = lock.synced.device_state or DeviceState()
        level, charging = state.battery_level, bool(state.is_charging)
        return cls(
            name=lock.name,
            facts=_facts(lock),
            state=_state(state),
            door=_said(DoorState, state.door_state, _DOOR_TONES),
            connection=_connection(lock),
            battery=level,
            battery_low=level is not None and level <= LOW_BATTERY and not charging,
            charging=charging,
            changed=state.last_state_changed_date,
        )


@dataclass(frozen=True)
class AccountSection:
    """An account and its locks in text."""

    anchor: str
    """The section's id in the page."""
    status: AccountStatus
    rows: tuple[LockRow, ...] | None
    """None where there is nothing fresh enough to show."""
    awaited_names: int = 0
    """Locks whose names come so late that a person should be told."""

    @classmethod
    def of(cls, anchor: str, status: AccountStatus, clock: Clock) -> "AccountSection":
        """An account in text. A snapshot that is too old by now is not shown."""
        current = status.current(clock.monotonic())
        if current is None:
            return cls(anchor, status, None)
        waits = status.details_wait_until is not None and status.details_wait_until - clock.wall() > WAIT_WORTH_TELLING
        awaited_names = sum(lock.details is None for lock in current.locks) if waits else 0
        return cls(anchor, status, tuple(map(LockRow.of, current.locks)), awaited_names)

    @property
    def standing(self) -> Display:
        """How the account does, in a word or two."""
        if self.status.up is False:
            return Display("failing", "bad")
        if self.stale:
            return Display("stale", "bad")
        return Display("first sync is due", "busy") if self.status.up is None else Display("up", "good")

    @property
    def stale(self) -> bool:
        """Whether the last data is too old to be shown."""
        return self.status.snapshot is not None and self.rows is None

    @property
    def needs_attention(self) -> bool:
        """Whether something is wrong with the account itself, beside what its locks do."""
        return self.standing.severity == "bad" or bool(self.status.missing)

    @property
    def concerns(self) -> tuple[tuple[int, str, str], ...]:
        """(number, text, tone) of what a person should look at, worst first."""
        missing = (len(self.status.missing), "missing", "bad" if self.status.missing else "quiet")
        counts = (missing, *self.summary)
        return tuple(count for tone in ("bad", "warn") for count in counts if count[2] == tone)

    @property
    def summary(self) -> tuple[tuple[int, str, str], ...]:
        """(number, text, tone) of what a person looks for first."""
        rows = self.rows or ()
        counts = (
            (sum(row.state.text == LockState.LOCKED.text for row in rows), "locked", "good"),
            (sum(row.state.severity == "warn" for row in rows), "not locked", "warn"),
            (sum(row.door.severity == "warn" for row in rows), "with door open", "warn"),
            (sum(row.state.severity == "bad" for row in rows), "jammed or unknown", "bad"),
            (sum(row.connection.severity == "bad" for row in rows), "offline", "bad"),
            (sum(row.battery_low for row in rows), "with low battery", "bad"),
        )
        return tuple((count, text, tone if count else "quiet") for count, text, tone in counts)


def sections(registry: StatusRegistry, clock: Clock) -> list[AccountSection]:
    """The accounts in text, in the order of the configuration."""
    return [
        AccountSection.of(f"account-{number}", status, clock)
        for number, status in enumerate(registry.statuses(), start=1)
    ]


def overview(everything: Iterable[AccountSection]) -> list[AccountSection]:
    """The accounts that need attention before the others, each in the order they came in."""
    return sorted(everything, key=lambda section: not section.needs_attention)


def _state(state: DeviceState) -> Display:
    if state.state_change_result == JAMMED:
        return Display("jammed", "bad")
    said = _said(LockState, state.state, _STATE_TONES, "bad")  # what nobody knows is not well
    return Display(f"{said.text}, with an error", "bad") if state.state_change_result else said


def _said(kind: type[Code], code: int | None, tones: dict[int, str], unlisted: str = "quiet") -> Display:
    return NO_VALUE if code is None else Display(kind.describe(code), tones.get(code, unlisted))


def _connection(lock: Lock) -> Display:
    match lock.synced.is_connected:
        case True:
            return Display("connected", "good")
        case False:
            return Display("offline", "bad")
        case None:
            # It may as well be a value that could not be used: only the details tell that there is no bridge.
            return Display("no bridge") if lock.details and lock.details.connected_to_id is None else NO_VALUE


def _facts(lock: Lock) -> str:
    details = lock.details
    if not details:
        return f"id {lock.id}"
    model = LockModel.describe(details.type) if details.type is not None else None
    firmware = f"firmware {details.firmware_version}" if details.firmware_version else None
    update = "update available" if details.firmware_update_available else None
    return " · ".join(filter(None, [model, details.serial_number, firmware, update]))


def moment(at: float) -> str:
    """Unix seconds as a person and a `datetime` attribute read them."""
    return datetime.fromtimestamp(at, UTC).isoformat(sep=" ", timespec="seconds").replace("+00:00", "Z")
