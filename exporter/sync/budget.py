"""When an account may call Tedee: the 20-second gate, the hourly share, and the waits after failures."""

import random
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf

from exporter.clock import Clock
from exporter.tedee.client import SYNC
from exporter.tedee.errors import CallError

SYNC_SPACING = 20.0
"""Seconds Tedee asks for between two calls of its sync endpoint (docs: endpoints/lock/sync)."""
LONGEST_BACKOFF = 300.0
"""Seconds between tries while calls keep failing."""
WINDOW = 3600.0
"""Seconds over which Tedee counts requests."""
DETAILS_SHARE = 1 / 3
"""The part of the hourly share that calls other than the sync may use, so that names never starve states."""


class CalledTooEarly(Exception):
    """A call was about to leave before it may. It did not leave; that it tried is a bug in who asked."""


@dataclass
class _Pace:
    """How close together the calls of one endpoint may be."""

    spacing: float
    opens_at: float = -inf
    failures: int = 0

    def closed(self) -> None:
        """Nothing goes out while a call is under way."""
        self.opens_at = inf

    def answered(self, now: float) -> None:
        self.failures = 0
        self.opens_at = now + self.spacing

    def failed(self, now: float, jitter: float) -> None:
        """Double the wait with every failure in a row: 20 s, 40 s, … to five minutes, and never under the spacing."""
        first = max(self.spacing, SYNC_SPACING)
        backoff = min(first * 2.0 ** min(self.failures, 10) * jitter, max(first, LONGEST_BACKOFF))
        self.failures += 1
        self.opens_at = now + backoff


class Budget:
    """One account's gate: every request passes it, and it lets none out too early.

    All times are the clock's monotonic seconds. Spacing counts from the answer (or failure) of one call to the
    sending of the next, so that no delay in the network can squeeze two calls together.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        interval: float = SYNC_SPACING,
        requests_per_hour: int = 350,
        jitter: Callable[[], float] = lambda: random.uniform(1.05, 1.25),  # noqa: S311
    ) -> None:
        """Open a gate that nothing has passed yet.

        Args:
            clock: for its monotonic seconds.
            interval: seconds from a sync's answer to the next sync.
            requests_per_hour: over all endpoints; Tedee allows a user 700 with all of the user's apps.
            jitter: a factor above 1 on each backoff, so that accounts that failed together part again, and so that
                Tedee, who may notice the end of a call later than we gave it up, finds the spacing kept as well.

        Raises:
            ValueError: the interval is shorter than Tedee allows.
        """
        if interval < SYNC_SPACING:
            raise ValueError(f"an interval of {interval:g} s breaks Tedee's limit of one sync in {SYNC_SPACING:g} s")
        self._clock = clock
        self._interval = interval
        self._requests_per_hour = requests_per_hour
        self._jitter = jitter
        self._paces: dict[str, _Pace] = {}
        self._closed_until = -inf
        self._sent: deque[tuple[float, str]] = deque()
        self._lock = threading.Lock()

    def wait(self, endpoint: str) -> float:
        """Seconds until the endpoint may be called; 0.0 when it may be now, infinite while a call is under way."""
        with self._lock:
            return self._wait(endpoint, self._clock.monotonic())

    def remaining(self) -> int:
        """Requests left of the hourly share."""
        with self._lock:
            self._forget_old_requests(self._clock.monotonic())
            return max(0, self._requests_per_hour - len(self._sent))

    @contextmanager
    def passage(self, endpoint: str) -> Iterator[None]:
        """Enclose one call, from before its sending until its answer or failure.

        Raises:
            CalledTooEarly: it may not be sent now.
        """
        with self._lock:
            now = self._clock.monotonic()
            if (wait := self._wait(endpoint, now)) > 0:
                raise CalledTooEarly(f"{endpoint} may be called in {wait:.3f} s")
            self._sent.append((now, endpoint))
            self._pace(endpoint).closed()
        try:
            yield
        except BaseException as error:
            with self._lock:
                now = self._clock.monotonic()
                self._pace(endpoint).failed(now, self._jitter())
                if isinstance(error, CallError) and error.retry_after is not None:
                    # No honest wait is longer than the window Tedee counts in.
                    self._closed_until = max(self._closed_until, now + min(error.retry_after, WINDOW))
            raise
        with self._lock:
            self._pace(endpoint).answered(self._clock.monotonic())

    def postpone(self, endpoint: str) -> None:
        """Wait as after a failed call, where it was clear without one that it would fail."""
        with self._lock:
            self._pace(endpoint).failed(self._clock.monotonic(), self._jitter())

    def _pace(self, endpoint: str) -> _Pace:
        return self._paces.setdefault(endpoint, _Pace(self._interval if endpoint == SYNC else 0.0))

    def _wait(self, endpoint: str, now: float) -> float:
        self._forget_old_requests(now)
        opens_at = max(self._pace(endpoint).opens_at, self._closed_until, self._share_opens_at(endpoint))
        return max(0.0, opens_at - now)

    def _share_opens_at(self, endpoint: str) -> float:
        """When the oldest request that stands in the way leaves the hour."""
        opens_at = -inf
        if len(self._sent) >= self._requests_per_hour:
            opens_at = self._sent[-self._requests_per_hour][0] + WINDOW
        if endpoint != SYNC:
            others = [at for at, called in self._sent if called != SYNC]
            share = max(1, int(self._requests_per_hour * DETAILS_SHARE))
            if len(others) >= share:
                opens_at = max(opens_at, others[-share] + WINDOW)
        return opens_at

    def _forget_old_requests(self, now: float) -> None:
        while self._sent and self._sent[0][0] + WINDOW <= now:
            self._sent.popleft()
