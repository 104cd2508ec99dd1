"""One account: its syncs, the names of its locks, and what the board is told of them."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import inf
from typing import Protocol

import structlog

from exporter.clock import Clock
from exporter.tedee.client import LOCKS, SYNC, Gate, RequestObserver, TedeeClient
from exporter.tedee.errors import REASONS, CallError, NotFound
from exporter.tedee.models import (
    LockDetails,
    Reading,
    SyncedLock,
    read_details,
    read_sync,
    write_details,
)

from .budget import Budget, Rules
from .directory import Chosen, Directory, Listing
from .ledger import CalledTooEarly, Failure, Kept, Stamp
from .snapshot import AccountStatus, Durations, Lock, Snapshot

log = structlog.get_logger(__name__)

NEIGHBOUR = 600.0
"""Seconds for which another process that was met at the gate is taken to be still there."""
LONG = 60.0
"""Seconds from which on a wait for names is worth a word."""
MAX_LOGGED_REJECTIONS = 200
"""Lock fields whose rejected values are logged, each once. Those of more fields are only counted."""
LOOK_OVER = 1.0
"""Seconds between two looks at what a neighbour got."""


class Connect(Protocol):
    """Makes the account's client. It gets the gate here, so that there is none without."""

    def __call__(self, *, gate: Gate, observe: RequestObserver) -> TedeeClient:  # noqa: D102
        ...


@dataclass(frozen=True)
class Options:
    """What the configuration says of an account."""

    connect: Connect
    rules: Rules
    stale_after: float
    """Seconds an answer is served."""
    chosen: Chosen = field(default_factory=Chosen)
    user: str = ""
    """Tells a changed user from a rotated key; not a secret."""


class AccountSync:
    """Syncs one account, turn by turn, and publishes what came of each.

    Turns of one account never overlap: its state needs no lock.
    """

    def __init__(
        self,
        name: str,
        options: Options,
        budget: Budget,
        clock: Clock,
        publish: Callable[[AccountStatus], None],
    ) -> None:
        """Begin with what an earlier life of this process, or a neighbour, has kept.

        Args:
            name: in the configuration and in the `account` label.
            options: what the configuration says.
            budget: the account's gate.
            clock: for the time of answers and their age.
            publish: takes each new status.
        """
        self.name = name
        self._options = self._newest_options = options
        self._budget = budget
        self._clock = clock
        self._publish_status = publish
        self._requests: Counter[tuple[str, str]] = Counter()
        self._directory = Directory(options.chosen)
        self._client = self._connect()
        self._neighbour_until = 0.0
        self._ids_in_doubt = False
        """Whether Tedee knows one of the chosen ids no more, until the list has told which."""
        self._is_caller = False
        """Whether the last sync was this process's own."""

        self._up: bool | None = None
        self._synced: tuple[SyncedLock, ...] = ()
        self._asked: tuple[int, ...] = ()
        """The ids that they were asked for by; none for all."""
        self._synced_at: Stamp | None = None
        self._listed_at: Stamp | None = None
        self._failure: Failure | None = None
        self._details_failure: Failure | None = None
        self._durations = Durations()
        self._failures = Counter(dict.fromkeys(REASONS, 0))
        self._rejections: Counter[str] = Counter()
        self._logged_rejections: set[tuple[int | None, str]] = set()
        self._look_over()

    def wait(self) -> float:
        """Seconds until the next turn is due."""
        wait = min(self._sync_wait(), self._names_wait())
        return min(wait, LOOK_OVER) if self._clock.monotonic() < self._neighbour_until else wait

    def turn(self) -> None:
        """Make the call that is due: a sync, or else a page of names where a sync has shown that they are wanted.

        Where another process is at it, take what that one got.
        """
        changed = self._apply_options()
        try:
            if self._sync_wait() <= 0 and not self._directory.unresolved():
                self._sync()
            elif min(self._sync_wait(), self._names_wait()) <= 0:
                self._fetch_names()
            elif not self._look_over() and not changed:
                return
        except CalledTooEarly as early:
            log.debug("somebody else calls", account=self.name, why=str(early))
            self._neighbour_until = self._clock.monotonic() + NEIGHBOUR
            self._look_over()
        self._publish()

    def configure(self, options: Options) -> None:
        """Go on with other options from the next turn on. May be called from any thread."""
        self._newest_options = options

    def status(self) -> AccountStatus:
        """All that is served about the account, as it is now."""
        return AccountStatus(
            account=self.name,
            api_version=self._client.version,
            up=self._up,
            snapshot=self._snapshot(),
            failure=self._failure,
            details_failure=self._details_failure,
            missing=self._directory.missing,
            names_wait_until=self._wall_in(self._names_wait()),
            next_sync=self._wall_in(self._sync_wait()),
            requests_remaining=self._budget.remaining(),
            version_supported=self._client.supports_version(),
            credentials_expire_at=self._client.credentials_expire_at(),
            durations=self._durations,
            failures=dict(self._failures),
            requests=dict(self._requests),
            rejections=dict(self._rejections),
        )

    def _connect(self) -> TedeeClient:
        longest_call = max(self._budget.rules.longest_call, self._options.rules.longest_call)
        self._budget.rules = self._options.rules
        self._budget.recognise(self._options.user, longest_call)
        return self._options.connect(gate=self._budget, observe=self._count_request)

    def _wall_in(self, seconds: float) -> float | None:
        return None if seconds == inf else self._clock.wall() + seconds

    def _sync_wait(self) -> float:
        """Seconds until the next sync, or until the list of locks without which it is not known what to sync."""
        wait = self._budget.wait(SYNC)
        return max(wait, self._budget.wait(LOCKS)) if self._directory.unresolved() else wait

    def _names_wait(self) -> float:
        """Seconds until the next page of names; infinite where none is wanted, or a neighbour sees to it."""
        if not self._is_caller:
            return inf
        wanted = self._ids_in_doubt or (
            self._up is True and self._directory.outdated(self._synced, self._clock.monotonic())
        )
        return self._budget.wait(LOCKS) if wanted else inf

    def _apply_options(self) -> bool:
        """Go over to the newest options; whether there were any."""
        options, before = self._newest_options, self._options
        if options is before:
            return False
        self._options = options
        self._client = self._connect()
        if options.user != before.user:
            # What is known is of somebody else's locks.
            self._directory = Directory(options.chosen)
            self._forget_sync()
        elif options.chosen != before.chosen:
            self._directory.choose(options.chosen)
            self._synced = self._directory.wants(self._synced)
            if not self._directory.covered_by(self._asked):
                # What is known is of other locks.
                self._forget_sync()
        return True

    def _forget_sync(self) -> None:
        self._up, self._failure, self._synced, self._asked, self._synced_at = None, None, (), (), None

    # The sync

    def _sync(self) -> None:
        started = self._clock.monotonic()
        try:
            reading = self._client.sync(self._directory.ids)
        except CallError as error:
            self._fail(error)
        else:
            self._succeed(reading)
        self._durations = self._durations.observe(self._clock.monotonic() - started)

    def _succeed(self, reading: Reading[SyncedLock]) -> None:
        if self._failure:
            log.info("sync succeeds again", account=self.name)
        self._is_caller = True
        self._ids_in_doubt = False
        self._up = True
        self._failure = None
        self._synced = tuple(reading.rows.values())
        self._asked = self._directory.ids
        self._synced_at = Stamp.now(self._clock)
        self._reject(reading)
        # Kept before it is served: what a scrape was told is not forgotten.
        self._budget.keep(SYNC, Kept(self._options.user, reading.written, self._synced_at, asked=self._asked))

    def _fail(self, error: CallError) -> None:
        self._is_caller = True
        self._ids_in_doubt = bool(self._directory.ids) and isinstance(error, NotFound)
        self._up = False
        self._failures[error.reason] += 1
        self._failure = self._failure_of(error)
        log.warning("sync failed", account=self.name, reason=error.reason, error=error.told())
        if self._budget.wait(SYNC) <= 0:
            # It was clear without a call that it would fail.
            self._budget.postpone(SYNC, error.retry_after)
        self._budget.keep(SYNC, replace(self._kept(SYNC), failure=self._failure))

    def _reject(self, reading: Reading[SyncedLock] | Reading[LockDetails]) -> None:
        """Count the values that could not be used, and log each lock's field the first time, up to a limit."""
        self._rejections.update(reading.rejected)
        for rejection in reading.rejections:
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
            page = self._client.locks(self._directory.next_page)
            listing = self._directory.turn_page(page, self._synced)
            self._details_failure = None
            self._reject(page)
            if listing:
                self._learn(listing)
        except CallError as error:
            if self._directory.unresolved():
                self._fail(error)
                return
            self._details_failure = self._failure_of(error)
            if self._budget.wait(LOCKS) <= 0:
                self._budget.postpone(LOCKS, error.retry_after)
            log.warning("names could not be fetched", account=self.name, reason=error.reason, error=error.told())
        if LONG < (wait := self._names_wait()) < inf:
            log.info("the list of names goes on later", account=self.name, seconds=round(wait))

    def _learn(self, listing: Listing) -> None:
        """Take a complete list.

        Raises:
            NotFound: it has none of the chosen locks, and so there is nothing to sync.
        """
        known_missing = self._directory.missing
        self._directory.learn(listing, self._clock.monotonic())
        self._ids_in_doubt = False
        self._listed_at = Stamp.now(self._clock)
        rows = [write_details(each) for each in listing.details.values()]
        self._budget.keep(LOCKS, Kept(self._options.user, rows, self._listed_at, revisions=listing.revisions))
        missing = ", ".join(self._directory.missing)
        if self._directory.unresolved():
            problem = f"the account has none of the chosen locks: {missing}"
            raise NotFound(problem, account=self.name, endpoint=LOCKS)
        if missing and self._directory.missing != known_missing:
            log.warning("chosen locks are not in the account", account=self.name, missing=missing)

    # What an earlier life, or a neighbour, has kept

    def _look_over(self) -> bool:
        """Take what was kept and is newer than what is known here; whether there was any."""
        now = Stamp.now(self._clock)
        names = self._kept(LOCKS)
        if names.rows is not None and names.at != self._listed_at:
            self._listed_at = names.at
            self._directory.learn(Listing(read_details(names.rows).rows, names.revisions), now.monotonic)
        kept = self._kept(SYNC)
        if not kept.at or kept.rows is None or (kept.at, kept.failure) == (self._synced_at, self._failure):
            return False
        age = kept.at.age(now)
        if age is None or age >= self._options.stale_after or not self._directory.covered_by(kept.asked):
            return False
        self._is_caller = False
        self._up = kept.failure is None
        self._failure = kept.failure
        self._synced = self._directory.wants(read_sync(kept.rows).rows.values())
        self._asked = kept.asked
        self._synced_at = kept.at
        return True

    def _kept(self, endpoint: str) -> Kept:
        """What was kept of this user's calls; of another user's, who had the account's name before, nothing."""
        nothing = Kept(self._options.user)
        kept = self._budget.kept(endpoint) or nothing
        return kept if kept.user == nothing.user else nothing

    # What the board is told

    def _snapshot(self) -> Snapshot | None:
        if not self._synced_at:
            return None
        now = Stamp.now(self._clock)
        age = self._synced_at.age(now)
        if age is None:
            return None
        locks = tuple(Lock(synced, self._directory.details.get(synced.id)) for synced in self._synced)
        # By the wall clock as it is now: that is what an age is read off from. It moves only where that clock jumped.
        at = now.wall - age
        at = self._synced_at.wall if abs(at - self._synced_at.wall) < 1 else at
        return Snapshot(locks, at, now.monotonic + self._options.stale_after - age)

    def _publish(self) -> None:
        self._publish_status(self.status())

    def _count_request(self, endpoint: str, code: str) -> None:
        self._requests[endpoint, code] += 1

    def _failure_of(self, error: CallError) -> Failure:
        return Failure(error.reason, error.told(), self._clock.wall())
