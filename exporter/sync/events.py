"""The events of an account's locks from Tedee's activity log, one lock per request."""

from collections.abc import Collection, Mapping
from math import inf

import msgspec
import structlog
from msgspec import MsgspecError

from exporter.clock import Clock
from exporter.tedee.client import TedeeClient
from exporter.tedee.endpoint import ACTIVITIES
from exporter.tedee.errors import CallError, Forbidden, Unauthorized
from exporter.tedee.models import DeviceState, SyncedLock

from .event_log import MAX_PAGES, EventLog, Pass
from .resource import Resource, ResourceOptions
from .responses import CachedResponse

log = structlog.get_logger(__name__)

MAX_ABSENT_LOCKS = 1_000
"""Locks whose events are kept although the last sync lacks them. They return if a response was incomplete."""
RETRY_FORBIDDEN = 86_400.0
"""Seconds after which a credential without the scope is tried again."""
EMPTY_COUNTS: Mapping[tuple[str, ...], int] = {}


class _Stored(msgspec.Struct):
    """What is stored once for an account."""

    since: float


class LockEvents(Resource):
    """The numbers of events of the locks.

    The activity log has no request for several locks. A lock whose state has changed is asked first, the others in
    turn. Each lock is asked at most once in the interval; how many locks are asked in an hour depends on the share of
    requests that the other endpoints leave.
    """

    endpoint = ACTIVITIES
    title = "fetch of events"

    def __init__(self, options: ResourceOptions, clock: Clock) -> None:
        """Create the resource without events.

        Args:
            options: Options of the account.
            clock: Clock for the time from which events count.
        """
        self._interval = options.events_interval
        self._clock = clock
        self._since: float | None = None
        """Unix time from which events count; None before the first fetch."""
        self._logs: dict[int, EventLog] = {}
        self._counts: dict[int, Mapping[tuple[str, ...], int]] = {}
        """Numbers of events by lock, event and source. An entry is replaced if a number changes."""
        self._asked_at: dict[int, float] = {}
        """Monotonic seconds by lock, in the order in which the locks are asked next."""
        self._states: dict[int, DeviceState | None] = {}
        self._changed: dict[int, None] = {}
        """Locks whose state has changed since they were asked, in this order."""
        self._pass: Pass | None = None
        self._forbidden_until = -inf

    def counts(self, lock_id: int) -> Mapping[tuple[str, ...], int]:
        """Return the number of events of a lock by event and source; none if they are not fetched."""
        return self._counts.get(lock_id, EMPTY_COUNTS) if self._interval and self.is_permitted else EMPTY_COUNTS

    def sync_succeeded(self, synced: Collection[SyncedLock]) -> None:
        """Record the locks of a sync."""
        if not self._interval:
            return
        states = {lock.id: lock.device_state for lock in synced}
        for lock_id, state in states.items():
            if lock_id in self._states and _moved(self._states[lock_id], state):
                self._changed[lock_id] = None
        self._states = states
        for lock_id in self._asked_at.keys() - states.keys():
            del self._asked_at[lock_id]
            self._changed.pop(lock_id, None)
        for lock_id in states:
            if lock_id not in self._asked_at:
                self._asked_at[lock_id] = -inf
                self._add_log(lock_id)
        if len(self._logs) > len(states) + MAX_ABSENT_LOCKS:
            self._logs = {lock_id: each for lock_id, each in self._logs.items() if lock_id in states}

    def time_until_due(self, now: float) -> float:
        """Return the seconds until a lock may be asked; infinity without locks, or if events are not fetched."""
        if not self._interval or not self._asked_at:
            return inf
        if self._forbidden_until > now:
            return self._forbidden_until - now
        return 0.0 if self._pass else max(0.0, min(map(self._ask_at, self._candidates())) - now)

    def fetch(self, client: TedeeClient, now: float) -> CachedResponse | None:
        """Fetch a page of events of one lock.

        Raises:
            CallError: The call failed for another reason than a missing scope.
        """
        if self._since is None:
            self._since = self._clock.wall()
            for lock_id in self._asked_at:
                self._add_log(lock_id)
        if not self._pass or self._pass.log.lock_id not in self._asked_at:
            self._pass = Pass(self._logs[self._next_lock(now)])
        event_log = self._pass.log
        try:
            parsed = client.activities(event_log.lock_id, self._pass.before)
        except CallError as error:
            self._end_pass(event_log.lock_id, now)
            if not isinstance(error, Forbidden | Unauthorized):
                raise
            if self.is_permitted is not False:
                hint = "events need a key with the scope DeviceActivity.Read"
                log.warning("events are not permitted", account=client.account, error=error.message(), hint=hint)
            self.is_permitted, self._forbidden_until = False, now + RETRY_FORBIDDEN
            return None
        self.is_permitted = True
        before = dict(event_log.counts)
        is_complete = self._pass.add(parsed.rows.values(), self._clock.wall())
        if event_log.counts != before:
            self._counts[event_log.lock_id] = event_log.events()
        if is_complete:
            if self._pass.pages >= MAX_PAGES:
                log.warning("older events are not counted", account=client.account, lock_id=event_log.lock_id)
            self._end_pass(event_log.lock_id, now)
        return CachedResponse([msgspec.json.encode(each) for each in (_Stored(self._since), *self._logs.values())])

    def restore(self, response: CachedResponse, received_at: float) -> bool:  # noqa: ARG002
        """Use stored numbers of events."""
        first, *others = response.rows or (b"",)
        try:
            stored = msgspec.json.decode(first, type=_Stored)
            logs = [msgspec.json.decode(each, type=EventLog) for each in others]
        except MsgspecError:
            # Another version of the exporter stored them.
            return False
        self._since, self._pass, self.is_permitted = stored.since, None, True
        self._logs = {each.lock_id: each for each in logs}
        self._counts = {each.lock_id: each.events() for each in logs}
        for lock_id in self._asked_at:
            self._add_log(lock_id)
        return True

    def configure(self, options: ResourceOptions) -> bool:
        """Use another interval. A credential without the scope is tried again."""
        self._interval = options.events_interval
        self._forbidden_until = -inf
        return True

    def _add_log(self, lock_id: int) -> None:
        if self._since is not None and lock_id not in self._logs:
            self._logs[lock_id] = added = EventLog(lock_id, self._since)
            self._counts[lock_id] = added.events()

    def _end_pass(self, lock_id: int, now: float) -> None:
        self._pass = None
        self._changed.pop(lock_id, None)
        if self._asked_at.pop(lock_id, None) is not None:
            self._asked_at[lock_id] = now

    def _candidates(self) -> list[int]:
        """Return the locks of which one is asked next: those whose state has changed, and the next one in turn."""
        return [*self._changed, next(iter(self._asked_at))]

    def _next_lock(self, now: float) -> int:
        candidates = self._candidates()
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
