"""One account: its syncs, the names of its locks, and what the board is told of them."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import structlog

from exporter.clock import Clock
from exporter.tedee.client import LOCKS, SYNC, Gate, RequestObserver, TedeeClient
from exporter.tedee.errors import REASONS, CallError, NotFound
from exporter.tedee.models import LockDetails, Reading, Rejection, SyncedLock

from .budget import LONGEST_BACKOFF, Budget, CalledTooEarly
from .snapshot import AccountStatus, Durations, Failure, Lock, Snapshot

log = structlog.get_logger(__name__)

LOOK_AGAIN = LONGEST_BACKOFF
"""Seconds between two looks for a chosen lock that the account does not have."""


class Connect(Protocol):
    """Makes the account's client. It gets the gate here, so that there is none without."""

    def __call__(self, *, gate: Gate, observe: RequestObserver) -> TedeeClient:  # noqa: D102
        ...


@dataclass(frozen=True)
class Chosen:
    """The locks an account is limited to, by id or by serial number; all of them where both are empty."""

    ids: tuple[int, ...] = ()
    serial_numbers: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.ids or self.serial_numbers)

    def find(self, details: Iterable[LockDetails]) -> tuple[list[int], tuple[str, ...]]:
        """The ids of the chosen locks in an account's list, and what was chosen but is not in it."""
        by_serial_number = {each.serial_number: each.id for each in details}
        ids = set(by_serial_number.values())
        found = [lock_id for lock_id in self.ids if lock_id in ids]
        found += [by_serial_number[number] for number in self.serial_numbers if number in by_serial_number]
        missing = [str(lock_id) for lock_id in self.ids if lock_id not in ids]
        missing += [number for number in self.serial_numbers if number not in by_serial_number]
        return found, tuple(missing)


class AccountSync:
    """Syncs one account, turn by turn, and publishes what came of each.

    Turns of one account never overlap: its state needs no lock.
    """

    def __init__(
        self,
        name: str,
        connect: Connect,
        budget: Budget,
        clock: Clock,
        publish: Callable[[AccountStatus], None],
        *,
        stale_after: float,
        chosen: Chosen = Chosen(),
    ) -> None:
        """Prepare an account that was not synced yet.

        Args:
            name: in the configuration and in the `account` label.
            connect: makes the client, given the gate.
            budget: the account's gate.
            clock: for the time of answers and their age.
            publish: takes each new status.
            stale_after: seconds an answer is served.
            chosen: the locks to sync.
        """
        self.name = name
        self._budget = budget
        self._clock = clock
        self._publish_status = publish
        self._stale_after = stale_after
        self._chosen = chosen
        self._requests: Counter[tuple[str, str]] = Counter()
        self._client = connect(gate=budget, observe=self._count_request)

        self._up: bool | None = None
        self._synced: tuple[SyncedLock, ...] = ()
        self._snapshot: Snapshot | None = None
        self._failure: Failure | None = None
        self._durations = Durations()
        self._failures = Counter(dict.fromkeys(REASONS, 0))
        self._rejections: Counter[str] = Counter()
        self._logged_rejections: set[tuple[int | None, str]] = set()

        self._details: dict[int, LockDetails] = {}
        self._details_failure: Failure | None = None
        self._listed_revisions: dict[int, int | None] | None = None
        """The revisions that the synced locks had when details were last fetched; None before that."""
        self._chosen_ids = list(chosen.ids)
        self._missing: tuple[str, ...] = ()
        self._look_again_at = 0.0

    def wait(self) -> float:
        """Seconds until the next turn is due."""
        wait = self._budget.wait(SYNC)
        return max(wait, self._budget.wait(LOCKS)) if self._unresolved() else wait

    def turn(self) -> None:
        """Sync once, and fetch names where a sync has shown that they are wanted."""
        if self._unresolved() and not self._resolve():
            self._publish()
            return
        self._sync()
        self._publish()
        if self._details_wanted() and self._refresh_details():
            self._publish()

    def status(self) -> AccountStatus:
        """All that is served about the account, as it is now."""
        return AccountStatus(
            account=self.name,
            api_version=self._client.version,
            up=self._up,
            snapshot=self._snapshot,
            failure=self._failure,
            details_failure=self._details_failure,
            missing=self._missing,
            next_sync=None if self._up is None else self._clock.wall() + self.wait(),
            requests_remaining=self._budget.remaining(),
            version_supported=self._client.supports_version(),
            durations=self._durations,
            failures=dict(self._failures),
            requests=dict(self._requests),
            rejections=dict(self._rejections),
        )

    # The sync

    def _sync(self) -> None:
        started = self._clock.monotonic()
        try:
            reading = self._client.sync(self._chosen_ids)
        except CallError as error:
            self._fail(error)
        else:
            self._succeed(reading)
        self._durations = self._durations.observe(self._clock.monotonic() - started)

    def _succeed(self, reading: Reading[SyncedLock]) -> None:
        if self._failure:
            log.info("sync succeeds again", account=self.name)
        self._up = True
        self._failure = None
        self._synced = tuple(reading.rows.values())
        self._reject(reading.rejections)
        self._snapshot = Snapshot(
            locks=self._named(),
            at=self._clock.wall(),
            fresh_until=self._clock.monotonic() + self._stale_after,
        )

    def _fail(self, error: CallError) -> None:
        self._up = False
        self._failures[error.reason] += 1
        self._failure = self._failure_of(error)
        log.warning("sync failed", account=self.name, reason=error.reason, error=str(error))

    def _reject(self, rejections: Iterable[Rejection]) -> None:
        """Count each value that could not be used, and log each lock's field the first time."""
        for rejection in rejections:
            self._rejections[rejection.field] += 1
            if (rejection.lock_id, rejection.field) not in self._logged_rejections:
                self._logged_rejections.add((rejection.lock_id, rejection.field))
                log.warning(
                    "value of an answer cannot be used; its sample is absent (this is logged once)",
                    account=self.name,
                    lock_id=rejection.lock_id,
                    field=rejection.field,
                    value=rejection.value,
                )

    # The names

    def _unresolved(self) -> bool:
        """Whether the locks to sync are not known yet, since serial numbers stand only in the details."""
        return bool(self._chosen) and not self._chosen_ids

    def _resolve(self) -> bool:
        """Find out the ids of the chosen locks; without one there is nothing to sync, which is a failed sync."""
        try:
            self._fetch_details()
            if not self._chosen_ids:
                raise NotFound(
                    f"the account has none of the chosen locks: {', '.join(self._missing)}",
                    account=self.name,
                    endpoint=LOCKS,
                )
        except CallError as error:
            self._fail(error)
            self._budget.postpone(SYNC)
        except CalledTooEarly as early:
            log.debug("names have to wait", account=self.name, why=str(early))
        return bool(self._chosen_ids)

    def _details_wanted(self) -> bool:
        if self._budget.wait(LOCKS) > 0:
            return False
        if self._failure:
            # Tedee knows one of the chosen ids no more: the list tells which.
            return bool(self._chosen) and self._failure.reason == NotFound.reason
        if self._lacks_chosen_locks() and self._clock.monotonic() >= self._look_again_at:
            return True
        listed = self._listed_revisions
        return listed is None or any(
            lock.id not in listed or (lock.revision is not None and lock.revision != listed[lock.id])
            for lock in self._synced
        )

    def _lacks_chosen_locks(self) -> bool:
        return bool(self._missing) or len(self._synced) < len(self._chosen_ids)

    def _refresh_details(self) -> bool:
        """Fetch names and the rest; whether there is something new to publish."""
        try:
            self._fetch_details()
        except CalledTooEarly as early:
            log.debug("names have to wait", account=self.name, why=str(early))
            return False
        except CallError as error:
            log.warning("names could not be fetched", account=self.name, reason=error.reason, error=str(error))
        return True

    def _fetch_details(self) -> None:
        """Fetch names and the rest, and put them on the locks of the snapshot.

        Raises:
            CallError: there was no usable answer.
            CalledTooEarly: the hourly share has no room for it.
        """
        try:
            reading = self._client.locks()
        except CallError as error:
            self._details_failure = self._failure_of(error)
            raise
        self._details_failure = None
        self._reject(reading.rejections)
        self._details = reading.rows
        self._listed_revisions = {lock.id: lock.revision for lock in self._synced}
        if self._chosen:
            self._choose(reading.rows.values())
        if self._snapshot:
            self._snapshot = Snapshot(self._named(), self._snapshot.at, self._snapshot.fresh_until)

    def _choose(self, details: Iterable[LockDetails]) -> None:
        self._chosen_ids, missing = self._chosen.find(details)
        self._look_again_at = self._clock.monotonic() + LOOK_AGAIN
        if missing and missing != self._missing:
            log.warning("chosen locks are not in the account", account=self.name, missing=", ".join(missing))
        self._missing = missing

    def _named(self) -> tuple[Lock, ...]:
        return tuple(Lock(synced, self._details.get(synced.id)) for synced in self._synced)

    # What the board is told

    def _publish(self) -> None:
        self._publish_status(self.status())

    def _count_request(self, endpoint: str, code: str) -> None:
        self._requests[endpoint, code] += 1

    def _failure_of(self, error: CallError) -> Failure:
        return Failure(error.reason, str(error), self._clock.wall())
