"""Where rate limits and the last responses are stored: the protocol, and a store for as long as the process lives.

A state is immutable, and the policy in `rate_limits` maps one to the next: a store only has to replace states
atomically, whether it keeps them in memory, in a file or in a database.
"""

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from exporter.clock import Clock

from .rate_limits import RateLimitState


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a call failed, in plain text."""

    reason: str
    message: str
    at: float
    """Unix seconds."""


@dataclass(frozen=True, slots=True)
class Instant:
    """A point in time on both clocks; the monotonic one is comparable within one boot of one machine."""

    boot: str
    monotonic: float
    wall: float

    @classmethod
    def now(cls, clock: Clock) -> "Instant":
        """Return the present."""
        return cls(clock.boot(), clock.monotonic(), clock.wall())

    def age(self, now: "Instant") -> float | None:
        """Return the seconds since then; None if that is not known.

        Across boots there is only the wall clock, which may have jumped or, on a machine without a battery for it, may
        have stood still while the machine was off.
        """
        age = now.monotonic - self.monotonic
        return age if self.boot == now.boot and age >= 0 else None


@dataclass(frozen=True, slots=True)
class CachedResponse:
    """The last good response of an endpoint, and how the last call of it failed."""

    rows: Sequence[bytes] | None = None
    """As `exporter.tedee.models` reads and writes them."""
    at: Instant | None = None
    """When the rows were received."""
    failure: Failure | None = None
    """None if the last call succeeded."""
    revisions: Mapping[int, int | None] = field(default_factory=dict)
    """With the list of names: the revisions that the synced locks had when its first page was fetched."""
    asked: tuple[int, ...] = ()
    """With a sync: the ids that the rows were requested for; empty for all."""


class StoreUnavailable(Exception):
    """The store cannot be used. The text says why, and what to do."""


class StoreBusy(Exception):
    """Another process holds the store. It can be used later."""


States = tuple[RateLimitState | None, ...]
Change = Callable[[float, States], tuple[RateLimitState, ...]]
"""Maps the time (seconds of the store's clock) and the newest states, None for unknown ones, to the next states."""


class StateStore(Protocol):
    """Rate-limit states by key, and cached responses by account and endpoint."""

    is_new: bool
    """True if there was no store before this process: then no exporter has called Tedee with it."""
    longest_call: float
    """Seconds that a call of another process may take."""

    def known(self, key: str) -> RateLimitState | None:
        """Return the state as this process last saw it, None if it never did. Costs nothing."""
        ...

    def update(self, keys: Sequence[str], change: Change) -> tuple[RateLimitState, ...]:
        """Replace the states of some keys: all or none, and by one process at a time. Returns the new states.

        Raises:
            StoreBusy: Another process holds the store.
            StoreUnavailable: It cannot be used.
        """
        ...

    def record(self, keys: Sequence[str], change: Change) -> tuple[RateLimitState, ...]:
        """Replace the states of some keys like `update`, but later if that is not possible now. Never fails."""
        ...

    def cache(self, account: str, endpoint: str, credential: str, response: CachedResponse) -> None:
        """Store the last response that a credential received from an endpoint, if that is possible now."""
        ...

    def cached(self, account: str, endpoint: str, credential: str) -> CachedResponse | None:
        """Return the last response that this or another process stored; None if another credential received it."""
        ...

    def keep_only(self, accounts: Collection[str]) -> None:
        """Delete the responses of all other accounts."""
        ...

    def usable(self) -> bool | None:
        """Return False if what is stored does not outlive the process; None if it is not meant to."""
        ...

    def close(self) -> None:
        """Release the store."""
        ...


class MemoryStateStore:
    """A store for as long as the process lives."""

    is_new = True
    longest_call = 0.0

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._states: dict[str, RateLimitState] = {}
        self._lock = threading.Lock()

    def known(self, key: str) -> RateLimitState | None:
        """Return the state of a key."""
        return self._states.get(key)

    def update(self, keys: Sequence[str], change: Change) -> tuple[RateLimitState, ...]:
        """Replace the states of some keys."""
        with self._lock:
            states = change(self._clock.monotonic(), tuple(map(self._states.get, keys)))
            self._states.update(zip(keys, states, strict=True))
            return states

    record = update

    def cache(self, account: str, endpoint: str, credential: str, response: CachedResponse) -> None:
        """Do nothing: an account itself remembers its responses for as long as the process lives."""

    def cached(self, account: str, endpoint: str, credential: str) -> CachedResponse | None:  # noqa: ARG002
        """Return None."""
        return None

    def keep_only(self, accounts: Collection[str]) -> None:
        """Do nothing."""

    def usable(self) -> bool | None:
        """Return None: it is not meant to outlive the process."""
        return None

    def close(self) -> None:
        """Do nothing."""
