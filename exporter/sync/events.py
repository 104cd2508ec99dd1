"""The events of an account's locks from Tedee's activity log, one lock per request."""

from collections.abc import Collection, Mapping, Sequence
from heapq import nlargest
from math import inf

import msgspec
import structlog
from msgspec import MsgspecError

from exporter.clock import Clock
from exporter.state.responses import CachedResponse
from exporter.tedee.client import TedeeClient
from exporter.tedee.endpoint import ACTIVITIES
from exporter.tedee.errors import CallError, Forbidden, NotFound, Unauthorized
from exporter.tedee.events import PAGE_SIZE
from exporter.tedee.models import DeviceState, SyncedLock

from .event_log import MAX_PAGES, EventLog, Pass
from .resource import Resource, ResourceOptions
from .snapshot import RecentEvent

log = structlog.get_logger(__name__)

MAX_SHOWN = 10
"""Newest events of an account that the status page shows."""
MAX_ABSENT_LOCKS = 1_000
"""Locks whose events are kept although the last sync lacks them. They return if a response was incomplete."""
RETRY_REFUSED = 3_600.0
"""Seconds after which a credential without the scope is tried again."""
MAX_REFUSALS = 3
"""Consecutive refusals after which a credential that was permitted before lacks the scope. A single one may be due to
one lock."""
MAX_TRIES = 2
"""Passes for which a lock is asked first after a change of its state. The event may arrive later than the state."""
MAX_FAILURES = 3
"""Consecutive failures after which a pass begins again later. A failure of its first page ends it at once, so that a
lock with a failing log does not block the others."""
EMPTY_COUNTS: Mapping[tuple[str, ...], int] = {}


class LockEvents(Resource):
    """The numbers of events of the locks.

    The activity log has no request for several locks. A lock whose state has changed is asked first, the others in
    turn. Each lock is asked at most once in the interval; how many locks are asked in an hour depends on the share of
    requests that the other endpoints leave.
    """

    endpoint = ACTIVITIES
    title = "fetch of events"

    def __init__(self, logs: dict[int, EventLog], options: ResourceOptions, clock: Clock) -> None:
        """Create the resource.

        Args:
            logs: The logs of the locks by id, in the order in which they were read last. They are updated.
            options: Options of the account.
            clock: Clock for the time from which events count.
        """
        self._interval = options.events_interval
        self._clock = clock
        self._logs = logs
        self._counts = {lock_id: each.events() for lock_id, each in logs.items()}
        """Numbers of events by lock, event and source. An entry is replaced if a number changes."""
        self._recent: tuple[RecentEvent, ...] = ()
        self._asked_at: dict[int, float] = {}
        """Monotonic seconds by lock of the last sync, in the order in which the locks are asked next."""
        self._states: dict[int, DeviceState | None] = {}
        self._changed: dict[int, int] = {}
        """Remaining tries of the locks whose state has changed, in the order in which they are asked first."""
        self._was_asked_first = False
        """True if the last pass was for a lock whose state has changed. Then the next one is for the lock in turn: some
        events change no state."""
        self._pass: Pass | None = None
        self._is_permitted: bool | None = None
        """False if the credential lacks the scope; None before the first response."""
        self._refused_until = -inf
        self._refusals = 0
        """Consecutive refusals."""
        self._was_unauthorized = False
        """True if the last response was HTTP 401."""
        self._needs_sync = False
        """True from HTTP 401 until the next successful sync, which shows that the credential is valid."""

    @property
    def is_enabled(self) -> bool:
        """True if events are fetched."""
        return self._interval is not None

    @property
    def is_permitted(self) -> bool | None:
        """True if the credential has the scope; None if unknown, or if events are not fetched."""
        return self._is_permitted if self._interval else None

    def counts(self, lock_id: int) -> Mapping[tuple[str, ...], int]:
        """Return the number of events of a lock by event and source; none if they are not fetched."""
        return self._counts.get(lock_id, EMPTY_COUNTS) if self.is_permitted else EMPTY_COUNTS

    def recent_events(self) -> Sequence[RecentEvent]:
        """Return the newest events of the account, newest first."""
        return self._recent if self.is_permitted else ()

    def sync_succeeded(self, synced: Collection[SyncedLock]) -> None:
        """Record the locks of a sync."""
        if not self._interval:
            return
        self._needs_sync = False
        states = {lock.id: lock.device_state for lock in synced}
        for lock_id, state in states.items():
            if lock_id in self._states and _moved(self._states[lock_id], state):
                self._changed[lock_id] = MAX_TRIES
        self._states = states
        for lock_id in self._asked_at.keys() - states.keys():
            del self._asked_at[lock_id]
            self._changed.pop(lock_id, None)
        if self._pass and self._pass.log.lock_id not in states:
            self._pass = None
        if new := states.keys() - self._asked_at.keys():
            self._add(new, [*self._logs, *states])

    def time_until_due(self, now: float) -> float:
        """Return the seconds until a lock may be asked; infinity without locks, or if events are not fetched."""
        if not self._interval or not self._asked_at or self._needs_sync:
            return inf
        if self._refused_until > now:
            return self._refused_until - now
        return 0.0 if self._pass else max(0.0, min(map(self._ask_at, self._candidates())) - now)

    def fetch(self, client: TedeeClient, now: float) -> CachedResponse | None:
        """Fetch a page of events of one lock.

        Raises:
            CallError: The call failed for another reason than a missing scope.
        """
        if not self._pass:
            self._pass = Pass(self._logs[self._next_lock(now)])
        event_log, started = self._pass.log, self._clock.wall()
        try:
            parsed = client.activities(event_log.lock_id, self._pass.before)
        except CallError as error:
            self._pass.failures += 1
            if not self._pass.pages or self._pass.failures >= MAX_FAILURES or isinstance(error, NotFound):
                self._end_pass(now)
            if isinstance(error, Forbidden | Unauthorized):
                self._record_refusal(client.account, error, now)
            elif not (isinstance(error, NotFound) and self._is_permitted):
                raise
            # Tedee has no log of this lock. That is no failure of the others.
            return None
        if not self._is_permitted:
            self._start_counting(started)
        self._was_unauthorized, self._refusals = False, 0
        is_complete = self._pass.add(
            parsed.rows.values(), self._clock.wall(), is_full=len(parsed.raw_rows) >= PAGE_SIZE
        )
        if self._pass.has_news:
            self._counts[event_log.lock_id] = event_log.events()
            self._update_recent()
        if is_complete:
            if self._pass.pages >= MAX_PAGES:
                log.warning("older events are not counted", account=client.account, lock_id=event_log.lock_id)
            self._end_pass(now)
        return CachedResponse([*map(msgspec.json.encode, self._logs.values())])

    def restore(self, response: CachedResponse, received_at: float) -> bool:  # noqa: ARG002
        """Use stored numbers of events."""
        try:
            logs = [msgspec.json.decode(each, type=EventLog) for each in response.rows or ()]
        except MsgspecError:
            # Another version of the exporter stored them.
            return False
        self._pass, self._is_permitted = None, True
        self._logs.clear()
        self._logs.update((each.lock_id, each) for each in logs)
        self._counts = {each.lock_id: each.events() for each in logs}
        self._update_recent()
        self._add(self._asked_at, self._asked_at)
        return True

    def configure(self, options: ResourceOptions) -> bool:
        """Use another interval. Returns False if events are not fetched."""
        self._interval = options.events_interval
        return self.is_enabled

    def retry(self) -> None:
        """Ask again although the credential was refused."""
        self._refused_until, self._was_unauthorized, self._needs_sync = -inf, False, False

    def _update_recent(self) -> None:
        events = ((at, each.lock_id, name) for each in self._logs.values() for at, name in each.recent)
        self._recent = tuple(
            RecentEvent(at, lock_id, *name.split()) for at, lock_id, name in nlargest(MAX_SHOWN, events)
        )

    def _add(self, new: Collection[int], order: Collection[int]) -> None:
        """Add locks to those that are asked. The events of a lock without a log count from now on."""
        for lock_id in order:
            if lock_id in new:
                self._asked_at.setdefault(lock_id, -inf)
                if lock_id not in self._logs:
                    self._logs[lock_id] = added = EventLog(lock_id, self._clock.wall())
                    self._counts[lock_id] = added.events()
        if len(self._logs) > len(self._asked_at) + MAX_ABSENT_LOCKS:
            for lock_id in self._logs.keys() - self._asked_at.keys():
                del self._logs[lock_id], self._counts[lock_id]

    def _start_counting(self, now: float) -> None:
        """Record that Tedee permits requests. If it never did before, count from now on."""
        self._is_permitted = True
        if not any(each.newest for each in self._logs.values()):
            for each in self._logs.values():
                each.since = now

    def _record_refusal(self, account: str, error: CallError, now: float) -> None:
        if isinstance(error, Unauthorized) and not self._was_unauthorized:
            # The access token may have expired, or the credential may be invalid: the next sync will show it.
            self._was_unauthorized = self._needs_sync = True
            return
        self._refusals += 1
        if self._is_permitted and isinstance(error, Forbidden) and self._refusals < MAX_REFUSALS:
            return
        if self._is_permitted is not False:
            advice = "events need a key with the scope DeviceActivity.Read"
            log.warning("events are not permitted", account=account, **error.log_values(), advice=advice)
        self._is_permitted, self._refused_until = False, now + RETRY_REFUSED

    def _end_pass(self, now: float) -> None:
        ended, self._pass = self._pass, None
        if not ended:
            return
        lock_id = ended.log.lock_id
        tries = self._changed.pop(lock_id, 0)
        self._was_asked_first = tries > 0
        if tries > 1 and not ended.has_news:
            self._changed[lock_id] = tries - 1
        if self._asked_at.pop(lock_id, None) is not None:
            self._asked_at[lock_id] = now
        self._logs[lock_id] = self._logs.pop(lock_id, ended.log)

    def _candidates(self) -> list[int]:
        """Return the locks of which one is asked next: those whose state has changed, and the next one in turn."""
        return [*self._changed, next(iter(self._asked_at))]

    def _next_lock(self, now: float) -> int:
        *changed, in_turn = self._candidates()
        candidates = [in_turn, *changed] if self._was_asked_first else [*changed, in_turn]
        return next((each for each in candidates if self._ask_at(each) <= now), candidates[-1])

    def _ask_at(self, lock_id: int) -> float:
        return self._asked_at[lock_id] + (self._interval or 0.0)


def _moved(before: DeviceState | None, after: DeviceState | None) -> bool:
    if before is after or before is None or after is None:
        return before is not after
    return (before.state, before.door_state, before.last_state_changed_date) != (
        after.state,
        after.door_state,
        after.last_state_changed_date,
    )
