"""A state store in an SQLite file, which several processes may share. It also stores cached responses."""

import os
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import msgspec
import structlog

from exporter.clock import Clock, Instant
from exporter.tedee.endpoint import SYNC_SPACING

from .rate_limits import HOUR, RateLimitState
from .recovery import INCOMPLETE_MTIME, FileTimes, Stamp, StoredState, check_stamp, restore
from .responses import CachedResponse, pack, unpack
from .sqlite_file import SQLiteFile
from .store import StoreBusy, StoreUnavailable, Transaction

log = structlog.get_logger(__name__)

T = TypeVar("T", Stamp, StoredState)


class SQLiteStateStore:
    """Rate-limit states and cached responses in one file.

    The file proves when the last call ended, because each call is written to it before the request and after the
    response. If the proof is missing or invalid (see `recovery`), no call is made for the maximum duration of a call
    plus the spacing. After a power failure the file is of another boot, and its proof is invalid.
    """

    is_required = False
    poll_interval = 1.0

    def __init__(
        self,
        path: Path,
        clock: Clock,
        *,
        longest_call: float,
        shard: str = "0/1",
        file_time: Callable[[], float] = time.time,
    ) -> None:
        """Create a store without opening the file.

        Args:
            path: Path of the file.
            clock: Clock for the times in the file.
            longest_call: Maximum duration in seconds of a call by another process.
            shard: Shard of this process.
            file_time: Returns the time of the file system in Unix seconds.
        """
        self.name = str(path)
        self.longest_call = longest_call
        self._file = SQLiteFile(path, clock.monotonic)
        self._clock = clock
        self._shard = shard
        self._file_time = file_time
        self._times_opened = 0
        """As in the file, when it was last used."""
        self._times_distrusted = 0
        self._logged_reason: str | None = None
        """Reason for the distrust that was logged last; None while the file is trusted."""
        self._blocked_until = 0.0
        """Time in monotonic seconds until which no call is allowed, because the proof was invalid."""
        self._stamp: Stamp | None = None
        """Last stamp that this process read or wrote."""
        self._states: dict[str, RateLimitState] = {}
        """States that this process read or wrote since the file has that stamp."""
        self._to_rewrite: set[str] = set()
        """Keys whose states in the file are of another boot."""
        self._purged_at = clock.monotonic()
        self.is_new = not self._file.exists()
        self._was_never_written = self.is_new
        """True until the first write to a file that this process created."""

    @contextmanager
    def transaction(self, keys: Sequence[str]) -> Iterator[Transaction]:
        """Replace the states of some keys, as `StateStore.transaction` does."""
        with self._checked_transaction() as (database, now, must_write):
            before = tuple(self._read_state(database, key, now) for key in keys)
            generation = self._file.times_opened + self._times_distrusted
            transaction = Transaction(now.monotonic, before, self._blocked_until, generation)
            yield transaction
            changes = [
                (key, new)
                for key, old, new in zip(keys, before, transaction.states, strict=True)
                if new and (new != old or key in self._to_rewrite)
            ]
            for key, state in changes:
                self._write_state(database, key, state, now)
            if changes or must_write:
                self._write_stamp(database, now)

    def problem(self) -> None:
        """Return None: the state cache notes and logs problems of a file, which is not required."""

    def mark_incomplete(self) -> bool:
        """Mark the file as incomplete, because it lacks a call. Returns False if that fails.

        The mark is the modification time: it needs no space on the disk.
        """
        try:
            if not self._file.is_foreign and self._file.path.is_file():
                os.utime(self._file.path, (INCOMPLETE_MTIME, INCOMPLETE_MTIME))
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Close the file."""
        self._states.clear()
        self._file.close()

    # Cached responses. If the file cannot be used, the next transaction of a state reports it.

    def store_response(self, account: str, endpoint: str, fingerprint: str, response: CachedResponse) -> None:
        """Store a response, as `ResponseStore.store_response` does."""
        packed = pack(response)
        with suppress(StoreBusy, StoreUnavailable), self._checked_transaction() as (database, now, _):
            checksum = self._file.checksum(account, endpoint, fingerprint, packed)
            database.execute("REPLACE INTO responses VALUES (?, ?, ?, ?)", (account, endpoint, packed, checksum))
            self._write_stamp(database, now)

    def cached_response(self, account: str, endpoint: str, fingerprint: str) -> CachedResponse | None:
        """Return a stored response, as `ResponseStore.cached_response` does."""
        query = "SELECT response, checksum FROM responses WHERE account = ? AND endpoint = ?"
        with suppress(StoreBusy, StoreUnavailable), self._file.transaction() as database:
            row = database.execute(query, (account, endpoint)).fetchone()
            if row and self._file.is_authentic(row[1], account, endpoint, fingerprint, row[0]):
                return unpack(row[0])
        return None

    def delete_other_accounts(self, accounts: Collection[str]) -> None:
        """Delete responses, as `ResponseStore.delete_other_accounts` does."""
        with suppress(StoreBusy, StoreUnavailable), self._checked_transaction() as (database, now, _):
            stored = {account for (account,) in database.execute("SELECT DISTINCT account FROM responses")}
            others = [(account,) for account in stored - {*accounts}]
            if others:
                database.executemany("DELETE FROM responses WHERE account = ?", others)
                self._write_stamp(database, now)

    def subscribe(self, listener: Callable[[str], None]) -> None:
        """Do nothing: the processes check the file."""

    # Rows

    @contextmanager
    def _checked_transaction(self) -> Iterator[tuple[sqlite3.Connection, Instant, bool]]:
        """Provide the connection, the time of the transaction, and whether a new stamp must be written."""
        try:
            with self._file.transaction() as database:
                if self._times_opened != self._file.times_opened:
                    self._times_opened = self._file.times_opened
                    self._states.clear()
                now = Instant.now(self._clock)
                yield database, now, self._check_stamp(database, now)
        except BaseException:
            self._states.clear()
            raise

    def _check_stamp(self, database: sqlite3.Connection, now: Instant) -> bool:
        """Set `_blocked_until` if the proof of the file is invalid. Returns True if a new stamp must be written."""
        content, checksum = database.execute("SELECT stamp, checksum FROM store").fetchone()
        stamp = _decode(content, Stamp) if self._file.is_authentic(checksum, content) else None
        status = self._file.path.stat()
        check = check_stamp(stamp, self._stamp, FileTimes(status.st_mtime, status.st_ctime), self._shard, now)
        if check.is_unchanged:
            self._logged_reason = None
            return False
        self._states.clear()
        self._stamp = stamp
        self._blocked_until = max(self._blocked_until, check.blocked_until)
        if check.distrust_reason and not self._was_never_written:
            seconds = self.longest_call + SYNC_SPACING
            self._blocked_until = max(self._blocked_until, now.monotonic + seconds)
            self._times_distrusted += 1
            if check.distrust_reason != self._logged_reason:  # a full disk is a reason at each transaction
                log.info(
                    "the state file does not prove when Tedee was last called; accounts whose last call this process "
                    "does not know wait until any earlier call ended",
                    path=self.name,
                    reason=check.distrust_reason,
                    seconds=seconds,
                )
        self._logged_reason = check.distrust_reason
        return check.must_write

    def _write_stamp(self, database: sqlite3.Connection, now: Instant) -> None:
        self._was_never_written = False
        self._stamp = Stamp(now, self._file_time(), self._shard, self._blocked_until)
        content = msgspec.json.encode(self._stamp)
        database.execute("UPDATE store SET stamp = ?, checksum = ?", (content, self._file.checksum(content)))

    def _read_state(self, database: sqlite3.Connection, key: str, now: Instant) -> RateLimitState | None:
        if key not in self._states:
            row_key = self._file.checksum(key)
            row = database.execute("SELECT state, checksum FROM states WHERE key = ?", (row_key,)).fetchone()
            if not row or not self._file.is_authentic(row[1], key, row[0]):
                return None
            stored = _decode(row[0], StoredState)
            if stored is None:
                return None
            self._states[key] = restore(stored, now)
            if stored.at.boot != now.boot and self._stamp and self._stamp.at.boot == now.boot:
                self._to_rewrite.add(key)
        return self._states[key].blocked(self._blocked_until)

    def _write_state(self, database: sqlite3.Connection, key: str, state: RateLimitState, now: Instant) -> None:
        content = msgspec.json.encode(StoredState(now, state))
        allowed = max((each.next_allowed_at for each in state.endpoints.values()), default=0.0)
        expires = max(now.monotonic + HOUR, allowed, state.blocked_until)
        values = (self._file.checksum(key), now.boot, expires, content, self._file.checksum(key, content))
        database.execute("REPLACE INTO states VALUES (?, ?, ?, ?, ?)", values)
        self._states[key] = state
        self._to_rewrite.discard(key)
        if now.monotonic >= self._purged_at + HOUR:
            # Delete states of replaced keys and removed accounts, so that they do not accumulate.
            self._purged_at = now.monotonic
            database.execute("DELETE FROM states WHERE boot != ? OR expires < ?", (now.boot, now.monotonic))


def _decode(content: object, kind: type[T]) -> T | None:
    """Return the decoded content; None if another version of the program wrote it."""
    assert isinstance(content, bytes | str)  # noqa: S101  (its checksum is correct)
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.MsgspecError:
        return None
