"""Details of an account's locks from Tedee's list of locks, and the ids of the locks to sync."""

from collections.abc import Collection, Iterable, Mapping
from math import inf
from typing import NamedTuple

import structlog

from exporter.tedee.client import LOCKS, TedeeClient
from exporter.tedee.errors import NotFound
from exporter.tedee.models import LockDetails, ParseResult, SyncedLock, read_details, write_details

from .resource import Resource, ResourceOptions
from .responses import CachedResponse

log = structlog.get_logger(__name__)

MAX_LIST_BYTES = 16 * 2**20
"""Size, as stored, at which a list is considered complete: about 60,000 locks."""
RETRY_MISSING = 300.0
"""Seconds between two fetches of the list because a selected or synced lock is missing from it."""


class LockList(NamedTuple):
    """A complete list of the account's locks."""

    details: Mapping[int, LockDetails]
    """Details by the id of the lock."""
    revisions: Mapping[int, int | None]
    """Revisions of the locks in the last sync before the first page was fetched.

    If a lock is renamed after its page was fetched, the next sync reports another revision than this one, and the list
    is fetched again. With the revisions of a later sync, the old name would remain.
    """


class LockDetailsCache(Resource):
    """The account's list of locks as it was last fetched, and the pages of the next one.

    The list is fetched page by page. If it is long, syncs are made between two pages.
    """

    endpoint = LOCKS
    title = "fetch of lock details"

    def __init__(self, options: ResourceOptions) -> None:
        self.lock_filter = options.lock_filter
        self.details: Mapping[int, LockDetails] = {}
        self.ids = self.lock_filter.ids
        """Ids of the locks to sync; empty for all locks."""
        self.missing: tuple[str, ...] = ()
        """Ids and serial numbers of selected locks that the account does not have."""
        self._revisions: Mapping[int, int | None] | None = None
        """Revisions of the list; None before the first list."""
        self._retry_missing_at = 0.0
        self.synced: Collection[SyncedLock] = ()
        """The selected locks of the last successful sync."""
        self._sync_succeeds = False
        self._ids_may_be_outdated = False
        """True if Tedee does not know one of the ids, until the next list is complete."""
        self._next_page = 1
        """Number of the page to fetch next, counted from 1."""
        self._partial_list: dict[int, LockDetails] = {}
        """Locks of the pages before the next one."""
        self._partial_list_bytes = 0
        self._partial_list_revisions: dict[int, int | None] = {}
        """Revisions before the first page was fetched."""
        self._was_unusable = False
        """True if the last page had rows, but no usable one."""

    def sync_succeeded(self, synced: Collection[SyncedLock]) -> None:
        """Record the locks of a sync. New locks and other revisions make the list due."""
        self.synced, self._sync_succeeds, self._ids_may_be_outdated = synced, True, False

    def sync_failed(self, *, has_unknown_id: bool) -> None:
        """Record that the last sync failed. The list is not due until the next one succeeds.

        Args:
            has_unknown_id: True if Tedee does not know one of the ids. Then the list is due.
        """
        self._sync_succeeds, self._ids_may_be_outdated = False, has_unknown_id

    def time_until_due(self, now: float) -> float:
        """Return 0.0 if the list, or its next page, is needed."""
        is_needed = self._ids_may_be_outdated or (self._sync_succeeds and self._needs_refresh(now))
        return 0.0 if is_needed else inf

    def fetch(self, client: TedeeClient, now: float) -> CachedResponse | None:
        """Fetch the next page, and use the list after its last page.

        Raises:
            CallError: The call failed.
            NotFound: The list has none of the selected locks, so there is nothing to sync.
        """
        lock_list = self._add_page(client.locks(self._next_page))
        if not lock_list:
            return None
        known_missing = self.missing
        self._update(lock_list, now)
        missing = ", ".join(self.missing)
        if self.is_unresolved():
            problem = f"the account has none of the selected locks: {missing}"
            raise NotFound(problem, account=client.account, endpoint=LOCKS.path)
        if missing and self.missing != known_missing:
            log.warning("selected locks are not in the account", account=client.account, missing=missing)
        rows = [write_details(each) for each in lock_list.details.values()]
        return CachedResponse(rows, revisions=lock_list.revisions)

    def restore(self, response: CachedResponse, now: float) -> bool:
        """Use a stored list."""
        self._update(LockList(read_details(response.rows or ()).rows, response.revisions), now)
        return True

    def configure(self, options: ResourceOptions) -> bool:
        """Select other locks."""
        lock_filter = options.lock_filter
        if lock_filter != self.lock_filter:
            self.lock_filter, self.ids, self.missing = lock_filter, lock_filter.ids, ()
            if lock_filter and self._revisions is not None:
                self.ids, self.missing = lock_filter.resolve(self.details.values())
        return True

    def is_unresolved(self) -> bool:
        """Return True if no id to sync is known: no list was fetched yet, or it has none of the selected locks."""
        return bool(self.lock_filter) and not self.ids

    def is_covered_by(self, requested_ids: Collection[int]) -> bool:
        """Return True if a response for these ids, or for all locks if there are none, has all selected locks."""
        return not self.is_unresolved() and (
            not requested_ids or (bool(self.lock_filter) and {*self.ids} <= {*requested_ids})
        )

    def select(self, rows: Iterable[SyncedLock]) -> tuple[SyncedLock, ...]:
        """Return the selected locks of a response."""
        return tuple(row for row in rows if not self.lock_filter or row.id in self.ids)

    def _add_page(self, page: ParseResult[LockDetails]) -> LockList | None:
        """Add the page `_next_page`. Returns the complete list if it was the last page, which is one without new locks.

        It is unknown whether a page whose rows are all unusable is the last one. The second such page in succession
        counts as the last one, so that every list ends. So does a page with which the list exceeds `MAX_LIST_BYTES`.
        """
        if self._next_page == 1:
            self._partial_list_revisions = {lock.id: lock.revision for lock in self.synced}
        is_unusable = bool(page.raw_rows) and not page.rows
        is_last = self._was_unusable if is_unusable else self._partial_list.keys() >= page.rows.keys()
        self._was_unusable = is_unusable and not is_last
        self._partial_list_bytes += sum(len(write_details(lock)) for lock in page.rows.values())
        is_last = is_last or self._partial_list_bytes > MAX_LIST_BYTES
        self._partial_list |= page.rows
        self._next_page += 1
        if not is_last:
            return None
        lock_list = LockList(self._partial_list, self._partial_list_revisions)
        self._partial_list, self._partial_list_bytes, self._next_page = {}, 0, 1
        return lock_list

    def _update(self, lock_list: LockList, now: float) -> None:
        self.details, self._revisions = lock_list
        self._retry_missing_at = now + RETRY_MISSING
        self._ids_may_be_outdated = False
        if self.lock_filter:
            self.ids, self.missing = self.lock_filter.resolve(self.details.values())

    def _needs_refresh(self, now: float) -> bool:
        """Return True if the list, or its next page, has to be fetched.

        It has to be if a synced lock is new or has another revision, as after a change of its name. If a lock is
        missing, the list is fetched every `RETRY_MISSING` seconds: a selected lock may get another id, and a list lacks
        a synced lock if it became shorter between the fetches of two pages.
        """
        revisions = self._revisions
        if revisions is None or self._next_page > 1:
            return True
        if now >= self._retry_missing_at and (
            self.missing or len(self.synced) < len(self.ids) or any(lock.id not in self.details for lock in self.synced)
        ):
            return True
        # A lock that was listed before its first sync counts as new: it may have been renamed between the two.
        return any(
            lock.id not in revisions or (lock.revision is not None and lock.revision != revisions[lock.id])
            for lock in self.synced
        )
