"""The content of the status page: the accounts and their locks as text."""

from collections.abc import Iterable
from dataclasses import dataclass

from exporter.clock import Clock
from exporter.presentation import DeviceRow, Display, LockRow, device_rows, event_text
from exporter.sync.snapshot import AccountStatus, ResourceStatus, StatusRegistry
from exporter.tedee.models import LockState

MIN_REPORTED_WAIT = 60.0
"""Seconds. If rate limits delay a fetch for less, the page does not mention it."""


@dataclass(frozen=True)
class AccountView:
    """An account and its locks as text."""

    anchor: str
    """The HTML id of the account's part of the page."""
    status: AccountStatus
    rows: tuple[LockRow, ...] | None
    """None if there is no data, or only stale data."""
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
        return cls(
            anchor, status, tuple(map(LockRow.of, current.locks)), device_rows(status, current.locks), delayed, unnamed
        )

    @property
    def sync_state(self) -> Display:
        """The result of the last sync, or that the data is stale."""
        if self.status.up is False:
            return Display("failing", "bad")
        if self.is_stale:
            return Display("stale", "bad")
        return Display("first sync pending", "busy") if self.status.up is None else Display("up", "good")

    @property
    def is_stale(self) -> bool:
        """True if the last data is too old to be shown."""
        return self.status.snapshot is not None and self.rows is None

    @property
    def needs_attention(self) -> bool:
        """True if the account itself has a problem, apart from the states of its locks."""
        return self.sync_state.severity == "bad" or bool(self.status.missing)

    @property
    def problems(self) -> tuple[tuple[int, str, str], ...]:
        """(number, text, severity) of each kind of problem, worst first."""
        missing = (len(self.status.missing), "missing", "bad" if self.status.missing else "quiet")
        counts = (missing, *self.summary)
        return tuple(count for severity in ("bad", "warn") for count in counts if count[2] == severity)

    @property
    def summary(self) -> tuple[tuple[int, str, str], ...]:
        """(number, text, severity) of locks by state."""
        rows = self.rows or ()
        counts = (
            (sum(row.state.text == LockState.LOCKED.text for row in rows), "locked", "good"),
            (sum(row.state.severity == "warn" for row in rows), "not locked", "warn"),
            (sum(row.door.severity == "warn" for row in rows), "with door open", "warn"),
            (sum(row.state.severity == "bad" for row in rows), "jammed or unknown", "bad"),
            (sum(row.connection.severity == "bad" for row in rows), "offline", "bad"),
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
