"""What a stored state is worth after a restart: pure functions of what was stored, and the present.

A process that starts must not call Tedee before the last call of any other process has ended and the spacing is over.
It knows when that is only if the file proves to be in the state in which the last process left it. Damaged bytes, a
lost journal, an old copy, another boot or another division into shards void that proof.
"""

from dataclasses import dataclass, replace

from .rate_limits import HOUR, SYNC_SPACING, RateLimitState
from .store import Instant

FILE_TIME_TOLERANCE = 2.0
"""Seconds between the time that a transaction notes and the time that the file system notes for its writes."""
VOID = 0.0
"""Modification time (Unix seconds) of a file that lacks a call, because it could not be written."""
MAX_RESERVATION = 301.0 + SYNC_SPACING
"""Seconds for which a call blocks the next one at most: the largest `api.timeout`, its grace, and the spacing."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """When a file was last written. Each transaction writes a new one."""

    at: Instant
    file_time: float
    """Unix seconds of the kernel, whose clock the file system uses."""
    shard: str
    """The part of the accounts that the process serves: another part may have been called by another process."""
    blocked_until: float = 0.0
    """Time (monotonic seconds) until which no state of the file is trusted."""


@dataclass(frozen=True, slots=True)
class StoredState:
    """A state, and when it was written."""

    at: Instant
    state: RateLimitState


@dataclass(frozen=True, slots=True)
class FileTimes:
    """When the file system last noted a change of a file, in Unix seconds."""

    content: float
    """Modification time: programs that copy files may set it."""
    anything: float
    """Change time of the inode: only the kernel sets it, also if an old copy is moved to the file's place."""


def doubt(stamp: Stamp | None, times: FileTimes, shard: str | None, now: Instant) -> str | None:
    """Return why a file may not be as the process left it that wrote the stamp; None if it proves to be.

    Args:
        stamp: Of the file; None if it has none, or a damaged one.
        times: Of the file.
        shard: Of this process; None if any shard is accepted.
        now: The present.
    """
    if times.content == VOID:
        return "the last process could not write to it"
    if stamp is None:
        return "it is damaged or of another version"
    if shard not in (None, stamp.shard):
        return f"it was last written by shard {stamp.shard}; this is shard {shard}"
    if stamp.at.age(now) is None:
        return "it was last written before this machine started"
    if any(abs(time - stamp.file_time) > FILE_TIME_TOLERANCE for time in (times.content, times.anything)):
        return (
            "it or its permissions were changed after the last write, or its file system's clock is off by "
            f"{FILE_TIME_TOLERANCE:g} s or more"
        )
    return None


def restored(stored: StoredState, now: Instant) -> RateLimitState:
    """Return a stored state in the time of this boot.

    Of another boot only the wall clock is known. It may have jumped: the numbers of requests and a `Retry-After` go by
    it, calls that may have been under way do not.
    """
    if stored.at.age(now) is not None:
        return stored.state
    off = max(0.0, now.wall - stored.at.wall)
    moved = stored.state.moved(now.monotonic - stored.at.monotonic - off)
    return replace(
        moved,
        endpoints={
            endpoint: state._replace(
                next_allowed_at=now.monotonic + min(state.next_allowed_at - stored.at.monotonic, MAX_RESERVATION),
                backoff_until=0.0,
            )
            for endpoint, state in stored.state.endpoints.items()
        },
        blocked_until=min(moved.blocked_until, now.monotonic + HOUR),
        recent_requests={
            endpoint: tuple(min(at, now.monotonic) for at in times) for endpoint, times in moved.recent_requests.items()
        },
    )
