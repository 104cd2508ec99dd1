"""State stores as the program opens them."""

import time
from pathlib import Path

from exporter.clock import Clock
from exporter.state.cache import StateCache
from exporter.state.sqlite import SQLiteStateStore
from exporter.state.stores import OpenStore

LONGEST_CALL = 11.0
"""Seconds: the default time-out and its grace."""


def open_store(path: Path, clock: Clock, *, shard: str = "0/1", copied: float = 0.0) -> OpenStore:
    """Open a state file like a process that starts now.

    Args:
        path: the file.
        clock: clock of the machine.
        shard: shard of the process.
        copied: seconds by which the times in the file differ from those of the file system, as they do in a copy.
    """
    store = SQLiteStateStore(
        path, clock, longest_call=LONGEST_CALL, shard=shard, file_time=lambda: time.time() - copied
    )
    return OpenStore(StateCache(clock, store), store)


def memory_store(clock: Clock) -> OpenStore:
    """Open a store that does not outlive the process."""
    return OpenStore(StateCache(clock))
