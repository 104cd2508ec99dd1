"""Immutable results of an account's calls, and the registry from which they are served."""

import threading
from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from itertools import accumulate
from math import inf
from typing import NamedTuple, TypeVar

from exporter.state.responses import Failure
from exporter.tedee.devices import AnyDevice, Device, LockDetails
from exporter.tedee.models import DeviceState, SyncedLock

DeviceT = TypeVar("DeviceT", bound=Device)

SHORT_DELAY = 13.0
"""Seconds for which a fetch is worth waiting: one that would delay the next sync begins up to 11 seconds later."""

DURATION_BOUNDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds in seconds of the histogram of sync durations, from a near server to a long time-out."""


@dataclass(frozen=True, slots=True)
class Connections:
    """The devices that belong to a lock."""

    bridge_name: str | None = None
    keypad_ids: tuple[int, ...] = ()
    door_sensor_ids: tuple[int, ...] = ()


NO_CONNECTIONS = Connections()


@dataclass(frozen=True, slots=True)
class LastKnownState:
    """The last state of a lock that is no longer connected. It is old, and may have changed since."""

    state: DeviceState
    seen_at: float
    """Time in monotonic seconds of the last response in which the lock was connected."""


@dataclass(frozen=True, slots=True)
class Lock:
    """One lock: its row of the last sync, its details, the devices that belong to it, and what was counted."""

    synced: SyncedLock
    details: LockDetails | None = None
    state_changes: int | None = None
    """State changes that were counted; None if no date of one is known."""
    connections: Connections = NO_CONNECTIONS
    events: Mapping[tuple[str, ...], int] = field(default_factory=dict)
    """Number of events by event and source."""
    last_known: LastKnownState | None = None
    """None if the lock is connected, and if it was not connected since the start of the exporter."""

    @property
    def id(self) -> int:
        """Return Tedee's id of the lock."""
        return self.synced.id

    @property
    def label(self) -> str:
        """Return the name that the owner chose; the id if the name is unknown."""
        return self.details.label if self.details else str(self.id)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The locks of an account as the last successful sync returned them."""

    locks: tuple[Lock, ...]
    at: float
    """Time of the response in Unix seconds."""
    fresh_until: float
    """Time in monotonic seconds from which the snapshot is too old to be served."""


@dataclass(frozen=True, slots=True)
class Durations:
    """A histogram of durations in seconds, with the bounds `DURATION_BOUNDS` and infinity."""

    counts: tuple[int, ...] = (0,) * (len(DURATION_BOUNDS) + 1)
    total: float = 0.0

    def observe(self, seconds: float) -> "Durations":
        """Return a histogram with one more duration."""
        bucket = bisect_left(DURATION_BOUNDS, seconds)
        counts = tuple(count + (index == bucket) for index, count in enumerate(self.counts))
        return Durations(counts, self.total + seconds)

    def cumulative(self) -> list[tuple[float, int]]:
        """Return (upper bound, number of durations up to it) of each bucket. The last bound is infinity."""
        return list(zip((*DURATION_BOUNDS, inf), accumulate(self.counts), strict=True))


class RecentEvent(NamedTuple):
    """An event of a lock."""

    at: float
    """Unix seconds."""
    lock_id: int
    event: str
    source: str


@dataclass(frozen=True, slots=True)
class ResourceStatus:
    """Status of a resource other than the sync."""

    title: str
    """Name of a fetch, such as `fetch of devices`."""
    endpoint: str
    """Path of the endpoint."""
    at: float | None = None
    """Time of the last response in Unix seconds; None if unknown."""
    is_permitted: bool | None = None
    """False if the credential lacks the scope of the endpoint, which other resources do not need; None if unknown."""
    devices: tuple[AnyDevice, ...] = ()
    """Devices in the last response that have metrics of their own."""
    fresh_until: float = inf
    """Time in monotonic seconds from which the devices are too old to be served."""
    failure: Failure | None = None
    """Failure of the last fetch; None if it succeeded."""
    delayed_until: float | None = None
    """Time in Unix seconds from which rate limits allow the fetch that is due; None if this process needs none."""
    recent_events: tuple[RecentEvent, ...] = ()
    """Newest events of the account, newest first."""


@dataclass(frozen=True, slots=True)
class AccountStatus:
    """Status of one account, from which metrics and the status page are rendered."""

    account: str
    api_version: str
    up: bool | None = None
    """True if the last sync succeeded; None before the first one."""
    snapshot: Snapshot | None = None
    is_stale: bool = False
    """True if the snapshot was too old to be served and has no locks any more. See `as_of`."""
    failure: Failure | None = None
    """Failure of the last sync; None if it succeeded."""
    other_resources: tuple[ResourceStatus, ...] = ()
    credential_changed: bool = False
    """True if the credential has changed since the failure. The next call uses the new one."""
    missing: tuple[str, ...] = ()
    """Chosen locks that the account does not have, by id or serial number as configured."""
    next_sync: float | None = None
    """Time in Unix seconds at which the next sync is due; None while a sync is in progress."""
    requests_remaining: int | None = None
    version_supported: bool | None = None
    credentials_expire_at: float | None = None
    """Time in Unix seconds from which the user has to sign in again; None if unknown."""
    refresh_token_stored: bool | None = None
    """False while the refresh token is only in memory; None for accounts without OAuth."""
    durations: Durations = field(default_factory=Durations)
    failures: Mapping[str, int] = field(default_factory=dict)
    """Failed syncs by reason."""
    requests: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Requests sent, by endpoint and code."""
    rejection_counts: Mapping[str, int] = field(default_factory=dict)
    """Values that could not be used, by field."""

    def is_complete(self, since: float, now: float) -> bool:
        """Return True if the account was synced, and no other resource can be fetched soon.

        Args:
            since: Time in Unix seconds from which a sync counts. It may be one of another process.
            now: Present time in Unix seconds.
        """
        attempts = sum(self.durations.counts) + sum(self.failures.values())
        synced = [self.snapshot.at if self.snapshot else 0.0, self.failure.at if self.failure else 0.0]
        soon = now + SHORT_DELAY
        waits = all(each.delayed_until is None or each.delayed_until > soon for each in self.other_resources)
        return (attempts > 0 or max(synced) >= since) and waits

    def fresh_snapshot(self, now: float) -> Snapshot | None:
        """Return the snapshot; None if it is too old to be served at `now` (monotonic seconds)."""
        return self.snapshot if self.snapshot and now < self.snapshot.fresh_until else None

    @property
    def fresh_until(self) -> float:
        """Time in monotonic seconds from which some of the devices are too old to be served."""
        times = [each.fresh_until for each in self.other_resources if each.devices]
        return min([*times, self.snapshot.fresh_until] if self.snapshot and not self.is_stale else times, default=inf)

    def as_of(self, now: float) -> "AccountStatus":
        """Return the status as it is served at `now` (monotonic seconds): without devices that are too old."""
        if now < self.fresh_until:
            return self
        others = tuple(each if now < each.fresh_until else replace(each, devices=()) for each in self.other_resources)
        if self.snapshot is None or self.fresh_snapshot(now):
            return replace(self, other_resources=others)
        return replace(self, other_resources=others, snapshot=replace(self.snapshot, locks=()), is_stale=True)

    def devices(self, kind: type[DeviceT]) -> tuple[DeviceT, ...]:
        """Return the devices of a kind other than locks. They are too old to be served after `fresh_until`."""
        devices = (device for each in self.other_resources for device in each.devices if isinstance(device, kind))
        # A device may be in the responses of two endpoints.
        return tuple({device.id: device for device in devices}.values())


class StatusRegistry:
    """The newest status of each account, in the order of the configuration.

    The workers of the scheduler write it and the web server reads it. Readers get an immutable tuple.
    """

    def __init__(self) -> None:
        self._statuses: dict[str, AccountStatus] = {}
        self._accounts: tuple[str, ...] = ()
        self._lock = threading.Lock()
        self._on_change: Callable[[], None] = lambda: None

    def statuses(self) -> tuple[AccountStatus, ...]:
        """Return the newest status of each account."""
        statuses = self._statuses
        return tuple(statuses[account] for account in self._accounts if account in statuses)

    def publish(self, status: AccountStatus) -> None:
        """Replace the status of an account, and call the listener on this thread."""
        with self._lock:
            if status.account not in self._accounts:
                # The account was removed during its sync.
                return
            self._statuses = {**self._statuses, status.account: status}
        self._on_change()

    def remove_devices(self, account: str) -> None:
        """Remove the devices of an account until the account publishes again."""
        with self._lock:
            if account not in self._statuses:
                return
            status = self._statuses[account]
            others = tuple(replace(each, devices=()) for each in status.other_resources)
            self._statuses = {**self._statuses, account: replace(status, snapshot=None, other_resources=others)}
        self._on_change()

    def set_accounts(self, accounts: Collection[str]) -> None:
        """Replace the list of accounts. The statuses of accounts that stay are not changed."""
        with self._lock:
            self._accounts = tuple(accounts)
            self._statuses = {account: self._statuses[account] for account in accounts if account in self._statuses}
        self._on_change()

    def on_change(self, listener: Callable[[], None]) -> None:
        """Set the listener. It is called after each change of the registry."""
        self._on_change = listener
