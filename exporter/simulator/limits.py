"""The rate limits of the API, and the calls that violated them.

The limits per account are 20 seconds between two calls of the sync endpoint, 10 calls in 10 minutes to the list of
locks, and 700 calls an hour to all endpoints.
"""

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Final, Literal

SYNC: Final = "sync"
LOCKS: Final = "locks"
LOCKS_WINDOW: Final = 600.0
HOUR: Final = 3600.0

Rule = Literal["spacing", "locks", "hour"]


@dataclass(frozen=True)
class Violation:
    """A call that violated a rule. Times are seconds of the cloud's monotonic clock.

    For "spacing", `gap` is the time since the end of the previous sync call (0.0 if that was still in progress). For
    "locks" and "hour", it is the time since the oldest call that counts for the 10 minutes or the hour.
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
class Window:
    """A limit of calls in a sliding window of `length` seconds, and the recent calls that count for it."""

    rule: Rule
    limit: int
    length: float
    calls: deque[float] = field(default_factory=deque)

    def check(self, account: str, endpoint: str, now: float) -> list[Refusal]:
        """Return a refusal if a call at `now` exceeds the limit."""
        while self.calls and self.calls[0] <= now - self.length:
            self.calls.popleft()
        if len(self.calls) < self.limit:
            return []
        began = self.calls[-self.limit] if self.limit else now
        violation = Violation(account, endpoint, self.rule, now - began, now)
        return [Refusal(violation, math.ceil(began + self.length - now))]


@dataclass
class Usage:
    """The recent calls of one account."""

    hour: Window
    locks: Window
    active_syncs: int = 0
    last_sync_ended: float | None = None

    def windows(self, endpoint: str) -> list[Window]:
        """Return the windows for which a call of the endpoint counts."""
        return [self.hour, self.locks] if endpoint == LOCKS else [self.hour]


class Limits:
    """Counts the calls and checks the rules. Not thread-safe: only the server's thread uses it.

    In strict mode a refused call counts for no rule, so that a client that waits for Retry-After is accepted.
    Otherwise every call counts.
    """

    def __init__(self, *, sync_spacing: float, hourly_limit: int, strict: bool, locks_limit: int = 10) -> None:
        self._spacing = sync_spacing
        self._hourly_limit = hourly_limit
        self._locks_limit = locks_limit
        self._strict = strict
        self._usage: dict[str, Usage] = {}

    def start_call(self, account: str, endpoint: str, now: float) -> list[Refusal]:
        """Count a call that arrives now and return its violations. Unless it is refused, `end_call` must follow."""
        usage = self._usage.get(account)
        if usage is None:
            usage = self._usage[account] = Usage(
                Window("hour", self._hourly_limit, HOUR), Window("locks", self._locks_limit, LOCKS_WINDOW)
            )
        windows = usage.windows(endpoint)
        refusals = self._check_spacing(usage, account, endpoint, now)
        for window in windows:
            refusals += window.check(account, endpoint, now)
        if not (refusals and self._strict):
            for window in windows:
                window.calls.append(now)
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
            # To a microsecond: the difference of two times on a simulated clock may be too small by rounding.
            gap = round(now - usage.last_sync_ended, 6)
        else:
            return []
        if gap >= self._spacing:
            return []
        return [Refusal(Violation(account, endpoint, "spacing", gap, now), math.ceil(self._spacing - gap))]
