"""The rate limits of the API, and the calls that violated them.

The limits are 20 seconds between two calls of the sync endpoint, and 700 calls an hour to all endpoints, per account.
"""

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Final, Literal

SYNC: Final = "sync"
HOUR: Final = 3600.0

Rule = Literal["spacing", "hour"]


@dataclass(frozen=True)
class Violation:
    """A call that violated a rule. Times are seconds of the cloud's monotonic clock.

    For "spacing", `gap` is the time since the end of the previous sync call (0.0 if that was still in progress). For
    "hour", it is the time since the oldest call that counts for the hour.
    """

    account: str
    endpoint: str
    rule: Rule
    gap: float
    at: float


@dataclass
class Refusal:
    """A violation, and the whole seconds after which a strict cloud accepts the call."""

    violation: Violation
    retry_after: int


@dataclass
class Usage:
    """The recent calls of one account."""

    last_hour: deque[float] = field(default_factory=deque)
    active_syncs: int = 0
    last_sync_ended: float | None = None


class Limits:
    """Counts the calls and checks both rules. Not thread-safe: only the server's thread uses it.

    In strict mode a refused call counts for neither rule, so that a client that waits for Retry-After is accepted.
    Otherwise every call counts.
    """

    def __init__(self, *, sync_spacing: float, hourly_limit: int, strict: bool) -> None:
        self._spacing = sync_spacing
        self._hourly_limit = hourly_limit
        self._strict = strict
        self._usage: dict[str, Usage] = {}

    def start_call(self, account: str, endpoint: str, now: float) -> list[Refusal]:
        """Count a call that arrives now and return its violations. Unless it is refused, `end_call` must follow."""
        usage = self._usage.setdefault(account, Usage())
        while usage.last_hour and usage.last_hour[0] <= now - HOUR:
            usage.last_hour.popleft()
        refusals = [
            *self._check_spacing(usage, account, endpoint, now),
            *self._check_hour(usage, account, endpoint, now),
        ]
        if not (refusals and self._strict):
            usage.last_hour.append(now)
            usage.active_syncs += endpoint == SYNC
        return refusals

    def end_call(self, account: str, endpoint: str, now: float) -> None:
        """Record that the call ended now, with or without a complete response."""
        if endpoint == SYNC:
            usage = self._usage[account]
            usage.active_syncs -= 1
            usage.last_sync_ended = now

    def _check_spacing(self, usage: Usage, account: str, endpoint: str, now: float) -> list[Refusal]:
        if endpoint != SYNC:
            return []
        if usage.active_syncs:
            gap = 0.0
        elif usage.last_sync_ended is not None:
            gap = now - usage.last_sync_ended
        else:
            return []
        if gap >= self._spacing:
            return []
        return [Refusal(Violation(account, endpoint, "spacing", gap, now), math.ceil(self._spacing - gap))]

    def _check_hour(self, usage: Usage, account: str, endpoint: str, now: float) -> list[Refusal]:
        if len(usage.last_hour) < self._hourly_limit:
            return []
        began = usage.last_hour[-self._hourly_limit] if self._hourly_limit else now
        return [Refusal(Violation(account, endpoint, "hour", now - began, now), math.ceil(began + HOUR - now))]
