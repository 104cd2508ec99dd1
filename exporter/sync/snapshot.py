"""What one account's last sync said, and how its calls went: immutable, and swapped whole."""

import threading
from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from itertools import accumulate
from math import inf

from exporter.tedee.models import LockDetails, SyncedLock

from .store import Failure

DURATION_BOUNDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds in seconds of the buckets for a sync's duration: from a near server to a generous time-out."""


@dataclass(frozen=True, slots=True)
class Lock:
    """One lock: what the last sync said of it, and what is known beside that."""

    synced: SyncedLock
    details: LockDetails | None = None

    @property
    def id(self) -> int:
        """Tedee's id of the lock."""
        return self.synced.id

    @property
    def name(self) -> str:
        """The name its owner gave it; its id until that is known."""
        return (self.details.name if self.details else None) or str(self.id)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What one account's last successful sync said."""

    locks: tuple[Lock, ...]
    at: float
    """Unix seconds of the answer."""
    fresh_until: float
    """Monotonic seconds from which on it is too old to be served."""


@dataclass(frozen=True, slots=True)
class Durations:
    """A histogram of seconds, over DURATION_BOUNDS and infinity."""

    counts: tuple[int, ...] = (0,) * (len(DURATION_BOUNDS) + 1)
    total: float = 0.0

    def observe(self, seconds: float) -> "Durations":
        """The histogram with one more duration in it."""
        bucket = bisect_left(DURATION_BOUNDS, seconds)
        counts = tuple(count + (index == bucket) for index, count in enumerate(self.counts))
        return Durations(counts, self.total + seconds)

    def cumulative(self) -> list[tuple[float, int]]:
        """(upper bound, observations up to it), the last bound infinite."""
        return list(zip((*DURATION_BOUNDS, inf), accumulate(self.counts), strict=True))


@dataclass(frozen=True, slots=True)
class AccountStatus:
    """All that is served about one account."""

    account: str
    api_version: str
    up: bool | None = None
    """Whether the last sync succeeded; None before the first was tried."""
    snapshot: Snapshot | None = None
    failure: Failure | None = None
    """Of the last sync; None when it succeeded."""
    details_failure: Failure | None = None
    """Of the last call for names; None when it succeeded."""
    credential_changed: bool = False
    """True if the credential has changed since the failure, and is tried next."""
    missing: tuple[str, ...] = ()
    """LockFilter locks, by the id or serial number of the configuration, that the account does not have."""
    names_wait_until: float | None = None
    """Unix seconds from which the list of names goes on; None when it is complete or not wanted."""
    next_sync: float | None = None
    """Unix seconds from which on the next call may go out; None while it is out."""
    requests_remaining: int | None = None
    version_supported: bool | None = None
    credentials_expire_at: float | None = None
    """Unix seconds at which somebody has to sign in again, where that is known."""
    refresh_token_stored: bool | None = None
    """False while the refresh token is in memory only; None for accounts without OAuth."""
    durations: Durations = field(default_factory=Durations)
    failures: Mapping[str, int] = field(default_factory=dict)
    """Failed syncs by reason."""
    requests: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Requests sent, by endpoint and code."""
    rejections: Mapping[str, int] = field(default_factory=dict)
    """Values that could not be used, by field."""

    def settled(self, since: float, now: float) -> bool:
        """Return True if the account was synced, and has all names that it can have now.

        Args:
            since: Unix seconds from which a sync counts, also one of another process, which shares the limits.
            now: Unix seconds.
        """
        attempts = sum(self.durations.counts) + sum(self.failures.values())
        synced = [self.snapshot.at if self.snapshot else 0.0, self.failure.at if self.failure else 0.0]
        has_names = self.names_wait_until is None or self.names_wait_until > now + 1
        return (attempts > 0 or max(synced) >= since) and has_names

    def current(self, now: float) -> Snapshot | None:
        """The snapshot, unless it is too old to be served at `now` (monotonic seconds)."""
        return self.snapshot if self.snapshot and now < self.snapshot.fresh_until else None


class StatusRegistry:
    """The newest status of each account, in the order of the configuration.

    The one place where the workers that sync and the loop that serves meet: a reader gets a tuple that no later
    sync changes.
    """

    def __init__(self) -> None:
        self._statuses: dict[str, AccountStatus] = {}
        self._members: tuple[str, ...] = ()
        self._lock = threading.Lock()
        self._on_change: Callable[[], None] = lambda: None

    def statuses(self) -> tuple[AccountStatus, ...]:
        """All accounts, newest status each."""
        statuses = self._statuses
        return tuple(statuses[account] for account in self._members if account in statuses)

    def publish(self, status: AccountStatus) -> None:
        """Replace an account's status, and let the listener know on this thread."""
        with self._lock:
            if status.account not in self._members:
                # The last word of an account that was taken off while it was syncing.
                return
            self._statuses = {**self._statuses, status.account: status}
        self._on_change()

    def remove(self, account: str) -> None:
        """Serve no locks of an account until it publishes again."""
        with self._lock:
            if account not in self._statuses:
                return
            withdrawn = replace(self._statuses[account], snapshot=None)
            self._statuses = {**self._statuses, account: withdrawn}
        self._on_change()

    def set_accounts(self, accounts: Collection[str]) -> None:
        """Have just these accounts on the registry, in this order; what is known of those that stay, stays."""
        with self._lock:
            self._members = tuple(accounts)
            self._statuses = {account: self._statuses[account] for account in accounts if account in self._statuses}
        self._on_change()

    def on_change(self, listener: Callable[[], None]) -> None:
        """Have one listener called after each `publish`."""
        self._on_change = listener
