"""Counts the events in the activity log of one lock, each once."""

from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from heapq import nlargest
from math import ceil, inf

from msgspec import Struct, field

from exporter.tedee.events import PAGE_SIZE, Activity, EventKind

OVERLAP = 12 * 3600.0
"""Seconds. Events that arrive later than a newer one are counted if they are not older by more. Locks deliver events
late and in batches, for example after an outage of the bridge."""
MAX_PAGES = 50
"""Pages that are read at once, 10,000 events. Older events are not counted."""
MAX_SEEN = 2 * MAX_PAGES * PAGE_SIZE
"""Counted events that are kept to recognize them. Only events with dates in the future can be so many."""
CLOCK_TOLERANCE = 60.0
"""Seconds by which the date of an event may be later than the clock of this machine."""
MAX_RECENT = 5
"""Events of a lock that the status page may show."""
MAX_KINDS = 150
"""Kinds of events that are counted separately. Tedee documents 68."""
PRESET = (
    EventKind("wrong_pin", "pin"),
    EventKind("unauthorized_pin", "pin"),
    EventKind("door_open_too_long", "device"),
)
"""Events with a count of 0 from the start, since there are alerts for the first of them."""


class EventLog(Struct):
    """What is known about the events of a lock.

    The events are read from the newest to the oldest, one page per request, until all those of the last OVERLAP seconds
    before the newest known event have been read. Times are Unix seconds.
    """

    lock_id: int
    since: float
    """Events before this time are not counted."""
    newest: float = 0.0
    """Time of the newest event at the end of the last complete pass, `since` if there was none; 0.0 before the first
    pass."""
    seen: dict[int, float] = field(default_factory=dict)
    """Times of the counted events by id, as far as they can be read again."""
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(map(" ".join, PRESET), 0))
    """By event and source, such as `unlocked app`."""
    recent: list[tuple[float, str]] = field(default_factory=list)
    """Time, and event and source, of the newest MAX_RECENT counted events."""

    @property
    def horizon(self) -> float:
        """The time down to which events are read."""
        return max(self.since, self.newest - OVERLAP)

    def events(self) -> Mapping[tuple[str, ...], int]:
        """Return the number of events by event and source."""
        return {tuple(name.split()): count for name, count in self.counts.items()}

    def count(self, activities: Iterable[Activity], now: float) -> bool:
        """Count the events that were not counted yet. Returns True if there are any.

        Args:
            activities: The events.
            now: Present time. A later event is due to a wrong clock, and is not one of the recent ones.
        """
        horizon, counted = self.horizon, False
        for each in activities:
            if each.date is None or each.date < horizon:
                continue
            is_new = each.id not in self.seen
            # Tedee may have corrected the date of a known event. msgspec does not encode subclasses of float.
            self.seen[each.id] = float(each.date)
            if is_new and each.event is not None:
                name = " ".join(EventKind.of(each.event))
                name = name if name in self.counts or len(self.counts) < MAX_KINDS else "other unknown"
                self.counts[name] = self.counts.get(name, 0) + 1
                if each.date <= now + CLOCK_TOLERANCE:
                    self.recent = nlargest(MAX_RECENT, [*self.recent, (float(each.date), name)])
                counted = True
        return counted

    def complete_pass(self, now: float) -> None:
        """Record that all events down to the horizon were read.

        Args:
            now: Present time. A later event is due to a wrong clock: earlier events must not be too old because of it.
        """
        self.newest = max([self.newest, self.since, *(date for date in self.seen.values() if date <= now)])
        horizon = self.horizon
        newest = nlargest(MAX_SEEN, ((date, key) for key, date in self.seen.items() if date >= horizon))
        self.seen = {key: date for date, key in newest}


class Pass:
    """Reading the pages of a log, from the newest event down to the horizon."""

    def __init__(self, log: EventLog) -> None:
        self.log = log
        self.pages = 0
        self.failures = 0
        """Consecutive failed requests for the next page."""
        self.has_news = False
        """True if an event was counted."""
        self._before: int | None = None
        """Unix time in milliseconds; None for the first page."""

    @property
    def before(self) -> str | None:
        """Date and time before which the events of the next page are; None for the first page."""
        if self._before is None:
            return None
        return datetime.fromtimestamp(self._before / 1000, UTC).isoformat(timespec="milliseconds")[:-6]

    def add(self, page: Collection[Activity], now: float, *, is_full: bool) -> bool:
        """Count the events of the next page. Returns True if it was the last page.

        Args:
            page: The events.
            now: Present time in Unix seconds.
            is_full: True if the page has the maximum number of events.
        """
        self.has_news = self.log.count(page, now) or self.has_news
        self.pages += 1
        self.failures = 0
        dates = [each.date for each in page if each.date is not None]
        # The newest event is the first one. A single wrong date does not end the pass.
        oldest = dates[-1] if dates else -inf
        is_older = self._before is None or any(date * 1000 < self._before for date in dates)
        if not is_full or not is_older or oldest < self.log.horizon or self.pages >= MAX_PAGES:
            self.log.complete_pass(now)
            return True
        # The next page may have more events with the date of the oldest one. If a whole page has one date, Tedee does
        # not return the others with this date.
        before = ceil(round(oldest * 1000, 2)) + 1
        self._before = before if self._before is None else min(before, self._before - 1)
        return False
