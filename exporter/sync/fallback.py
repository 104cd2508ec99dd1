"""A state store that falls back to memory while the state file cannot be used.

A full disk or a wrong permission must not stop the exporter. The file lacks the calls that are made in that time.
Before each of them the file is marked as incomplete, so that the next start waits.
"""

import threading
from collections.abc import Collection, Sequence

import structlog

from exporter.clock import Clock

from .rate_limits import RateLimitState
from .sqlite import SQLiteStateStore
from .store import CachedResponse, Change, States, StoreBusy, StoreUnavailable

log = structlog.get_logger(__name__)


class FallbackStateStore:
    """A state store in a file, and in memory while the file cannot be used."""

    def __init__(self, file: SQLiteStateStore, clock: Clock) -> None:
        """Open the file. Problems are logged.

        Args:
            file: The persistent store.
            clock: Clock for monotonic time.
        """
        self._file = file
        self._clock = clock
        self._lock = threading.RLock()
        self._states: dict[str, RateLimitState] = {}
        self._unsaved: set[str] = set()
        self._generation = 0
        self._problem: str | None = None
        self._cannot_mark = False
        self.record((), lambda _now, _states: ())
        # If no file can be created, its absence does not mean that this is the first start.
        self.is_new = file.is_new and self._generation > 0

    @property
    def longest_call(self) -> float:
        """Maximum duration in seconds of a call by another process."""
        return self._file.longest_call

    @longest_call.setter
    def longest_call(self, seconds: float) -> None:
        self._file.longest_call = seconds

    def last_known(self, key: str) -> RateLimitState | None:
        """Return the state that this process last read or wrote."""
        return self._states.get(key)

    def update(self, keys: Sequence[str], change: Change) -> tuple[RateLimitState, ...]:
        """Replace the states of some keys, in memory if the file cannot be used.

        Raises:
            StoreBusy: Another process has locked the file.
        """
        with self._lock:
            try:
                return self._update(keys, change)
            except StoreUnavailable as error:
                self._report(error)
                return self._update_memory(keys, change)

    def record(self, keys: Sequence[str], change: Change) -> tuple[RateLimitState, ...]:
        """Replace the states of some keys, in memory if the file cannot be used now."""
        with self._lock:
            try:
                return self.update(keys, change)
            except StoreBusy:
                return self._update_memory(keys, change)

    def store_response(self, account: str, endpoint: str, fingerprint: str, response: CachedResponse) -> None:
        """Store a response. If the file cannot be used, log the reason."""
        with self._lock:
            try:
                self._file.store_response(account, endpoint, fingerprint, response)
            except StoreBusy:
                return
            except StoreUnavailable as error:
                self._report(error)

    def cached_response(self, account: str, endpoint: str, fingerprint: str) -> CachedResponse | None:
        """Return a stored response; None if the file cannot be used."""
        with self._lock:
            try:
                return self._file.cached_response(account, endpoint, fingerprint)
            except (StoreBusy, StoreUnavailable):
                return None

    def delete_other_accounts(self, accounts: Collection[str]) -> None:
        """Delete the responses of all other accounts."""
        with self._lock:
            try:
                self._file.delete_other_accounts(accounts)
            except StoreBusy:
                return
            except StoreUnavailable as error:
                self._report(error)

    def is_usable(self) -> bool | None:
        """Return True if the file can be used."""
        return self._problem is None

    def close(self) -> None:
        """Write unsaved states, and close the file."""
        with self._lock:
            if self._unsaved:
                self.record(tuple(self._unsaved), lambda _now, states: tuple(filter(None, states)))
            self._file.close()

    def _update(self, keys: Sequence[str], change: Change) -> tuple[RateLimitState, ...]:
        def change_newest(now: float, stored: States) -> tuple[RateLimitState, ...]:
            if self._file.generation != self._generation:
                self._generation = self._file.generation
                self._unsaved |= self._states.keys()
            return change(now, tuple(map(self._merge, keys, stored)))

        states = self._file.update(keys, change_newest)
        self._states.update(zip(keys, states, strict=True))
        self._unsaved -= set(keys)
        if self._problem:
            log.info("the state file can be used again", path=str(self._file.path))
            self._problem = None
        return states

    def _merge(self, key: str, stored: RateLimitState | None) -> RateLimitState | None:
        known = self._states.get(key)
        if stored is None or known is None:
            return known.blocked(self._file.blocked_until) if known else stored
        return stored.merged(known) if key in self._unsaved else stored

    def _update_memory(self, keys: Sequence[str], change: Change) -> tuple[RateLimitState, ...]:
        before = tuple(map(self._states.get, keys))
        states = change(self._clock.monotonic(), before)
        self._states.update(zip(keys, states, strict=True))
        self._unsaved |= set(keys)
        if self._problem and states != before:
            self._mark_incomplete()
        return states

    def _mark_incomplete(self) -> None:
        is_marked = self._file.mark_incomplete()
        if not is_marked and not self._cannot_mark:
            log.warning(
                "the state file can be neither written nor marked as incomplete; wait half a minute before a restart",
                path=str(self._file.path),
            )
        self._cannot_mark = not is_marked

    def _report(self, error: StoreUnavailable) -> None:
        if self._problem != str(error):
            self._problem = str(error)
            log.warning(
                "the state file cannot be used; rate limits are stored in memory until it can",
                path=str(self._file.path),
                error=self._problem,
            )
