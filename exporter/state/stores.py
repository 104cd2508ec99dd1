"""Opens the state store that is configured."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from exporter.clock import Clock

from .cache import StateCache
from .responses import NoResponses, ResponseStore
from .sqlite import SQLiteStateStore


@dataclass(frozen=True)
class OpenStore:
    """The state store of this process."""

    states: StateCache
    responses: ResponseStore = field(default_factory=NoResponses)

    def close(self) -> None:
        """Write unsaved states, and close the store."""
        self.states.close()


def open_store(place: Path | Callable[[], str] | None, clock: Clock, *, longest_call: float, shard: str) -> OpenStore:
    """Open a store.

    Args:
        place: Path of the state file; a function that returns the URL of a PostgreSQL database; or None for a store in
            memory.
        clock: Clock for the times in the store.
        longest_call: Maximum duration in seconds of a call by another process.
        shard: Shard of this process.
    """
    match place:
        case None:
            return OpenStore(StateCache(clock))
        case Path():
            file = SQLiteStateStore(place, clock, longest_call=longest_call, shard=shard)
            return OpenStore(StateCache(clock, file), file)
        case _:
            # The driver is an optional dependency.
            from .postgresql import PostgreSQLStore  # noqa: PLC0415

            database = PostgreSQLStore(place, clock, longest_call=longest_call)
            return OpenStore(StateCache(clock, database), database)
