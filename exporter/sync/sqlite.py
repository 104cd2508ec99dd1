"""A state store in an SQLite file, which several processes may share."""

import hashlib
import hmac
import json
import os
import secrets
import sqlite3
import time
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TypeVar

import msgspec
import structlog

from exporter.clock import Clock

from .rate_limits import HOUR, SYNC_SPACING, RateLimitState
from .recovery import INCOMPLETE_MTIME, FileTimes, Stamp, StoredState, distrust_reason, restore
from .store import CachedResponse, Change, Instant, StoreBusy, StoreUnavailable

log = structlog.get_logger(__name__)

FORMAT_VERSION = 2
"""`user_version` of the file. A file of an older version is replaced, one of a newer version is not touched."""
APPLICATION_ID = 0x7EDEE
"""`application_id` of the file. The database of another program is not touched."""
BUSY_TIMEOUT = 2.0
"""Seconds to wait while another process has locked the file. A transaction takes milliseconds."""

_SCHEMA = (
    "CREATE TABLE store (secret BLOB NOT NULL, stamp BLOB, checksum BLOB)",
    "CREATE TABLE states (key BLOB PRIMARY KEY, boot TEXT, expires REAL, state BLOB, checksum BLOB) WITHOUT ROWID",
    """CREATE TABLE responses (account TEXT, endpoint TEXT, response BLOB, checksum BLOB,
       PRIMARY KEY (account, endpoint)) WITHOUT ROWID""",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {FORMAT_VERSION}",
)
_TABLES = {"store", "states", "responses"}
_REMEDY = "name another state_file"
_BUSY = "another process does not release the state file"
_DAMAGE_CODES = {
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    # The statements of this module cannot cause the following errors if the schema is the one above.
    sqlite3.SQLITE_ERROR,
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_MISMATCH,
}


class _Damaged(Exception):
    """The file has the right format, but not its tables."""


T = TypeVar("T", Stamp, StoredState)

_ERRORS = (sqlite3.Error, OSError, UnicodeDecodeError, _Damaged)
"""Errors of the file. Python raises UnicodeDecodeError for a damaged text."""


class SQLiteStateStore:
    """Rate-limit states and cached responses in one SQLite file.

    The file proves when the last call ended, because each call is written to it before the request and after the
    response. If the proof is missing or invalid (see `recovery`), no call is made for the maximum duration of a call
    plus the spacing.

    There is no write-ahead log, and writes are not synchronised to the disk. If the process is killed, nothing is lost.
    After a power failure the file is of another boot, and its proof is invalid.
    """

    def __init__(
        self,
        path: Path,
        clock: Clock,
        *,
        longest_call: float,
        shard: str = "0/1",
        file_time: Callable[[], float] = time.time,
    ) -> None:
        """Create a store without opening the file. The first use opens the file, or creates it with its folder.

        Args:
            path: Path of the file.
            clock: Clock for the times in the file.
            longest_call: Maximum duration in seconds of a call by another process.
            shard: Shard of this process.
            file_time: Returns the time of the file system in Unix seconds.
        """
        self.path = path
        self.longest_call = longest_call
        self.generation = 0
        """Increases when the file may lack states that this process knows."""
        self.blocked_until = 0.0
        """Time in monotonic seconds until which no call is allowed, because the proof was invalid."""
        self._clock = clock
        self._shard = shard
        self._file_time = file_time
        self._database: sqlite3.Connection | None = None
        self._file_identity: tuple[int, int] | None = None
        self._is_foreign = False
        """True if the file belongs to another program."""
        self._secret = b""
        self._written_stamp: tuple[object, object] = (None, None)
        """Encoded stamp in the file, and its checksum."""
        self._stamp: Stamp | None = None
        """Last stamp that this process read or wrote."""
        self._states: dict[str, RateLimitState] = {}
        """States that this process read or wrote since the file has that stamp."""
        self._to_rewrite: set[str] = set()
        """Keys whose states in the file are of another boot."""
        self._purged_at = clock.monotonic()
        self._busy_until = 0.0
        """Time in monotonic seconds until which the file is considered locked by another process."""
        self.is_new = _file_identity(path) is None
        self._was_never_written = self.is_new
        """True until the first write to a file that this process created."""

    def update(self, keys: Sequence[str], change: Change) -> tuple[RateLimitState, ...]:
        """Replace the states of some keys, as `StateStore.update` does."""
        with self._transaction() as database:
            now = Instant.now(self._clock)
            must_write = self._check_proof(now)
            before = tuple(self._read_state(database, key, now) for key in keys)
            after = change(now.monotonic, before)
            changes = [
                (key, new)
                for key, old, new in zip(keys, before, after, strict=True)
                if new != old or key in self._to_rewrite
            ]
            for key, state in changes:
                self._write_state(database, key, state, now)
            if changes or must_write:
                self._write_stamp(database, now)
        return after

    def store_response(self, account: str, endpoint: str, fingerprint: str, response: CachedResponse) -> None:
        """Store a response, as `StateStore.store_response` does."""
        packed = _pack(response)
        with self._transaction() as database:
            now = Instant.now(self._clock)
            self._check_proof(now)
            checksum = self._checksum(account, endpoint, fingerprint, packed)
            database.execute("REPLACE INTO responses VALUES (?, ?, ?, ?)", (account, endpoint, packed, checksum))
            self._write_stamp(database, now)

    def cached_response(self, account: str, endpoint: str, fingerprint: str) -> CachedResponse | None:
        """Return a stored response, as `StateStore.cached_response` does."""
        query = "SELECT response, checksum FROM responses WHERE account = ? AND endpoint = ?"
        with self._transaction() as database:
            row = database.execute(query, (account, endpoint)).fetchone()
            if row and self._is_authentic(row[1], account, endpoint, fingerprint, row[0]):
                return _unpack(row[0])
        return None

    def delete_other_accounts(self, accounts: Collection[str]) -> None:
        """Delete the responses of all other accounts."""
        with self._transaction() as database:
            now = Instant.now(self._clock)
            self._check_proof(now)
            stored = {account for (account,) in database.execute("SELECT DISTINCT account FROM responses")}
            others = [(account,) for account in stored - {*accounts}]
            if others:
                database.executemany("DELETE FROM responses WHERE account = ?", others)
                self._write_stamp(database, now)

    def mark_incomplete(self) -> bool:
        """Mark the file as incomplete, because it lacks a call. Returns False if that fails.

        The mark is the modification time: it needs no space on the disk.
        """
        try:
            if not self._is_foreign and self.path.is_file():
                os.utime(self.path, (INCOMPLETE_MTIME, INCOMPLETE_MTIME))
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Close the file. Every transaction is committed already."""
        self._states.clear()
        if self._database:
            with suppress(sqlite3.Error):
                self._database.close()
        self._database = None

    # Rows

    def _check_proof(self, now: Instant) -> bool:
        """Set `blocked_until` if the proof of the file is invalid. Returns True if a new stamp must be written."""
        content, checksum = self._written_stamp
        stamp = _decode(content, Stamp) if self._is_authentic(checksum, content) else None
        times = _file_times(self.path)
        is_invalid = stamp is None or times.modified == INCOMPLETE_MTIME
        is_first_check = self._stamp is None
        if stamp == self._stamp and not is_invalid:
            return False
        self._states.clear()
        self._stamp = stamp
        # The shard matters only in the first check. Later, the stamp of another shard means that both use this file,
        # which has the calls of both. If they distrusted each other's stamps, they would wait forever.
        reason = distrust_reason(stamp, times, self._shard if is_first_check else None, now)
        if stamp and not reason:
            self.blocked_until = max(self.blocked_until, stamp.blocked_until)
            return False
        if not self._was_never_written:
            seconds = self.longest_call + SYNC_SPACING
            self.blocked_until = max(self.blocked_until, now.monotonic + seconds)
            self.generation += 1
            log.info(
                "the state file does not prove when Tedee was last called; waiting until any earlier call has ended",
                path=str(self.path),
                reason=reason,
                seconds=seconds,
            )
        # A later stamp of another boot is from a second machine that shares the file, which is not supported. It is not
        # replaced here, because the two machines would delay each other again and again.
        return is_invalid or is_first_check or stamp is None or stamp.at.boot == now.boot

    def _write_stamp(self, database: sqlite3.Connection, now: Instant) -> None:
        self._was_never_written = False
        self._stamp = Stamp(now, self._file_time(), self._shard, self.blocked_until)
        content = msgspec.json.encode(self._stamp)
        database.execute("UPDATE store SET stamp = ?, checksum = ?", (content, self._checksum(content)))

    def _read_state(self, database: sqlite3.Connection, key: str, now: Instant) -> RateLimitState | None:
        if key not in self._states:
            row_key = self._checksum(key)
            row = database.execute("SELECT state, checksum FROM states WHERE key = ?", (row_key,)).fetchone()
            if not row or not self._is_authentic(row[1], key, row[0]):
                return None
            stored = _decode(row[0], StoredState)
            if stored is None:
                return None
            self._states[key] = restore(stored, now)
            if stored.at.boot != now.boot and self._stamp and self._stamp.at.boot == now.boot:
                self._to_rewrite.add(key)
        return self._states[key].blocked(self.blocked_until)

    def _write_state(self, database: sqlite3.Connection, key: str, state: RateLimitState, now: Instant) -> None:
        content = msgspec.json.encode(StoredState(now, state))
        allowed = max((each.next_allowed_at for each in state.endpoints.values()), default=0.0)
        expires = max(now.monotonic + HOUR, allowed, state.blocked_until)
        values = (self._checksum(key), now.boot, expires, content, self._checksum(key, content))
        database.execute("REPLACE INTO states VALUES (?, ?, ?, ?, ?)", values)
        self._states[key] = state
        self._to_rewrite.discard(key)
        if now.monotonic >= self._purged_at + HOUR:
            # Delete states of replaced keys and removed accounts, so that they do not accumulate.
            self._purged_at = now.monotonic
            database.execute("DELETE FROM states WHERE boot != ? OR expires < ?", (now.boot, now.monotonic))

    def _checksum(self, *parts: str | bytes) -> bytes:
        """Return a digest of the parts, keyed with the secret of the file."""
        digest = hmac.new(self._secret, digestmod=hashlib.sha256)
        for part in parts:
            encoded = part.encode(errors="surrogateescape") if isinstance(part, str) else part
            digest.update(b"%d:%b" % (len(encoded), encoded))
        return digest.digest()

    def _is_authentic(self, checksum: object, *parts: object) -> bool:
        """Return True if the checksum of the parts is correct."""
        texts = [part for part in parts if isinstance(part, str | bytes)]
        if not isinstance(checksum, bytes) or len(texts) < len(parts):
            return False
        return hmac.compare_digest(checksum, self._checksum(*texts))

    # The file

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Run the context in an exclusive transaction.

        Raises:
            StoreBusy: Another process does not release the file.
            StoreUnavailable: The file cannot be used.
        """
        if self._clock.monotonic() < self._busy_until:
            raise StoreBusy(_BUSY)
        try:
            if self._database and self._file_identity != _file_identity(self.path):
                log.warning("the state file was replaced or removed", path=str(self.path))
                self.close()
            database = self._database or self._open()
            database.execute("BEGIN IMMEDIATE")
            self._read_store(database)
            yield database
            database.execute("COMMIT")
        except _ERRORS as error:
            if _primary_code(error) == sqlite3.SQLITE_BUSY:
                self._roll_back()
                # Only the first of many accounts waits for the time-out.
                self._busy_until = self._clock.monotonic() + BUSY_TIMEOUT
                raise StoreBusy(_BUSY) from error
            self.close()
            if isinstance(error, _Damaged | UnicodeDecodeError) or _primary_code(error) in _DAMAGE_CODES:
                self._set_aside()
            raise StoreUnavailable(getattr(error, "strerror", None) or str(error)) from error
        except BaseException:
            self._roll_back()
            raise

    def _read_store(self, database: sqlite3.Connection) -> None:
        row = database.execute("SELECT secret, stamp, checksum FROM store").fetchone()
        if row is None or not isinstance(row[0], bytes):
            raise _Damaged("the row of the store is missing")
        self._secret, *stamp = row
        self._written_stamp = stamp[0], stamp[1]

    def _roll_back(self) -> None:
        self._states.clear()
        if self._database and self._database.in_transaction:
            with suppress(sqlite3.Error):
                self._database.execute("ROLLBACK")

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileExistsError):
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        database = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
        try:
            self._check_or_create(database)
            # Freed space is overwritten with zeros. A damaged page number cannot restore an old state, and names of
            # removed locks do not remain in the file.
            database.execute("PRAGMA secure_delete = ON")
            database.execute("PRAGMA cell_size_check = ON")
        except BaseException:
            database.close()
            raise
        self._database = database
        self._file_identity = _file_identity(self.path)
        self.generation += 1
        return database

    def _check_or_create(self, database: sqlite3.Connection) -> None:
        """Check that the file is a state file of this version. Create missing tables, and replace older ones.

        Raises:
            StoreUnavailable: The file is a database of another program or of a newer version.
        """
        application, version, tables = _describe(database)
        if application == APPLICATION_ID and version == FORMAT_VERSION:
            if tables != _TABLES:
                raise _Damaged("tables are missing")
        elif application not in {APPLICATION_ID, 0} or (application == 0 and (version or tables)):
            self._is_foreign = True
            raise StoreUnavailable(f"it is the database of another program; {_REMEDY}")
        elif version > FORMAT_VERSION:
            raise StoreUnavailable(
                f"it has format {version}, newer than {FORMAT_VERSION}; {_REMEDY}, or remove this one"
            )
        # A write-ahead log is a second file with the last calls, which can be lost.
        if database.execute("PRAGMA journal_mode = DELETE").fetchone()[0] != "delete":
            raise StoreUnavailable(f"it cannot be written without a write-ahead log; {_REMEDY}")
        database.execute("PRAGMA synchronous = OFF")
        database.execute("BEGIN IMMEDIATE")
        application, version, tables = _describe(database)
        if version < FORMAT_VERSION:
            for table in tables:
                database.execute(f'DROP TABLE "{table}"')
            for statement in _SCHEMA:
                database.execute(statement)
        if database.execute("SELECT typeof(secret), length(secret) FROM store").fetchall() != [("blob", 32)]:
            database.execute("DELETE FROM store")
            database.execute("INSERT INTO store VALUES (?, NULL, NULL)", (secrets.token_bytes(32),))
        database.execute("COMMIT")

    def _set_aside(self) -> None:
        """Rename a damaged file, so that a new one can be created."""
        aside = self.path.with_name(f"{self.path.name}.broken")
        with suppress(OSError):
            for suffix in ("", "-journal"):
                old = self.path.with_name(self.path.name + suffix)
                if old.exists():
                    old.replace(aside.with_name(aside.name + suffix))
            log.warning("the state file is damaged and was set aside", path=str(self.path), set_aside_as=str(aside))


def _describe(database: sqlite3.Connection) -> tuple[int, int, set[str]]:
    """Return the application id, the version and the names of the tables."""
    application = database.execute("PRAGMA application_id").fetchone()[0]
    version = database.execute("PRAGMA user_version").fetchone()[0]
    tables = database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
    return application, version, {name for (name,) in tables}


def _decode(content: object, kind: type[T]) -> T | None:
    """Return the decoded content; None if another version of the program wrote it."""
    assert isinstance(content, bytes | str)  # noqa: S101  (its checksum is correct)
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.MsgspecError:
        return None


def _primary_code(error: Exception) -> int | None:
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _file_identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _file_times(path: Path) -> FileTimes:
    status = path.stat()
    return FileTimes(status.st_mtime, status.st_ctime)


def _pack(response: CachedResponse) -> bytes:
    """Compress a response: a line of JSON with all fields but the rows, and their number; then a line for each row."""
    rows = response.rows or ()
    fields = asdict(replace(response, rows=None)) | {"rows": None if response.rows is None else len(rows)}
    # Newlines in JSON are white space.
    lines = (row.replace(b"\n", b" ") if b"\n" in row else row for row in map(bytes, rows))
    return zlib.compress(b"\n".join([json.dumps(fields).encode(), *lines]), level=1)


def _unpack(packed: bytes) -> CachedResponse | None:
    first, *rows = zlib.decompress(packed).split(b"\n")
    fields = json.loads(first)
    number = fields.pop("rows")
    response = msgspec.convert(fields, CachedResponse, str_keys=True)
    return response if number is None else replace(response, rows=rows)
