"""What is known of an account's locks beside their state, and which of them are wanted."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from exporter.tedee.models import LockDetails, ParseResult, SyncedLock, write_details

MAX_LIST_BYTES = 16 * 2**20
"""Size at which a list is taken to be complete, as it is stored: that of 60,000 locks."""
RETRY_MISSING = 300.0
"""Seconds between two looks for a chosen lock that the account does not have, or a synced one that its list lacks."""


@dataclass(frozen=True)
class LockFilter:
    """The locks an account is limited to, by id or by serial number; all of them where both are empty."""

    ids: tuple[int, ...] = ()
    serial_numbers: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.ids or self.serial_numbers)

    def find(self, details: Collection[LockDetails]) -> tuple[tuple[int, ...], tuple[str, ...]]:
        """The ids of the chosen locks in an account's list, and what was chosen but is not in it."""
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
    """By the id of the lock."""
    revisions: Mapping[int, int | None]
    """What the locks had when they were last synced before the first page was fetched.

    Not later: a lock that is renamed while its page lies here has moved its revision by the next sync.
    """


class LockDetailsCache:
    """The account's list of locks as it was last fetched, and whether it is time to fetch it again.

    It is fetched page by page, with syncs in between where the list is long.
    """

    def __init__(self, chosen: LockFilter) -> None:
        self.chosen = chosen
        self.details: Mapping[int, LockDetails] = {}
        self.revisions: Mapping[int, int | None] | None = None
        """The list's; None before it was ever fetched."""
        self.ids = chosen.ids
        """The locks to ask for; none for all."""
        self.missing: tuple[str, ...] = ()
        """LockFilter locks that the account does not have."""
        self._look_again_at = 0.0
        self.next_page = 1
        """The page to fetch next; pages count from 1."""
        self._listed: dict[int, LockDetails] = {}
        """The locks on those before it."""
        self._listed_bytes = 0
        self._revisions_before: dict[int, int | None] = {}
        """The list's revisions, from its first page on."""
        self._was_unusable = False
        """Whether the page before the next one had rows, but none that can be used."""

    def add_page(self, page: ParseResult[LockDetails], synced: Collection[SyncedLock]) -> LockList | None:
        """Take a page that was just fetched; the whole list, once a page brings nothing new.

        A page with rows of which none can be used does not tell whether it is the last. A second one in a row is
        taken for it, so that there is an end. So is a page that makes the list larger than any account's.

        Args:
            page: the one after the last that was taken.
            synced: the locks as they were last synced before it was fetched.
        """
        if self.next_page == 1:
            self._revisions_before = {lock.id: lock.revision for lock in synced}
        is_unusable = bool(page.raw_rows) and not page.rows
        is_last = self._was_unusable if is_unusable else self._listed.keys() >= page.rows.keys()
        self._was_unusable = is_unusable and not is_last
        self._listed_bytes += sum(len(write_details(lock)) for lock in page.rows.values())
        is_last = is_last or self._listed_bytes > MAX_LIST_BYTES
        self._listed |= page.rows
        self.next_page += 1
        if not is_last:
            return None
        listing = LockList(self._listed, self._revisions_before)
        self._listed, self._listed_bytes, self.next_page = {}, 0, 1
        return listing

    def update(self, listing: LockList, now: float) -> None:
        """Take a complete list, at that many monotonic seconds."""
        self.details, self.revisions = listing
        self._look_again_at = now + RETRY_MISSING
        if self.chosen:
            self.ids, self.missing = self.chosen.find(self.details.values())

    def set_filter(self, chosen: LockFilter) -> None:
        """Limit the account to other locks."""
        if chosen != self.chosen:
            self.chosen, self.ids, self.missing = chosen, chosen.ids, ()
            if chosen and self.revisions is not None:
                self.ids, self.missing = chosen.find(self.details.values())

    def unresolved(self) -> bool:
        """Whether the locks to sync are not known yet, since serial numbers stand only in the list."""
        return bool(self.chosen) and not self.ids

    def needs_refresh(self, synced: Collection[SyncedLock], now: float) -> bool:
        """Whether the list has to be fetched, or fetched on, for the locks of a sync.

        It has to when a lock is new or its revision moved, as it does with its name. A lock that is missing is looked
        for now and then: one that is chosen may come back under another id, and one that is synced was overlooked
        where the list shrank between two pages.
        """
        revisions = self.revisions
        if revisions is None or self.next_page > 1:
            return True
        if now >= self._look_again_at and (
            self.missing or len(synced) < len(self.ids) or any(lock.id not in self.details for lock in synced)
        ):
            return True
        # A lock that was listed before it was first synced may have been renamed in between: it counts as new.
        return any(
            lock.id not in revisions or (lock.revision is not None and lock.revision != revisions[lock.id])
            for lock in synced
        )

    def covered_by(self, asked: Collection[int]) -> bool:
        """Whether an answer about the given locks, or about all where none are given, is one about all the wanted."""
        return not self.unresolved() and (not asked or (bool(self.chosen) and {*self.ids} <= {*asked}))

    def wants(self, rows: Iterable[SyncedLock]) -> tuple[SyncedLock, ...]:
        """Those of an answer's locks that are wanted."""
        return tuple(row for row in rows if not self.chosen or row.id in self.ids)
