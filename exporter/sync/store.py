"""The store of rate-limit states and cached responses: its protocol, and an implementation in memory.

A state is immutable, and the policy in `rate_limits` maps one state to the next. A store only has to replace states
atomically.
"""

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from exporter.clock import Clock

from .rate_limits import RateLimitState


@dataclass(frozen=True, slots=True)
class Failure:
    """Reason for a failed call, in plain text."""

    reason: str
    message: str
    at: float
    """Unix seconds."""


@dataclass(frozen=True, slots=True)
class Instant:
    """A point in time on both clocks. Monotonic times are comparable within one boot of one machine."""

    boot: str
    monotonic: float
    wall: float

    @classmethod
    def now(cls, clock: Clock) -> "Instant":
        """Return the present time."""
        return cls(clock.boot(), clock.monotonic(), clock.wall())

    def age(self, now: "Instant") -> float | None:
        """Return the seconds since this time; None if they are unknown.

        Two boots have only the wall clock in common. It may have jumped or, on a machine without a battery for it,
        stopped while the machine was off.
        """
        age = now.monotonic - self.monotonic
        return age if self.boot == now.boot and age >= 0 else None


@dataclass(frozen=True, slots=True)
class CachedResponse:
    """The last successful response of an endpoint, and the failure of its last call."""

    rows: Sequence[bytes] | None = None
    """Rows in JSON, as `exporter.tedee.models` reads and writes them."""
    at: Instant | None = None
    """Time at which the rows were received."""
    failure: Failure | None = None
    """None if the last call succeeded."""
    revisions: Mapping[int, int | None] = field(default_factory=dict)
    """For the list of locks: revisions of the synced locks when its first page was fetched."""
    requested_ids: tuple[int, ...] = ()
    """For a sync: ids of the requested locks; empty for all locks."""


class StoreUnavailable(Exception):
    """The store cannot be used. The message has the reason and the remedy."""


class StoreBusy(Exception):
    """Another process has locked the store. It can be used later."""


States = tuple[RateLimitState | None, ...]
Change = Callable[[float, States], tuple[RateLimitState, ...]]
"""Maps the time (seconds of the store's clock) and the newest states (None if unknown) to the next states."""


class StateStore(Protocol):
    """Rate-limit states by key, and cached responses by account and endpoint."""

    is_new: bool
    """True if this process created the store: no other exporter that uses it has called Tedee."""
    longest_call: float
    """Maximum duration in seconds of a call by another process."""

    def last_known(self, key: str) -> RateLimitState | None:
        """Return the state that this process last read or wrote, None if it did neither. Does not access the disk."""
        ...

    def update(self, keys: Sequence[str], change: Change) -> tuple[RateLimitState, ...]:
        """Replace the states of some keys in one transaction. Returns the new states.

        Raises:
            StoreBusy: Another process has locked the store.
            StoreUnavailable: The store cannot be used.
        """
        ...

    def record(self, keys: Sequence[str], change: Change) -> tuple[RateLimitState, ...]:
        """Replace the states of some keys like `update`. If the store is busy or unavailable, write them later."""
        ...

    def store_response(self, account: str, endpoint: str, fingerprint: str, response: CachedResponse) -> None:
        """Store the last response to the credential with this fingerprint. Does nothing if the store is busy."""
        ...

    def cached_response(self, account: str, endpoint: str, fingerprint: str) -> CachedResponse | None:
        """Return the last response that any process stored for this fingerprint; None if there is none."""
        ...

    def delete_other_accounts(self, accounts: Collection[str]) -> None:
        """Delete the responses of all other accounts."""
        ...

    def is_usable(self) -> bool | None:
        """Return True if the store is persistent; False if it cannot be now; None if it is in memory by design."""
        ...

    def close(self) -> None:
        """Close the store."""
        ...


class MemoryStateStore:
    """A store in memory. It does not outlive the process."""

    is_new = True
    longest_call = 0.0

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._states: dict[str, RateLimitState] = {}
        self._lock = threading.Lock()

    def last_known(self, key: str) -> RateLimitState | None:
        """Return the state of a key."""
        return self._states.get(key)

    def update(self, keys: Sequence[str], change: Change) -> tuple[RateLimitState, ...]:
        """Replace the states of some keys."""
        with self._lock:
            states = change(self._clock.monotonic(), tuple(map(self._states.get, keys)))
            self._states.update(zip(keys, states, strict=True))
            return states

    record = update

    def store_response(self, account: str, endpoint: str, fingerprint: str, response: CachedResponse) -> None:
        """Do nothing: the account has its responses in memory as well."""

    def cached_response(self, account: str, endpoint: str, fingerprint: str) -> CachedResponse | None:  # noqa: ARG002
        """Return None."""
        return None

    def delete_other_accounts(self, accounts: Collection[str]) -> None:
        """Do nothing."""

    def is_usable(self) -> bool | None:
        """Return None: the store is in memory by design."""
        return None

    def close(self) -> None:
        """Do nothing."""
