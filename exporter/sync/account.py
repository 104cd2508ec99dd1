"""One account: its syncs, the names of its locks, and what the registry is told of them."""

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import inf
from typing import Protocol

import structlog

from exporter.clock import Clock
from exporter.tedee.client import LOCKS, SYNC, RequestObserver, TedeeClient
from exporter.tedee.client import RateLimiter as RateLimiterProtocol
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
"""Seconds for which another process that synced this account is taken to be still there."""
LONG_WAIT = 60.0
"""Seconds from which on a wait for names is logged."""
MAX_LOGGED_REJECTIONS = 200
"""Lock fields whose rejected values are logged, each once. Those of more fields are only counted."""
STORE_POLL_INTERVAL = 1.0
"""Seconds between two looks into the store for what another process received."""
CREDENTIAL_POLL_INTERVAL = 2.0
"""Seconds between two looks at a credential that was refused, or could not be read."""
CREDENTIAL_REASONS = frozenset({Unauthorized.reason, Forbidden.reason})
"""Failures that another credential may end."""


class Connect(Protocol):
    """Makes the account's client. It gets the rate limiter here, so that there is no client without one."""

    def __call__(self, *, limiter: RateLimiterProtocol, observe: RequestObserver) -> TedeeClient:  # noqa: D102
        ...


@dataclass(frozen=True)
class Options:
    """What the configuration says of an account."""

    connect: Connect
    policy: RateLimitPolicy
    stale_after: float
    """Seconds for which a response is served."""
    chosen: LockFilter = field(default_factory=LockFilter)


class AccountSync:
    """Syncs one account, turn by turn, and publishes what came of each.

    Turns of one account never overlap: its state needs no lock.
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
            name: In the configuration and in the `account` label.
            options: What the configuration says.
            limiter: The account's rate limiter.
            store: Has the last responses.
            clock: For the time of responses and their age.
            publish: Takes each new status.
        """
        self.name = name
        self._options = self._newest_options = options
        self._limiter = limiter
        self._store = store
        self._clock = clock
        self._publish_status = publish
        self._requests: Counter[tuple[str, str]] = Counter()
        self._details = LockDetailsCache(options.chosen)
        self._client = self._connect()
        self._credential = self._client.credential()
        """Of the data that is served: a digest."""
        self._user = ""
        """Of the last call that reached Tedee: a digest."""
        self._refused_credential = ""
        self._is_removed = False
        self._removal = threading.Lock()
        """StoredToken while something is published or stored, so that nothing is after the removal."""
        self._retry = False
        """True if the configuration was reloaded."""
        self._credential_changed = False
        """True from a change of a refused credential until it is tried."""
        self._follows_until = 0.0
        self._ids_in_doubt = False
        """Whether Tedee knows one of the chosen ids no more, until the list has told which."""
        self._is_leader = False
        """True if the last sync was made by this process."""

        self._up: bool | None = None
        self._synced: tuple[SyncedLock, ...] = ()
        self._asked: tuple[int, ...] = ()
        """The ids that they were asked for by; none for all."""
        self._synced_at: Instant | None = None
        self._listed_at: Instant | None = None
        self._failure: Failure | None = None
        self._details_failure: Failure | None = None
        self._durations = Durations()
        self._failures = Counter(dict.fromkeys(REASONS, 0))
        self._rejections: Counter[str] = Counter()
        self._logged_rejections: set[tuple[int | None, str]] = set()
        self._load_from_store()

    def wait(self) -> float:
        """Seconds until the next turn is due."""
        if self._newest_options is not self._options:
            return 0.0
        wait = min(self._sync_wait(), self._names_wait())
        if self._credential_is_refused():
            wait = min(wait, CREDENTIAL_POLL_INTERVAL)
        return min(wait, STORE_POLL_INTERVAL) if self._clock.monotonic() < self._follows_until else wait

    def is_reliable(self) -> bool:
        """Return True if the last sync succeeded, so that the next one may be expected to end soon."""
        return self._up is True

    def run(self) -> None:
        """Make the call that is due: a sync, or else a page of names where a sync has shown that they are wanted.

        If another process makes the calls, take what it received.
        """
        changed = self._apply_options()
        changed = self._retry_credential() or changed
        try:
            if self._sync_wait() <= 0 and not self._details.unresolved():
                self._sync()
            elif min(self._sync_wait(), self._names_wait()) <= 0:
                self._fetch_names()
            elif not self._load_from_store() and not changed:
                return
        except NotAllowedYet as error:
            log.debug("request not allowed yet", account=self.name, reason=str(error))
            if error.by_another:
                self._follows_until = self._clock.monotonic() + FOLLOWER_TTL
            self._load_from_store()
        self._publish()

    def configure(self, options: Options) -> None:
        """Go on with other options from the next turn on. May be called from any thread."""
        self._newest_options = options
        self._retry = True

    def retry(self) -> None:
        """End the wait after a failure of the credential from the next turn on. May be called from any thread."""
        self._retry = True

    def remove(self) -> None:
        """Publish, store and report nothing more: the account is no longer configured. May be called from any thread.

        Another object may have the same name from now on.
        """
        with self._removal:
            self._is_removed = True

    def status(self) -> AccountStatus:
        """All that is served about the account, as it is now."""
        return AccountStatus(
            account=self.name,
            api_version=self._client.version,
            up=self._up,
            snapshot=self._snapshot(),
            failure=self._failure,
            details_failure=self._details_failure,
            credential_changed=self._credential_changed,
            missing=self._details.missing,
            names_wait_until=self._wall_in(self._names_wait()),
            next_sync=self._wall_in(self._sync_wait()),
            requests_remaining=self._limiter.remaining(),
            version_supported=self._client.supports_version(),
            credentials_expire_at=self._client.credentials_expire_at(),
            refresh_token_stored=self._client.refresh_token_stored(),
            durations=self._durations,
            failures=dict(self._failures),
            requests=dict(self._requests),
            rejections=dict(self._rejections),
        )

    def _connect(self) -> TedeeClient:
        self._limiter.policy = self._options.policy
        client = self._options.connect(limiter=self._limiter, observe=self._count_request)
        self._limiter.set_user(client.user())
        return client

    def _credential_is_refused(self) -> bool:
        """Return True if the account fails because of its credential."""
        failures = (self._failure, self._details_failure)
        return any(failure.reason in CREDENTIAL_REASONS for failure in failures if failure)

    def _retry_credential(self) -> bool:
        """End the wait after a failure of the credential, if another try may succeed. Returns True if it does."""
        retry, self._retry = self._retry, False
        if not self._credential_is_refused():
            return False
        credential = self._client.credential()
        has_changed = credential != self._refused_credential
        if not (has_changed or retry):
            return False
        if has_changed:
            log.info("the credential has changed", account=self.name)
            self._credential_changed = True
        self._refused_credential = credential
        self._limiter.set_user(self._client.user())
        self._limiter.end_backoff()
        return True

    def _wall_in(self, seconds: float) -> float | None:
        return None if seconds == inf else self._clock.wall() + seconds

    def _sync_wait(self) -> float:
        """Seconds until the next sync, or until the list of locks without which it is not known what to sync."""
        wait = self._limiter.wait(SYNC)
        return max(wait, self._limiter.wait(LOCKS)) if self._details.unresolved() else wait

    def _names_wait(self) -> float:
        """Seconds until the next page of names; infinite where none is wanted, or a neighbour sees to it."""
        if not self._is_leader:
            return inf
        wanted = self._ids_in_doubt or (
            self._up is True and self._details.needs_refresh(self._synced, self._clock.monotonic())
        )
        return self._limiter.wait(LOCKS) if wanted else inf

    def _apply_options(self) -> bool:
        """Go over to the newest options; whether there were any."""
        options, before = self._newest_options, self._options
        if options is before:
            return False
        self._options = options
        self._client = self._connect()
        if (credential := self._client.credential()) != self._credential:
            self._forget_user(credential)
            self._limiter.end_backoff()
        elif options.chosen != before.chosen:
            self._details.set_filter(options.chosen)
            self._synced = self._details.wants(self._synced)
            if not self._details.covered_by(self._asked):
                # What is known is of other locks.
                self._forget_sync()
        return True

    def _forget_user(self, credential: str) -> None:
        """Go over to another credential, whose user may have other locks."""
        self._credential = credential
        self._details = LockDetailsCache(self._options.chosen)
        self._listed_at = None
        self._forget_sync()

    def _forget_sync(self) -> None:
        self._up, self._failure, self._synced, self._asked, self._synced_at = None, None, (), (), None

    # The sync

    def _sync(self) -> None:
        started = self._clock.monotonic()
        try:
            parsed = self._client.sync(self._details.ids)
        except CallError as error:
            self._fail(error)
        else:
            self._succeed(parsed)
        self._durations = self._durations.observe(self._clock.monotonic() - started)

    def _succeed(self, parsed: ParseResult[SyncedLock]) -> None:
        if self._failure:
            log.info("sync succeeds again", account=self.name)
        self._is_leader = True
        self._ids_in_doubt = False
        self._up = True
        self._failure = None
        self._credential_changed = False
        self._credential = self._client.last_credential
        self._user = self._client.last_user
        self._synced = tuple(parsed.rows.values())
        self._asked = self._details.ids
        self._synced_at = Instant.now(self._clock)
        self._reject(parsed)
        # Stored before it is published, so that a restart never serves older data than an earlier scrape.
        self._cache(SYNC, CachedResponse(parsed.raw_rows, self._synced_at, asked=self._asked))

    def _fail(self, error: CallError) -> None:
        if self._is_removed:
            return
        if self._client.last_user not in ("", self._user):
            self._user = self._client.last_user
            if self._client.last_credential != self._credential:
                self._forget_user(self._client.last_credential)
        self._is_leader = True
        self._credential_changed = False
        self._ids_in_doubt = bool(self._details.ids) and isinstance(error, NotFound)
        self._up = False
        self._failures[error.reason] += 1
        self._failure = self._failure_of(error)
        log.warning("sync failed", account=self.name, reason=error.reason, error=error.message())
        self._note_refusal(error)
        if self._limiter.wait(SYNC) <= 0:
            # It failed before a request was sent.
            self._limiter.record_failure(SYNC, error.retry_after)
        self._cache(SYNC, replace(self._cached(SYNC, self._credential), failure=self._failure))

    def _note_refusal(self, error: CallError) -> None:
        if error.reason in CREDENTIAL_REASONS:
            self._refused_credential = self._client.credential()

    def _reject(self, parsed: ParseResult[SyncedLock] | ParseResult[LockDetails]) -> None:
        """Count the values that could not be used, and log each lock's field the first time, up to a limit."""
        self._rejections.update(parsed.rejection_counts)
        for rejection in parsed.rejections:
            what = (rejection.lock_id, rejection.field)
            if what in self._logged_rejections or len(self._logged_rejections) >= MAX_LOGGED_REJECTIONS:
                continue
            self._logged_rejections.add(what)
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

    # The names

    def _fetch_names(self) -> None:
        """Fetch the next page of names and the rest, and learn from them once the list is complete."""
        try:
            page = self._client.locks(self._details.next_page)
            listing = self._details.add_page(page, self._synced)
            self._details_failure = None
            self._reject(page)
            if listing:
                self._learn(listing)
        except CallError as error:
            if self._details.unresolved():
                self._fail(error)
                return
            self._details_failure = self._failure_of(error)
            self._note_refusal(error)
            if self._limiter.wait(LOCKS) <= 0:
                self._limiter.record_failure(LOCKS, error.retry_after)
            log.warning("names could not be fetched", account=self.name, reason=error.reason, error=error.message())
        if LONG_WAIT < (wait := self._names_wait()) < inf:
            log.info("names are fetched later", account=self.name, seconds=round(wait))

    def _learn(self, listing: LockList) -> None:
        """Take a complete list.

        Raises:
            NotFound: it has none of the chosen locks, and so there is nothing to sync.
        """
        known_missing = self._details.missing
        self._details.update(listing, self._clock.monotonic())
        self._ids_in_doubt = False
        self._listed_at = Instant.now(self._clock)
        rows = [write_details(each) for each in listing.details.values()]
        self._cache(LOCKS, CachedResponse(rows, self._listed_at, revisions=listing.revisions))
        missing = ", ".join(self._details.missing)
        if self._details.unresolved():
            problem = f"the account has none of the chosen locks: {missing}"
            raise NotFound(problem, account=self.name, endpoint=LOCKS)
        if missing and self._details.missing != known_missing:
            log.warning("chosen locks are not in the account", account=self.name, missing=missing)

    # What a previous run, or another process, stored

    def _load_from_store(self) -> bool:
        """Load responses that are newer than those here. Returns True if there were any."""
        now = Instant.now(self._clock)
        credential = self._client.credential()
        names = self._cached(LOCKS, credential)
        if names.rows is not None and names.at != self._listed_at:
            self._listed_at = names.at
            self._details.update(LockList(read_details(names.rows).rows, names.revisions), now.monotonic)
        sync = self._cached(SYNC, credential)
        if not sync.at or sync.rows is None or (sync.at, sync.failure) == (self._synced_at, self._failure):
            return False
        age = sync.at.age(now)
        if age is None or age >= self._options.stale_after or not self._details.covered_by(sync.asked):
            return False
        self._is_leader = False
        self._up = sync.failure is None
        self._failure = sync.failure
        self._synced = self._details.wants(read_sync(sync.rows).rows.values())
        self._asked = sync.asked
        self._synced_at = sync.at
        self._credential = credential
        if self._credential_is_refused():
            self._refused_credential = credential
        return True

    def _cache(self, endpoint: str, response: CachedResponse) -> None:
        with self._removal:
            if not self._is_removed:
                self._store.cache(self.name, endpoint, self._credential, response)

    def _cached(self, endpoint: str, credential: str) -> CachedResponse:
        return self._store.cached(self.name, endpoint, credential) or CachedResponse()

    # What the registry is told

    def _snapshot(self) -> Snapshot | None:
        if not self._synced_at:
            return None
        now = Instant.now(self._clock)
        age = self._synced_at.age(now)
        if age is None:
            return None
        locks = tuple(Lock(synced, self._details.details.get(synced.id)) for synced in self._synced)
        # Converted to the current wall clock, so that `time() - timestamp` is the true age even after a clock jump.
        at = now.wall - age
        at = self._synced_at.wall if abs(at - self._synced_at.wall) < 1 else at
        return Snapshot(locks, at, now.monotonic + self._options.stale_after - age)

    def _publish(self) -> None:
        # A reload during the call may have replaced the credential, and the data may be of another user's locks.
        self._apply_options()
        with self._removal:
            if not self._is_removed:
                self._publish_status(self.status())

    def _count_request(self, endpoint: str, code: str) -> None:
        self._requests[endpoint, code] += 1

    def _failure_of(self, error: CallError) -> Failure:
        return Failure(error.reason, error.message(), self._clock.wall())
