"""The recovery of stored states after a restart: pure functions of the stored values and the present time.

A process that starts must not call Tedee before the last call of any other process has ended and the spacing is over.
It knows that time only if the file proves that it was not changed after the last write. Damaged bytes, a lost journal,
an old copy, another boot and another number of shards invalidate the proof.
"""

from dataclasses import dataclass, replace

from exporter.clock import Instant
from exporter.tedee.endpoint import SYNC_SPACING

from .rate_limits import HOUR, RateLimitState

FILE_TIME_TOLERANCE = 2.0
"""Tolerated difference in seconds between the time in the stamp and the times of the file in the file system."""
INCOMPLETE_MTIME = 0.0
"""Modification time (Unix seconds) that marks a file that lacks a call, because it could not be written."""
MAX_RESERVATION = 301.0 + SYNC_SPACING
"""Maximum seconds for which a call blocks the next one: the largest `api.timeout`, its grace, and the spacing."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """Record of the last write to a file. Each transaction that changes the file writes a new one."""

    at: Instant
    file_time: float
    """Time in Unix seconds of the clock that the file system uses."""
    shard: str
    """Shard of the process. Accounts of another shard may have been called by another process."""
    blocked_until: float = 0.0
    """Time in monotonic seconds until which no state of the file is trusted."""


@dataclass(frozen=True, slots=True)
class StoredState:
    """A state, and the time at which it was written."""

    at: Instant
    state: RateLimitState


@dataclass(frozen=True, slots=True)
class FileTimes:
    """Times of a file in the file system, in Unix seconds."""

    modified: float
    """Modification time of the content. Programs that copy files may set it."""
    changed: float
    """Change time of the inode. Only the kernel sets it, even if an old copy replaces the file."""


@dataclass(frozen=True, slots=True)
class StampCheck:
    """What the stamp of a file means for the calls of a process."""

    is_unchanged: bool = False
    """True if the process has read or written this stamp already."""
    distrust_reason: str | None = None
    """A reason why the file may lack calls; None if it proves that it has all."""
    blocked_until: float = 0.0
    """Time in monotonic seconds until which another process has distrusted the file."""
    must_write: bool = False
    """True if the process must write a new stamp."""


def check_stamp(stamp: Stamp | None, known: Stamp | None, times: FileTimes, shard: str, now: Instant) -> StampCheck:
    """Check whether a file proves when the last call ended.

    Args:
        stamp: Stamp of the file; None if it is absent or damaged.
        known: The last stamp that this process read or wrote; None if this is the first check.
        times: Times of the file.
        shard: Shard of this process.
        now: Present time.
    """
    is_invalid = stamp is None or times.modified == INCOMPLETE_MTIME
    if stamp == known and not is_invalid:
        return StampCheck(is_unchanged=True)
    # The shard matters only in the first check. Later, the stamp of another shard means that both use this file, which
    # has the calls of both. If they distrusted each other's stamps, they would wait forever.
    reason = distrust_reason(stamp, times, shard if known is None else None, now)
    if stamp and not reason:
        return StampCheck(blocked_until=stamp.blocked_until)
    # A later stamp of another boot is from a second machine that shares the file, which is not supported. It is not
    # replaced here, because the two machines would delay each other again and again.
    must_write = is_invalid or known is None or stamp is None or stamp.at.boot == now.boot
    return StampCheck(distrust_reason=reason, must_write=must_write)


def distrust_reason(stamp: Stamp | None, times: FileTimes, shard: str | None, now: Instant) -> str | None:
    """Return a reason why the file may have changed after its last write; None if it proves that it has not.

    Args:
        stamp: Stamp of the file; None if it is absent or damaged.
        times: Times of the file.
        shard: Shard of this process; None if any shard is accepted.
        now: Present time.
    """
    if times.modified == INCOMPLETE_MTIME:
        return "a process could not write to it"
    if stamp is None:
        return "it is damaged or of another version"
    if shard not in (None, stamp.shard):
        return f"it was last written by shard {stamp.shard}; this is shard {shard}"
    if stamp.at.age(now) is None:
        return "it was last written before this machine started"
    if any(abs(time - stamp.file_time) > FILE_TIME_TOLERANCE for time in (times.modified, times.changed)):
        return (
            "it or its permissions were changed after the last write, or its file system's clock is off by "
            f"{FILE_TIME_TOLERANCE:g} s or more"
        )
    return None


def restore(stored: StoredState, now: Instant) -> RateLimitState:
    """Return a stored state with its times converted to the monotonic clock of this boot.

    Times of another boot can be converted only by the wall clock, which may have jumped. It is used for the times of
    requests and a `Retry-After`, but not for calls that may have been in progress.
    """
    if stored.at.age(now) is not None:
        return stored.state
    elapsed = max(0.0, now.wall - stored.at.wall)
    moved = stored.state.moved(now.monotonic - stored.at.monotonic - elapsed)
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
