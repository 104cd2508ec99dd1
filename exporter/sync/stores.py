"""Opens the state store that is configured."""

from dataclasses import dataclass, field
from pathlib import Path

from exporter.clock import Clock

from .responses import NoResponses, ResponseStore
from .sqlite import SQLiteStateStore
from .state_cache import StateCache


@dataclass(frozen=True)
class OpenStore:
    """The state store of this process."""

    states: StateCache
    responses: ResponseStore = field(default_factory=NoResponses)

    def close(self) -> None:
        """Write unsaved states, and close the store."""
        self.states.close()


def open_store(path: Path | None, clock: Clock, *, longest_call: float, shard: str) -> OpenStore:
    """Open a store.

    Args:
        path: Path of the state file; None for a store in memory.
        clock: Clock for the times in the store.
        longest_call: Maximum duration in seconds of a call by another process.
        shard: Shard of this process.
    """
    if path is None:
        return OpenStore(StateCache(clock))
    store = SQLiteStateStore(path, clock, longest_call=longest_call, shard=shard)
    return OpenStore(StateCache(clock, store), store)
