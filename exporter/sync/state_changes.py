"""Counts the state changes of an account's locks."""

from collections.abc import Sequence

from exporter.tedee.models import SyncedLock

MAX_ABSENT_LOCKS = 10_000
"""Locks whose counts are kept although the last sync lacks them: 1 MiB. They return if a response was incomplete."""


class StateChanges:
    """Counts the state changes of one account's locks: how often the date of a lock's last change became later.

    The first date of a lock is no change. Neither is an earlier date, which is a correction of the clock that set it;
    the next date is compared with it. A lock without a date, such as one that is not connected, is compared with its
    last date as soon as it has one again.
    """

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        """State changes by the id of the lock. A lock of which no date is known is absent."""
        self._dates: dict[int, float] = {}
        """Last date of each lock in Unix seconds, by the id of the lock."""

    def update(self, synced: Sequence[SyncedLock]) -> None:
        """Count the changes since the previous response."""
        counts, dates = self.counts, self._dates
        for lock in synced:
            date = lock.device_state.last_state_changed_date if lock.device_state else None
            if date is None:
                continue
            previous = dates.get(lock.id)
            if previous is None:
                counts[lock.id] = 0
            elif date > previous:
                counts[lock.id] += 1
            dates[lock.id] = date
        if len(counts) > len(synced) + MAX_ABSENT_LOCKS:
            present = {lock.id for lock in synced}
            self.counts = {lock_id: count for lock_id, count in counts.items() if lock_id in present}
            self._dates = {lock_id: date for lock_id, date in dates.items() if lock_id in present}
