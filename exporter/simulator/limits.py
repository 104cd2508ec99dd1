"""What the API asks of its callers, and who did not keep to it.

Twenty seconds between two calls of the sync endpoint, and 700 calls an hour per account over all endpoints.
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
    """A call that broke a rule. Times are seconds of the cloud's monotonic clock.

    `gap` is the time since what the call came too soon after: under "spacing" the end of the sync call before (0.0 if
    that was still being answered), under "hour" the call with which the full hour began.
    """

    account: str
    endpoint: str
    rule: Rule
    gap: float
    at: float


@dataclass
class Refusal:
    """Why a strict cloud turns a call away, and after how many whole seconds it may come again."""

    violation: Violation
    retry_after: int


@dataclass
class Usage:
    """What one account has done lately."""

    hour: deque[float] = field(default_factory=deque)
    syncs_under_way: int = 0
    last_sync_ended: float | None = None


class Limits:
    """Watches both rules. Belongs to the server's thread alone, hence without a lock.

    In strict mode a call that is turned away counts for neither rule, so that whoever waits as told is let in.
    Otherwise every call counts.
    """

    def __init__(self, *, sync_spacing: float, hourly_limit: int, strict: bool) -> None:
        self._spacing = sync_spacing
        self._hourly_limit = hourly_limit
        self._strict = strict
        self._usage: dict[str, Usage] = {}

    def arrive(self, account: str, endpoint: str, now: float) -> list[Refusal]:
        """Count a call that arrives now; returns the rules it breaks. Unless refused, it must `leave` again."""
        usage = self._usage.setdefault(account, Usage())
        while usage.hour and usage.hour[0] <= now - HOUR:
            usage.hour.popleft()
        refusals = [*self._too_soon(usage, account, endpoint, now), *self._too_many(usage, account, endpoint, now)]
        if not (refusals and self._strict):
            usage.hour.append(now)
            usage.syncs_under_way += endpoint == SYNC
        return refusals

    def leave(self, account: str, endpoint: str, now: float) -> None:
        """The call's answer is complete now, or it ended in some other way."""
        if endpoint == SYNC:
            usage = self._usage[account]
            usage.syncs_under_way -= 1
            usage.last_sync_ended = now

    def _too_soon(self, usage: Usage, account: str, endpoint: str, now: float) -> list[Refusal]:
        if endpoint != SYNC:
            return []
        if usage.syncs_under_way:
            gap = 0.0
        elif usage.last_sync_ended is not None:
            gap = now - usage.last_sync_ended
        else:
            return []
        if gap >= self._spacing:
            return []
        return [Refusal(Violation(account, endpoint, "spacing", gap, now), math.ceil(self._spacing - gap))]

    def _too_many(self, usage: Usage, account: str, endpoint: str, now: float) -> list[Refusal]:
        if len(usage.hour) < self._hourly_limit:
            return []
        began = usage.hour[-self._hourly_limit] if self._hourly_limit else now
        return [Refusal(Violation(account, endpoint, "hour", now - began, now), math.ceil(began + HOUR - now))]
