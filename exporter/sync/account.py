"""One account: its syncs, the details of its locks, and the status that it publishes."""

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import inf
from typing import Protocol

import structlog

from exporter.clock import Clock
from exporter.tedee.client import LOCKS, SYNC, Limiter, RequestObserver, TedeeClient
from exporter.tedee.errors import REASONS, CallError, Forbidden, NotFound, Unauthorized
from exporter.tedee.models import (
    LockDetails,
    ParseResult,
    SyncedLock,
    read_details,
    read_sync,
    write_details,
)

from .limiter import NotAllowedYet, RateLimiter
from .lock_details import LockDetailsCache, LockFilter, LockList
from .rate_limits import RateLimitPolicy
from .snapshot import AccountStatus, Durations, Lock, Snapshot
from .store import CachedResponse, Failure, Instant, StateStore

log = structlog.get_logger(__name__)

FOLLOWER_TTL = 600.0
"""Seconds after a call by another process during which the store is checked for its results."""
LONG_WAIT = 60.0
"""Seconds above which a wait for lock details is logged."""
MAX_LOGGED_REJECTIONS = 200
"""Lock fields whose rejected values are logged, each once. Rejected values of further fields are only counted."""
STORE_POLL_INTERVAL = 1.0
"""Seconds between two checks of the store for results of another process."""
CREDENTIAL_POLL_INTERVAL = 2.0
"""Seconds between two checks of a credential that was refused or could not be read."""
CREDENTIAL_REASONS = frozenset({Unauthorized.reason, Forbidden.reason})
"""Failures that another credential may end."""


class ClientFactory(Protocol):
    """Creates the account's client. It gets the rate limiter, so that no client exists without one."""

    def __call__(self, *, limiter: Limiter, observe: RequestObserver) -> TedeeClient:  # noqa: D102
        ...


@dataclass(frozen=True)
class Options:
    """Options of an account, from the configuration."""

    create_client: ClientFactory
    policy: RateLimitPolicy
    stale_after: float
    """Seconds for which a response is served."""
    lock_filter: LockFilter = field(default_factory=LockFilter)


class AccountSync:
    """Syncs one account and publishes a status after each run.

    Runs of one account never overlap, so its attributes need no mutex.
    """

    def __init__(
        self,
        name: str,
        options: Options,
        *,
        limiter: RateLimiter,
        store: StateStore,
        clock: Clock,
        publish: Callable[[AccountStatus], None],
    ) -> None:
        """Load the responses that a previous run of the program, or another process, stored.

        Args:
            name: Name in the configuration and in the `account` label.
            options: Options of the account.
            limiter: Rate limiter of the account.
            store: Stores the last responses.
            clock: Clock for the time of responses and their age.
            publish: Receives each new status.
        """
        self.name = name
        self._options = self._newest_options = options
        self._limiter = limiter
        self._store = store
        self._clock = clock
        self._publish_status = publish
        self._requests: Counter[tuple[str, str]] = Counter()
        self._details = LockDetailsCache(options.lock_filter)
        self._client = self._create_client()
        self._fingerprint = self._client.fingerprint()
        """Fingerprint of the credential that received the served data."""
        self._user = ""
        """Digest of the user of the last call that reached Tedee."""
        self._refused_fingerprint = ""
        self._is_removed = False
        self._removal_lock = threading.Lock()
        """Held while a status is published or a response is stored, so that neither happens after the removal."""
        self._retry = False
        """True if the configuration was reloaded since the last run."""
        self._credential_changed = False
        """True from the change of a refused credential until the next call."""
        self._follows_until = 0.0
        self._ids_may_be_outdated = False
        """True if Tedee does not know one of the requested ids, until the list of locks is fetched."""
        self._is_leader = False
        """True if the last sync was made by this process."""

        self._up: bool | None = None
        self._synced_locks: tuple[SyncedLock, ...] = ()
        self._requested_ids: tuple[int, ...] = ()
        """The ids that the synced locks were requested by; empty for all locks."""
        self._synced_at: Instant | None = None
        self._list_received_at: Instant | None = None
        self._failure: Failure | None = None
        self._details_failure: Failure | None = None
        self._durations = Durations()
        self._failures = Counter(dict.fromkeys(REASONS, 0))
        self._rejection_counts: Counter[str] = Counter()
        self._logged_rejections: set[tuple[int | None, str]] = set()
        self._load_from_store()

    def wait(self) -> float:
        """Return the seconds until the next run is due."""
        if self._newest_options is not self._options:
            return 0.0
        wait = min(self._sync_wait(), self._details_wait())
        if self._credential_is_refused():
            wait = min(wait, CREDENTIAL_POLL_INTERVAL)
        return min(wait, STORE_POLL_INTERVAL) if self._clock.monotonic() < self._follows_until else wait

    def is_reliable(self) -> bool:
        """Return True if the last sync succeeded, so that the next one is expected to end soon."""
        return self._up is True

    def run(self) -> None:
        """Make the call that is due: a sync, or a page of lock details if the last sync requires it.

        If another process makes the calls, load its results from the store.
        """
        changed = self._apply_options()
        changed = self._retry_credential() or changed
        try:
            if self._sync_wait() <= 0 and not self._details.is_unresolved():
                self._sync()
            elif min(self._sync_wait(), self._details_wait()) <= 0:
                self._fetch_details()
            elif not self._load_from_store() and not changed:
                return
        except NotAllowedYet as error:
            if error.by_another:
                log.debug("another process is syncing this account", account=self.name, reason=str(error))
                self._follows_until = self._clock.monotonic() + FOLLOWER_TTL
            else:
                log.debug("request not allowed yet", account=self.name, reason=str(error))
            self._load_from_store()
        self._publish()

    def configure(self, options: Options) -> None:
        """Use other options from the next run on. May be called from any thread."""
        self._newest_options = options
        self._retry = True

    def retry(self) -> None:
        """Try a refused credential again in the next run. May be called from any thread."""
        self._retry = True

    def remove(self) -> None:
        """Stop publishing and storing: the account is no longer configured. May be called from any thread.

        Another `AccountSync` may have the same name from now on.
        """
        with self._removal_lock:
            self._is_removed = True

    def status(self) -> AccountStatus:
        """Return the present status of the account."""
        return AccountStatus(
            account=self.name,
            api_version=self._client.version,
            up=self._up,
            snapshot=self._snapshot(),
            failure=self._failure,
            details_failure=self._details_failure,
            credential_changed=self._credential_changed,
            missing=self._details.missing,
            details_wait_until=self._wall_time_in(self._details_wait()),
            next_sync=self._wall_time_in(self._sync_wait()),
            requests_remaining=self._limiter.remaining(),
            version_supported=self._client.supports_version(),
            credentials_expire_at=self._client.credentials_expire_at(),
            refresh_token_stored=self._client.refresh_token_stored(),
            durations=self._durations,
            failures=dict(self._failures),
            requests=dict(self._requests),
            rejection_counts=dict(self._rejection_counts),
        )

    def _create_client(self) -> TedeeClient:
        self._limiter.policy = self._options.policy
        client = self._options.create_client(limiter=self._limiter, observe=self._count_request)
        self._limiter.set_user(client.user())
        return client

    def _credential_is_refused(self) -> bool:
        """Return True if the account fails because of its credential."""
        failures = (self._failure, self._details_failure)
        return any(failure.reason in CREDENTIAL_REASONS for failure in failures if failure)

    def _retry_credential(self) -> bool:
        """End the wait after a failure of the credential, if another try may succeed. Returns True if it may."""
        retry, self._retry = self._retry, False
        if not self._credential_is_refused():
            return False
        fingerprint = self._client.fingerprint()
        has_changed = fingerprint != self._refused_fingerprint
        if not (has_changed or retry):
            return False
        if has_changed:
            log.info("the credential has changed", account=self.name)
            self._credential_changed = True
        self._refused_fingerprint = fingerprint
        self._limiter.set_user(self._client.user())
        self._limiter.end_backoff()
        return True

    def _wall_time_in(self, seconds: float) -> float | None:
        return None if seconds == inf else self._clock.wall() + seconds

    def _sync_wait(self) -> float:
        """Return the seconds until the next sync, or until the list of locks if the sync needs it first."""
        wait = self._limiter.wait(SYNC)
        return max(wait, self._limiter.wait(LOCKS)) if self._details.is_unresolved() else wait

    def _details_wait(self) -> float:
        """Return the seconds until the next page of lock details; infinity if none is needed or this is a follower."""
        if not self._is_leader:
            return inf
        is_needed = self._ids_may_be_outdated or (
            self._up is True and self._details.needs_refresh(self._synced_locks, self._clock.monotonic())
        )
        return self._limiter.wait(LOCKS) if is_needed else inf

    def _apply_options(self) -> bool:
        """Apply the newest options. Returns True if they changed."""
        options, before = self._newest_options, self._options
        if options is before:
            return False
        self._options = options
        self._client = self._create_client()
        if (fingerprint := self._client.fingerprint()) != self._fingerprint:
            self._forget_user(fingerprint)
            self._limiter.end_backoff()
        elif options.lock_filter != before.lock_filter:
            self._details.set_filter(options.lock_filter)
            self._synced_locks = self._details.select(self._synced_locks)
            if not self._details.is_covered_by(self._requested_ids):
                # The last sync lacks locks that are selected now.
                self._forget_sync()
        return True

    def _forget_user(self, fingerprint: str) -> None:
        """Drop all data, because the user of the new credential may have other locks."""
        self._fingerprint = fingerprint
        self._details = LockDetailsCache(self._options.lock_filter)
        self._list_received_at = None
        self._forget_sync()

    def _forget_sync(self) -> None:
        self._up, self._failure, self._synced_at = None, None, None
        self._synced_locks, self._requested_ids = (), ()

    # The sync

    def _sync(self) -> None:
        started = self._clock.monotonic()
        try:
            parsed = self._client.sync(self._details.ids)
        except CallError as error:
            self._record_failure(error)
        else:
            self._record_success(parsed)
        self._durations = self._durations.observe(self._clock.monotonic() - started)

    def _record_success(self, parsed: ParseResult[SyncedLock]) -> None:
        if self._failure:
            log.info("sync succeeds again", account=self.name)
        self._is_leader = True
        self._ids_may_be_outdated = False
        self._up = True
        self._failure = None
        self._credential_changed = False
        self._fingerprint = self._client.last_fingerprint
        self._user = self._client.last_user
        self._synced_locks = tuple(parsed.rows.values())
        self._requested_ids = self._details.ids
        self._synced_at = Instant.now(self._clock)
        self._record_rejections(parsed)
        # Stored before it is published, so that a restart never serves older data than an earlier scrape.
        self._store_response(SYNC, CachedResponse(parsed.raw_rows, self._synced_at, requested_ids=self._requested_ids))

    def _record_failure(self, error: CallError) -> None:
        if self._is_removed:
            return
        if self._client.last_user not in ("", self._user):
            self._user = self._client.last_user
            if self._client.last_fingerprint != self._fingerprint:
                self._forget_user(self._client.last_fingerprint)
        self._is_leader = True
        self._credential_changed = False
        self._ids_may_be_outdated = bool(self._details.ids) and isinstance(error, NotFound)
        self._up = False
        self._failures[error.reason] += 1
        self._failure = self._failure_of(error)
        log.warning("sync failed", account=self.name, reason=error.reason, error=error.message())
        self._record_refused_credential(error)
        if self._limiter.wait(SYNC) <= 0:
            # The call failed before a request was sent.
            self._limiter.record_failure(SYNC, error.retry_after)
        self._store_response(SYNC, replace(self._cached_response(SYNC, self._fingerprint), failure=self._failure))

    def _record_refused_credential(self, error: CallError) -> None:
        if error.reason in CREDENTIAL_REASONS:
            self._refused_fingerprint = self._client.fingerprint()

    def _record_rejections(self, parsed: ParseResult[SyncedLock] | ParseResult[LockDetails]) -> None:
        """Count rejected values, and log the first one of each field of a lock, up to a limit."""
        self._rejection_counts.update(parsed.rejection_counts)
        for rejection in parsed.rejections:
            key = (rejection.lock_id, rejection.field)
            if key in self._logged_rejections or len(self._logged_rejections) >= MAX_LOGGED_REJECTIONS:
                continue
            self._logged_rejections.add(key)
            log.warning(
                "value of a response cannot be used; its sample is absent (this is logged once)",
                account=self.name,
                lock_id=rejection.lock_id,
                field=rejection.field,
                value=rejection.value,
            )
            if len(self._logged_rejections) == MAX_LOGGED_REJECTIONS:
                log.warning(
                    "further values that cannot be used are only counted, in tedee_rejected_values_total",
                    account=self.name,
                )

    # The lock details

    def _fetch_details(self) -> None:
        """Fetch the next page of the list of locks, and update the lock details after its last page."""
        try:
            page = self._client.locks(self._details.next_page)
            lock_list = self._details.add_page(page, self._synced_locks)
            self._details_failure = None
            self._record_rejections(page)
            if lock_list:
                self._update_details(lock_list)
        except CallError as error:
            if self._details.is_unresolved():
                self._record_failure(error)
                return
            self._details_failure = self._failure_of(error)
            self._record_refused_credential(error)
            if self._limiter.wait(LOCKS) <= 0:
                self._limiter.record_failure(LOCKS, error.retry_after)
            log.warning(
                "lock details could not be fetched",
                account=self.name,
                reason=error.reason,
                error=error.message(),
            )
        if LONG_WAIT < (wait := self._details_wait()) < inf:
            log.info("next fetch of lock details is delayed", account=self.name, seconds=round(wait))

    def _update_details(self, lock_list: LockList) -> None:
        """Use a complete list of locks.

        Raises:
            NotFound: The list has none of the selected locks, so there is nothing to sync.
        """
        known_missing = self._details.missing
        self._details.update(lock_list, self._clock.monotonic())
        self._ids_may_be_outdated = False
        self._list_received_at = Instant.now(self._clock)
        rows = [write_details(each) for each in lock_list.details.values()]
        self._store_response(LOCKS, CachedResponse(rows, self._list_received_at, revisions=lock_list.revisions))
        missing = ", ".join(self._details.missing)
        if self._details.is_unresolved():
            problem = f"the account has none of the selected locks: {missing}"
            raise NotFound(problem, account=self.name, endpoint=LOCKS)
        if missing and self._details.missing != known_missing:
            log.warning("selected locks are not in the account", account=self.name, missing=missing)

    # Responses that a previous run or another process stored

    def _load_from_store(self) -> bool:
        """Load responses that are newer than the present ones. Returns True if there is a newer sync."""
        now = Instant.now(self._clock)
        fingerprint = self._client.fingerprint()
        details = self._cached_response(LOCKS, fingerprint)
        if details.rows is not None and details.at != self._list_received_at:
            self._list_received_at = details.at
            self._details.update(LockList(read_details(details.rows).rows, details.revisions), now.monotonic)
        sync = self._cached_response(SYNC, fingerprint)
        if not sync.at or sync.rows is None or (sync.at, sync.failure) == (self._synced_at, self._failure):
            return False
        age = sync.at.age(now)
        if age is None or age >= self._options.stale_after or not self._details.is_covered_by(sync.requested_ids):
            return False
        self._is_leader = False
        self._up = sync.failure is None
        self._failure = sync.failure
        self._synced_locks = self._details.select(read_sync(sync.rows).rows.values())
        self._requested_ids = sync.requested_ids
        self._synced_at = sync.at
        self._fingerprint = fingerprint
        if self._credential_is_refused():
            self._refused_fingerprint = fingerprint
        return True

    def _store_response(self, endpoint: str, response: CachedResponse) -> None:
        with self._removal_lock:
            if not self._is_removed:
                self._store.store_response(self.name, endpoint, self._fingerprint, response)

    def _cached_response(self, endpoint: str, fingerprint: str) -> CachedResponse:
        return self._store.cached_response(self.name, endpoint, fingerprint) or CachedResponse()

    # The status

    def _snapshot(self) -> Snapshot | None:
        if not self._synced_at:
            return None
        now = Instant.now(self._clock)
        age = self._synced_at.age(now)
        if age is None:
            return None
        locks = tuple(Lock(synced, self._details.details.get(synced.id)) for synced in self._synced_locks)
        # Converted to the current wall clock, so that `time() - timestamp` is the true age even after a clock jump.
        at = now.wall - age
        at = self._synced_at.wall if abs(at - self._synced_at.wall) < 1 else at
        return Snapshot(locks, at, now.monotonic + self._options.stale_after - age)

    def _publish(self) -> None:
        # A reload during the call may have replaced the credential: the data may be of another user's locks.
        self._apply_options()
        with self._removal_lock:
            if not self._is_removed:
                self._publish_status(self.status())

    def _count_request(self, endpoint: str, code: str) -> None:
        self._requests[endpoint, code] += 1

    def _failure_of(self, error: CallError) -> Failure:
        return Failure(error.reason, error.message(), self._clock.wall())
