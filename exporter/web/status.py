"""The content of the status page: the accounts and their locks as text."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from exporter.clock import Clock
from exporter.presentation import (
    CONNECTIONS,
    NO_BRIDGE,
    NO_VALUE,
    DeviceRow,
    Display,
    LockRow,
    device_rows,
    event_text,
)
from exporter.sync.snapshot import AccountStatus, ResourceStatus, StatusRegistry

MIN_REPORTED_WAIT = 60.0
"""Seconds. If rate limits delay a fetch for less, the page does not mention it."""

Count = tuple[int, str, str]
"""Number, text and severity."""

_GROUPS: Mapping[str, tuple[str, str, bool]] = {
    "good": ("of {total} locked", "good", True),
    "warn": ("not locked", "warn", True),
    "bad": ("jammed or unclear", "bad", True),
    "offline": ("offline", "bad", True),
    "busy": ("moving or updating", "busy", False),
    "no bridge": ("without a bridge", "busy", False),
    "no state": ("without a state", "bad", False),
}
"""Text and severity of each group of locks, and whether it is shown if it is empty."""


def _group(row: LockRow) -> str:
    """Return the group of a lock."""
    if row.connection == CONNECTIONS[False]:
        return "offline"
    if row.state != NO_VALUE:
        return row.state.severity
    return "no bridge" if row.connection == NO_BRIDGE else "no state"


@dataclass(frozen=True)
class AccountView:
    """An account and its locks as text."""

    anchor: str
    """The HTML id of the account's part of the page."""
    status: AccountStatus
    rows: tuple[LockRow, ...] | None
    """Those that need most attention first, and then those that changed last; None without data that is fresh."""
    devices: tuple[DeviceRow, ...] = ()
    """Devices other than locks."""
    delayed: tuple[ResourceStatus, ...] = ()
    """Resources that are due, but that rate limits delay."""
    unnamed: int = 0
    """Number of locks whose names are not known yet."""

    @classmethod
    def of(cls, anchor: str, status: AccountStatus, clock: Clock) -> "AccountView":
        """Return the view of an account, without the locks of a stale snapshot."""
        status = status.as_of(clock.monotonic())
        current = status.snapshot
        if current is None or status.is_stale:
            return cls(anchor, status, None)
        reported = clock.wall() + MIN_REPORTED_WAIT
        delayed = tuple(each for each in status.other_resources if (each.delayed_until or 0.0) > reported)
        unnamed = sum(lock.details is None for lock in current.locks)
        rows = sorted(map(LockRow.of, current.locks), key=lambda row: (-row.attention, -(row.changed or 0.0)))
        return cls(anchor, status, tuple(rows), device_rows(status, current.locks), delayed, unnamed)

    @property
    def sync_state(self) -> Display:
        """The result of the last sync, or that the data is stale."""
        if self.status.up is False:
            return Display("failing", "bad")
        if self.is_stale:
            return Display("stale", "bad")
        return Display("first sync pending", "busy") if self.status.up is None else Display("up to date", "good")

    @property
    def is_stale(self) -> bool:
        """True if the last data is too old to be shown."""
        return self.status.snapshot is not None and self.rows is None

    @property
    def needs_attention(self) -> bool:
        """True if the account itself has a problem, apart from the states of its locks."""
        return self.sync_state.severity == "bad" or bool(self.status.missing)

    @property
    def problems(self) -> tuple[Count, ...]:
        """(number, text, severity) of each kind of problem, worst first."""
        missing = (len(self.status.missing), "missing", "bad" if self.status.missing else "quiet")
        counts = (missing, *self.states, *self.other_counts)
        return tuple(count for severity in ("bad", "warn") for count in counts if count[2] == severity)

    @property
    def states(self) -> tuple[Count, ...]:
        """(number, text, severity) of locks by state. Each lock is counted once."""
        rows = self.rows or ()
        counted = Counter(map(_group, rows))
        return tuple(
            (counted[group], text.format(total=len(rows)), severity if counted[group] else "quiet")
            for group, (text, severity, is_always_shown) in _GROUPS.items()
            if counted[group] or is_always_shown
        )

    @property
    def other_counts(self) -> tuple[Count, ...]:
        """(number, text, severity) of open doors and low batteries, and of other devices with problems."""
        rows = self.rows or ()
        counts = (
            (sum(row.door.severity == "warn" for row in rows), "with door open", "warn"),
            (sum(row.battery_low for row in rows), "with low battery", "warn"),
            (sum(each.connection.severity == "bad" for each in self.devices), "offline (bridges, gates)", "bad"),
            (sum(each.battery_low for each in self.devices), "with low battery (keypads, sensors)", "warn"),
        )
        shown = counts if self.devices else counts[:-2]
        return tuple((count, text, severity if count else "quiet") for count, text, severity in shown)

    @property
    def events(self) -> tuple[tuple[float, str, str], ...]:
        """Time in Unix seconds, name of the lock, and text of the newest events."""
        if self.rows is None or self.status.snapshot is None:
            return ()
        names = {lock.id: lock.label for lock in self.status.snapshot.locks}
        return tuple(
            (each.at, names.get(each.lock_id, str(each.lock_id)), event_text(each.event, each.source))
            for resource in self.status.other_resources
            for each in resource.recent_events
        )

    @property
    def events_refused(self) -> bool:
        """True if events are enabled, but the credential lacks the scope for them."""
        return any(each.is_permitted is False for each in self.status.other_resources)


def account_views(registry: StatusRegistry, clock: Clock) -> list[AccountView]:
    """Return the view of each account, in the order of the configuration."""
    return [
        AccountView.of(f"account-{number}", status, clock) for number, status in enumerate(registry.statuses(), start=1)
    ]


def attention_first(views: Iterable[AccountView]) -> list[AccountView]:
    """Sort the accounts that need attention before the others, and otherwise keep the order."""
    return sorted(views, key=lambda view: not view.needs_attention)
