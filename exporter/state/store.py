"""The store of rate-limit states, which outlives the process and may be shared with other processes.

A state is immutable, and the policy in `rate_limits` maps one state to the next. A store only has to replace states
atomically. What a store that cannot be used means for the calls is not its concern, but that of `cache`.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from .rate_limits import RateLimitState

States = tuple[RateLimitState | None, ...]


class StoreUnavailable(Exception):
    """The store cannot be used. The message has the reason and the remedy."""


class StoreBusy(Exception):
    """Another process has locked the store. It can be used later."""


@dataclass
class Transaction:
    """The newest states of some keys. The states that are in it at the end of the context replace them."""

    now: float
    """Seconds of the store's clock, which is that of the states."""
    states: States
    """None for a key that is unknown."""
    blocked_until: float = 0.0
    """Time until which no call is allowed, because calls of other processes may be unknown."""
    generation: int = 0
    """A number that increases when the store may lack states that this process knows."""


class StateStore(Protocol):
    """Rate-limit states by key."""

    name: str
    """Path or address, for log lines."""
    is_required: bool
    """True if no call may begin while the store cannot be used, because processes on other machines may call. Such a
    store logs its problems."""
    is_new: bool
    """True if this process created the store: no other exporter that uses it has called Tedee."""
    longest_call: float
    """Maximum duration in seconds of a call by another process."""

    def transaction(self, keys: Sequence[str]) -> AbstractContextManager[Transaction]:
        """Replace the states of some keys atomically. If the context raises an exception, nothing changes.

        Raises:
            StoreBusy: Another process has locked the store.
            StoreUnavailable: The store cannot be used.
        """
        ...

    def problem(self) -> str | None:
        """Return why a required store cannot be used; None if it can."""
        ...

    def mark_incomplete(self) -> bool:
        """Record that the store lacks a call, although it cannot be written. Returns False if that fails."""
        ...

    def close(self) -> None:
        """Close the store."""
        ...
