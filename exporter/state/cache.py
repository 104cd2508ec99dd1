"""Rate-limit states in memory, and in a store while it can be used.

A full disk or a wrong permission must not stop the exporter. The store lacks the calls that are made in that time.
Before each of them the store is marked as incomplete, so that the next start waits.
"""

import threading
from collections.abc import Callable, Sequence

import structlog

from exporter.clock import Clock

from .rate_limits import RateLimitState
from .store import States, StateStore, StoreBusy, StoreUnavailable, Transaction

log = structlog.get_logger(__name__)

Change = Callable[[float, States], tuple[RateLimitState, ...]]
"""Maps the time (monotonic seconds) and the newest states (None if unknown) to the next states."""


class StateCache:
    """The rate-limit states that this process knows. All accounts share it."""

    def __init__(self, clock: Clock, store: StateStore | None = None) -> None:
        """Open the store. Problems are logged.

        Args:
            clock: Clock for monotonic time.
            store: Stores the states; None if they need not outlive the process.
        """
        self._store = store
        self._clock = clock
        self._lock = threading.RLock()
        self._states: dict[str, RateLimitState] = {}
        self._unsaved: set[str] = set()
        self._generation = 0
        self._problem: str | None = None
        self._cannot_mark = False
        is_usable = True
        try:
            self.update((), lambda _now, _states: ())
        except StoreBusy:
            is_usable = False
        self.is_new = store is None or (store.is_new and is_usable and self._problem is None)
        """True if no other exporter that uses the store has called Tedee. If no store can be created, its absence does
        not mean that this is the first start."""

    @property
    def name(self) -> str:
        """Where the states are stored, for log lines: a path, or the address of a database without its password."""
        return self._store.name if self._store else "memory"

    def last_known(self, key: str) -> RateLimitState | None:
        """Return the state that this process last read or wrote, None if it did neither. Does not use the store."""
        return self._states.get(key)

    def update(self, keys: Sequence[str], change: Change) -> tuple[RateLimitState, ...]:
        """Replace the states of some keys in one transaction, in memory if the store cannot be used.

        Raises:
            StoreBusy: Another process has locked the store, or it cannot be used and is required.
        """
        with self._lock:
            if not self._store:
                return self._update_memory(keys, change)
            try:
                with self._store.transaction(keys) as transaction:
                    states = change(transaction.now, self._newest(keys, transaction))
                    transaction.states = states
            except StoreUnavailable as error:
                if self._store.is_required:
                    raise StoreBusy(str(error)) from error
                self._report(self._store, error)
                return self._update_memory(keys, change)
            self._states.update(zip(keys, states, strict=True))
            self._unsaved -= set(keys)
            if self._problem:
                log.info("the state file can be used again", path=self._store.name)
                self._problem = None
            return states

    def record(self, keys: Sequence[str], change: Change) -> tuple[RateLimitState, ...]:
        """Replace the states of some keys, in memory if the store is busy or cannot be used."""
        with self._lock:
            try:
                return self.update(keys, change)
            except StoreBusy:
                return self._update_memory(keys, change)

    def set_longest_call(self, seconds: float) -> None:
        """Set the maximum duration in seconds of a call by another process."""
        if self._store:
            self._store.longest_call = seconds

    def is_usable(self) -> bool | None:
        """Return True if the store can be used; None if there is none."""
        return self.problem() is None if self._store else None

    def problem(self) -> str | None:
        """Return why the store cannot be used; None if it can, or if there is none."""
        return self._store.problem() if self._store and self._store.is_required else self._problem

    def close(self) -> None:
        """Write unsaved states, and close the store."""
        with self._lock:
            if self._store:
                if self._unsaved:
                    self.record(tuple(self._unsaved), lambda _now, states: tuple(filter(None, states)))
                self._store.close()

    def _newest(self, keys: Sequence[str], transaction: Transaction) -> States:
        """Return the states of a transaction, merged with those that the store may lack."""
        if transaction.generation != self._generation:
            self._generation = transaction.generation
            self._unsaved |= self._states.keys()

        def newest(key: str, stored: RateLimitState | None) -> RateLimitState | None:
            known = self._states.get(key)
            if stored is None or known is None:
                return known.blocked(transaction.blocked_until) if known else stored
            return stored.merged(known) if key in self._unsaved else stored

        return tuple(map(newest, keys, transaction.states))

    def _update_memory(self, keys: Sequence[str], change: Change) -> tuple[RateLimitState, ...]:
        before = tuple(map(self._states.get, keys))
        states = change(self._clock.monotonic(), before)
        self._states.update(zip(keys, states, strict=True))
        if self._store:
            self._unsaved |= set(keys)
            if self._problem and states != before:
                self._mark_incomplete(self._store)
        return states

    def _mark_incomplete(self, store: StateStore) -> None:
        is_marked = store.mark_incomplete()
        if not is_marked and not self._cannot_mark:
            log.warning(
                "the state file can be neither written nor marked as incomplete; wait half a minute before a restart",
                path=store.name,
            )
        self._cannot_mark = not is_marked

    def _report(self, store: StateStore, error: StoreUnavailable) -> None:
        if self._problem != str(error):
            self._problem = str(error)
            first = "" if self._states else "; the first syncs wait until any call by another process has ended"
            log.warning(
                f"the state file cannot be used; rate limits are stored in memory until it can{first}",  # noqa: G004
                path=store.name,
                error=self._problem,
            )
