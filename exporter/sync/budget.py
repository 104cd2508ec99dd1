"""When an account may call Tedee: the 20-second gate, the hourly share, and the waits after failures."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import inf

from exporter.clock import Clock
from exporter.tedee.client import SYNC
from exporter.tedee.errors import CallError

from .ledger import CalledTooEarly, Kept, Ledger, Pace, Page

SYNC_SPACING = 20.0
"""Seconds Tedee asks for between two calls of its sync endpoint (docs: endpoints/lock/sync)."""
LONGEST_BACKOFF = 300.0
"""Seconds between tries while calls keep failing."""
WINDOW = 3600.0
"""Seconds over which Tedee counts requests."""
DETAILS_SHARE = 1 / 3
"""The part of the hourly share that calls other than the sync may use, so that names never starve states."""
SCARCE = 0.2
"""The part of the hourly share below which what is left is spread over the time until there is more."""


@dataclass(frozen=True)
class Rules:
    """What may be sent when: pure functions of a page and the time (monotonic seconds)."""

    interval: float = SYNC_SPACING
    """Seconds from a sync's answer to the next sync."""
    requests_per_hour: int = 350
    """Over all endpoints; Tedee allows a user 700 with all of the user's apps."""
    longest_call: float = 10.0
    """Seconds after which a call has ended, in one way or another, even if nobody lives to tell."""

    def __post_init__(self) -> None:
        """Refuse what would break the contract.

        Raises:
            ValueError: the interval is shorter than Tedee allows.
        """
        if self.interval < SYNC_SPACING:
            raise ValueError(f"an interval of {self.interval:g} s breaks Tedee's limit of one sync in 20 s")

    def wait(self, page: Page, endpoint: str, now: float) -> float:
        """Seconds until the endpoint may be called; 0.0 when it may be now."""
        opens_at = max(page.pace(endpoint).opens_at, page.closed_until, self._share_opens_at(page, endpoint, now))
        return max(0.0, opens_at - now)

    def remaining(self, page: Page, now: float) -> int:
        """Requests left of the hourly share."""
        return max(0, self.requests_per_hour - len(_recent(page, now)))

    def reserve(self, page: Page, endpoint: str, now: float) -> Page:
        """The page with a call on it that is sent now; if nobody records its end, the latest it can have is assumed.

        Raises:
            CalledTooEarly: it may not be sent now.
        """
        if (wait := self.wait(page, endpoint, now)) > 0:
            raise CalledTooEarly(f"{endpoint} may be called in {wait:.3f} s")
        pace = page.pace(endpoint)
        ends = now + self.longest_call + self._spacing(endpoint)
        return replace(page, sent=(*_recent(page, now), (now, endpoint))).with_pace(
            endpoint, pace._replace(opens_at=ends)
        )

    def answered(self, page: Page, endpoint: str, now: float) -> Page:
        """The page after a call that brought what it was sent for."""
        return page.with_pace(endpoint, Pace(now + max(self._spacing(endpoint), self._thrift(page, endpoint, now))))

    def failed(self, page: Page, endpoint: str, now: float, jitter: float, retry_after: float | None = None) -> Page:
        """The page after a call that failed.

        The wait doubles with every failure in a row, 20 s, 40 s, … to five minutes, and is never under the spacing.
        No honest `Retry-After` is longer than the window that Tedee counts in.
        """
        first = max(self._spacing(endpoint), SYNC_SPACING)
        failures = page.pace(endpoint).failures
        backoff = min(first * 2.0 ** min(failures, 10) * jitter, max(first, LONGEST_BACKOFF))
        wait = max(backoff, self._thrift(page, endpoint, now))
        page = page.with_pace(endpoint, Pace(now + wait, failures + 1))
        return (
            page
            if retry_after is None
            else replace(page, closed_until=max(page.closed_until, now + min(retry_after, WINDOW)))
        )

    def _spacing(self, endpoint: str) -> float:
        return self.interval if endpoint == SYNC else 0.0

    def _thrift(self, page: Page, endpoint: str, now: float) -> float:
        """The gap between syncs that makes what is left of the share last until the oldest requests leave the hour."""
        recent, left = _recent(page, now), self.remaining(page, now)
        if endpoint != SYNC or not recent or left >= self.requests_per_hour * SCARCE:
            return 0.0
        return (recent[0][0] + WINDOW - now) / (left + 1)

    def _share_opens_at(self, page: Page, endpoint: str, now: float) -> float:
        """When the oldest request that stands in the way leaves the hour."""
        recent = _recent(page, now)
        opens_at = -inf
        if len(recent) >= self.requests_per_hour:
            opens_at = recent[-self.requests_per_hour][0] + WINDOW
        if endpoint != SYNC:
            others = [at for at, called in recent if called != SYNC]
            share = max(1, int(self.requests_per_hour * DETAILS_SHARE))
            if len(others) >= share:
                opens_at = max(opens_at, others[-share] + WINDOW)
        return opens_at


def distrusted(page: Page, now: float) -> Page:
    """The page of an account of which it is not known when it was last synced: a moment ago, then."""
    pace = page.pace(SYNC)
    return page.with_pace(SYNC, pace._replace(opens_at=max(pace.opens_at, now + SYNC_SPACING)))


def _recent(page: Page, now: float) -> tuple[tuple[float, str], ...]:
    """The requests of the last hour."""
    if not page.sent or page.sent[0][0] + WINDOW > now:
        return page.sent
    return tuple(each for each in page.sent if each[0] + WINDOW > now)


class Budget:
    """One account's gate: every request passes it, and it lets none out too early.

    Spacing counts from the answer (or failure) of one call to the sending of the next, so that no delay in the
    network can squeeze two calls together.
    """

    def __init__(
        self,
        account: str,
        ledger: Ledger,
        clock: Clock,
        rules: Rules | None = None,
        jitter: Callable[[], float] = lambda: random.uniform(1.05, 1.25),  # noqa: S311
    ) -> None:
        """Stand at an account's gate.

        Args:
            account: its name in the ledger.
            ledger: keeps the account's page.
            clock: for its monotonic seconds.
            rules: what may be sent when.
            jitter: a factor above 1 on each backoff, so that accounts that failed together part again, and so that
                Tedee, who may notice the end of a call later than we gave it up, finds the spacing kept as well.
        """
        self.rules = rules or Rules()
        self._account = account
        self._ledger = ledger
        self._clock = clock
        self._jitter = jitter
        self._under_way: set[str] = set()

    def wait(self, endpoint: str) -> float:
        """Seconds until the endpoint may be called; 0.0 when it may be now, infinite while this process calls it."""
        if endpoint in self._under_way:
            return inf
        return self.rules.wait(self._ledger.page(self._account), endpoint, self._clock.monotonic())

    def remaining(self) -> int:
        """Requests left of the hourly share."""
        return self.rules.remaining(self._ledger.page(self._account), self._clock.monotonic())

    @contextmanager
    def passage(self, endpoint: str) -> Iterator[None]:
        """Enclose one call, from before its sending until its answer or failure.

        Raises:
            CalledTooEarly: it may not be sent now.
        """
        if endpoint in self._under_way:
            raise CalledTooEarly(f"{endpoint} is being called")
        # The time is read inside: what another process did while this one waited for the ledger is in the past then.
        self._ledger.reserve(self._account, lambda page: self.rules.reserve(page, endpoint, self._clock.monotonic()))
        self._under_way.add(endpoint)
        try:
            yield
        except BaseException as error:
            self._record_failure(endpoint, error.retry_after if isinstance(error, CallError) else None)
            raise
        else:
            now = self._clock.monotonic()
            self._ledger.record(self._account, lambda page: self.rules.answered(page, endpoint, now))
        finally:
            self._under_way.discard(endpoint)

    def postpone(self, endpoint: str, retry_after: float | None = None) -> None:
        """Wait as after a failed call, where it was clear without one that it would fail."""
        self._record_failure(endpoint, retry_after)

    def distrust(self, longest_call: float) -> None:
        """Wait out one spacing: the account may just be called, under another name, for that many seconds yet."""
        now = self._clock.monotonic() + longest_call
        self._ledger.record(self._account, lambda page: distrusted(page, now))

    def recognise(self, user: str, longest_call: float) -> None:
        """Say whose calls pass from now on; another user may just be called, elsewhere, for that many seconds yet."""
        now = self._clock.monotonic() + longest_call

        def change(page: Page) -> Page:
            return replace(page if page.user in {"", user} else distrusted(page, now), user=user)

        if self._ledger.page(self._account).user != user:
            self._ledger.record(self._account, change)

    def keep(self, endpoint: str, kept: Kept) -> None:
        """Have something outlive the process, as far as the ledger does."""
        self._ledger.record(self._account, lambda page: page, {endpoint: kept})

    def kept(self, endpoint: str) -> Kept | None:
        """What was last kept, by this process or by another."""
        return self._ledger.kept(self._account, endpoint)

    def _record_failure(self, endpoint: str, retry_after: float | None = None) -> None:
        now, jitter = self._clock.monotonic(), self._jitter()
        self._ledger.record(self._account, lambda page: self.rules.failed(page, endpoint, now, jitter, retry_after))
