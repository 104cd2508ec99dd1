"""Details of an account's locks from the list of locks, and the selection of the locks to sync."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from exporter.tedee.models import LockDetails, ParseResult, SyncedLock, write_details

MAX_LIST_BYTES = 16 * 2**20
"""Size, as stored, at which a list is considered complete: about 60,000 locks."""
RETRY_MISSING = 300.0
"""Seconds between two fetches of the list because a selected or synced lock is missing from it."""


@dataclass(frozen=True)
class LockFilter:
    """The selected locks of an account, by id or by serial number; all locks if both are empty."""

    ids: tuple[int, ...] = ()
    serial_numbers: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.ids or self.serial_numbers)

    def resolve(self, details: Collection[LockDetails]) -> tuple[tuple[int, ...], tuple[str, ...]]:
        """Return the ids of the selected locks in a list, and the ids and serial numbers that the list lacks."""
        ids = {each.id for each in details}
        by_serial_number = {each.serial_number: each.id for each in details}
        found = [lock_id for lock_id in self.ids if lock_id in ids]
        found += [by_serial_number[number] for number in self.serial_numbers if number in by_serial_number]
        missing = [str(lock_id) for lock_id in self.ids if lock_id not in ids]
        missing += [number for number in self.serial_numbers if number not in by_serial_number]
        return tuple(found), tuple(missing)


class LockList(NamedTuple):
    """A complete list of the account's locks."""

    details: Mapping[int, LockDetails]
    """Details by the id of the lock."""
    revisions: Mapping[int, int | None]
    """Revisions of the locks in the last sync before the first page was fetched.

    If a lock is renamed after its page was fetched, the next sync reports another revision than this one, and the list
    is fetched again. With the revisions of a later sync, the old name would remain.
    """


class LockDetailsCache:
    """The account's list of locks as it was last fetched, and the pages of the next one.

    The list is fetched page by page. If it is long, syncs are made between two pages.
    """

    def __init__(self, lock_filter: LockFilter) -> None:
        self.lock_filter = lock_filter
        self.details: Mapping[int, LockDetails] = {}
        self.revisions: Mapping[int, int | None] | None = None
        """Revisions of the list; None before the first list."""
        self.ids = lock_filter.ids
        """Ids of the locks to request; empty for all locks."""
        self.missing: tuple[str, ...] = ()
        """Ids and serial numbers of selected locks that the account does not have."""
        self._retry_missing_at = 0.0
        self.next_page = 1
        """Number of the page to fetch next, counted from 1."""
        self._partial_list: dict[int, LockDetails] = {}
        """Locks of the pages before the next one."""
        self._partial_list_bytes = 0
        self._partial_list_revisions: dict[int, int | None] = {}
        """Revisions before the first page was fetched."""
        self._was_unusable = False
        """True if the last page had rows, but no usable one."""

    def add_page(self, page: ParseResult[LockDetails], synced: Collection[SyncedLock]) -> LockList | None:
        """Add the next page. Returns the complete list if it was the last page, which is one without new locks.

        It is unknown whether a page whose rows are all unusable is the last one. The second such page in succession
        counts as the last one, so that every list ends. So does a page with which the list exceeds `MAX_LIST_BYTES`.

        Args:
            page: The page `next_page`.
            synced: The locks of the last sync before the page was fetched.
        """
        if self.next_page == 1:
            self._partial_list_revisions = {lock.id: lock.revision for lock in synced}
        is_unusable = bool(page.raw_rows) and not page.rows
        is_last = self._was_unusable if is_unusable else self._partial_list.keys() >= page.rows.keys()
        self._was_unusable = is_unusable and not is_last
        self._partial_list_bytes += sum(len(write_details(lock)) for lock in page.rows.values())
        is_last = is_last or self._partial_list_bytes > MAX_LIST_BYTES
        self._partial_list |= page.rows
        self.next_page += 1
        if not is_last:
            return None
        lock_list = LockList(self._partial_list, self._partial_list_revisions)
        self._partial_list, self._partial_list_bytes, self.next_page = {}, 0, 1
        return lock_list

    def update(self, lock_list: LockList, now: float) -> None:
        """Replace the list, at a time in monotonic seconds."""
        self.details, self.revisions = lock_list
        self._retry_missing_at = now + RETRY_MISSING
        if self.lock_filter:
            self.ids, self.missing = self.lock_filter.resolve(self.details.values())

    def set_filter(self, lock_filter: LockFilter) -> None:
        """Select other locks."""
        if lock_filter != self.lock_filter:
            self.lock_filter, self.ids, self.missing = lock_filter, lock_filter.ids, ()
            if lock_filter and self.revisions is not None:
                self.ids, self.missing = lock_filter.resolve(self.details.values())

    def is_unresolved(self) -> bool:
        """Return True if no id to sync is known: no list was fetched yet, or it has none of the selected locks."""
        return bool(self.lock_filter) and not self.ids

    def needs_refresh(self, synced: Collection[SyncedLock], now: float) -> bool:
        """Return True if the list, or its next page, has to be fetched.

        It has to be if a synced lock is new or has another revision, as after a change of its name. If a lock is
        missing, the list is fetched every `RETRY_MISSING` seconds: a selected lock may get another id, and a list lacks
        a synced lock if it became shorter between the fetches of two pages.
        """
        revisions = self.revisions
        if revisions is None or self.next_page > 1:
            return True
        if now >= self._retry_missing_at and (
            self.missing or len(synced) < len(self.ids) or any(lock.id not in self.details for lock in synced)
        ):
            return True
        # A lock that was listed before its first sync counts as new: it may have been renamed between the two.
        return any(
            lock.id not in revisions or (lock.revision is not None and lock.revision != revisions[lock.id])
            for lock in synced
        )

    def is_covered_by(self, requested_ids: Collection[int]) -> bool:
        """Return True if a response for these ids, or for all locks if there are none, has all selected locks."""
        return not self.is_unresolved() and (
            not requested_ids or (bool(self.lock_filter) and {*self.ids} <= {*requested_ids})
        )

    def select(self, rows: Iterable[SyncedLock]) -> tuple[SyncedLock, ...]:
        """Return the selected locks of a response."""
        return tuple(row for row in rows if not self.lock_filter or row.id in self.ids)
