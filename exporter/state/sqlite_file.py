"""An SQLite file that several processes share: it is opened, checked, locked and, if it is damaged, set aside."""

import hashlib
import hmac
import os
import secrets
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

import structlog

from exporter.secrets import read_regular_file

from .store import StoreBusy, StoreUnavailable

log = structlog.get_logger(__name__)

FORMAT_VERSION = 2
"""`user_version` of the file. A file of an older version is replaced, one of a newer version is not touched.

New fields with defaults need no new version: `StoredState` and `CachedResponse` are read without them. No release wrote
version 1; a version that one wrote needs a migration of its states, so that the hourly limit is still counted.
"""
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
    # The statements of this program cannot cause the following errors if the schema is the one above.
    sqlite3.SQLITE_ERROR,
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_MISMATCH,
}


FIRST_PAGE_BYTES = 512
"""The smallest page of SQLite. The first page of a database has NUL bytes."""


class Damaged(Exception):
    """The file has the right format, but not its tables or rows."""


_ERRORS = (sqlite3.Error, OSError, UnicodeDecodeError, Damaged)
"""Errors of the file. Python raises UnicodeDecodeError for a damaged text."""


class SQLiteFile:
    """A database in a file, which is opened, or created with its folder, in the first transaction.

    There is no write-ahead log, and writes are not synchronised to the disk. If the process is killed, nothing is lost.
    """

    def __init__(self, path: Path, monotonic: Callable[[], float]) -> None:
        """Create the object without opening the file.

        Args:
            path: Path of the file.
            monotonic: Returns the monotonic time in seconds.
        """
        self.path = path
        self.times_opened = 0
        self.is_foreign = False
        """True if the file belongs to another program or is a text."""
        self._monotonic = monotonic
        self._lock = threading.RLock()
        self._database: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._secret = b""
        self._busy_until = 0.0
        """Time in monotonic seconds until which the file is considered locked by another process."""

    def exists(self) -> bool:
        """Return True if there is a file, of any kind."""
        return _identity(self.path) is not None

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Run the context in an exclusive transaction.

        Raises:
            StoreBusy: Another process does not release the file.
            StoreUnavailable: The file cannot be used.
        """
        with self._lock:
            if self._monotonic() < self._busy_until:
                raise StoreBusy(_BUSY)
            try:
                if self._database and self._identity != _identity(self.path):
                    log.warning("the state file was replaced or removed", path=str(self.path))
                    self.close()
                database = self._database or self._open()
                database.execute("BEGIN IMMEDIATE")
                self._secret = _read_secret(database)
                yield database
                database.execute("COMMIT")
            except _ERRORS as error:
                if _primary_code(error) == sqlite3.SQLITE_BUSY:
                    self._roll_back()
                    # Only the first of many accounts waits for the time-out.
                    self._busy_until = self._monotonic() + BUSY_TIMEOUT
                    raise StoreBusy(_BUSY) from error
                self.close()
                if isinstance(error, Damaged | UnicodeDecodeError) or _primary_code(error) in _DAMAGE_CODES:
                    self._set_aside()
                raise StoreUnavailable(getattr(error, "strerror", None) or str(error)) from error
            except BaseException:
                self._roll_back()
                raise

    def checksum(self, *parts: str | bytes) -> bytes:
        """Return a digest of the parts, keyed with the secret of the file."""
        digest = hmac.new(self._secret, digestmod=hashlib.sha256)
        for part in parts:
            encoded = part.encode(errors="surrogateescape") if isinstance(part, str) else part
            digest.update(b"%d:%b" % (len(encoded), encoded))
        return digest.digest()

    def is_authentic(self, checksum: object, *parts: object) -> bool:
        """Return True if the checksum of the parts is correct."""
        texts = [part for part in parts if isinstance(part, str | bytes)]
        if not isinstance(checksum, bytes) or len(texts) < len(parts):
            return False
        return hmac.compare_digest(checksum, self.checksum(*texts))

    def close(self) -> None:
        """Close the file. A transaction in progress is completed before, unless it hangs: then the file stays open."""
        # Python crashes if a connection is closed while another thread uses it.
        if self._lock.acquire(timeout=2 * BUSY_TIMEOUT):
            try:
                if self._database:
                    with suppress(sqlite3.Error):
                        self._database.close()
                self._database = None
            finally:
                self._lock.release()

    def _roll_back(self) -> None:
        if self._database and self._database.in_transaction:
            with suppress(sqlite3.Error):
                self._database.execute("ROLLBACK")

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileExistsError):
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        if self._is_text():
            self.is_foreign = True
            raise StoreUnavailable(f"it is a text file; {_REMEDY}")
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
        self.is_foreign = False
        self._identity = _identity(self.path)
        self.times_opened += 1
        return database

    def _check_or_create(self, database: sqlite3.Connection) -> None:
        """Check that the file is a state file of this version. Create missing tables, and replace older ones.

        Raises:
            StoreUnavailable: The file is a database of another program or of a newer version.
        """
        application, version, tables = _describe(database)
        if application == APPLICATION_ID and version == FORMAT_VERSION:
            if tables != _TABLES:
                raise Damaged("tables are missing")
        elif application not in {APPLICATION_ID, 0} or (application == 0 and (version or tables)):
            self.is_foreign = True
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
            if version:
                log.info(
                    "the state file had an older format and was replaced; stored responses and requests are forgotten",
                    path=str(self.path),
                    old_format=version,
                    new_format=FORMAT_VERSION,
                )
        if database.execute("SELECT typeof(secret), length(secret) FROM store").fetchall() != [("blob", 32)]:
            database.execute("DELETE FROM store")
            database.execute("INSERT INTO store VALUES (?, NULL, NULL)", (secrets.token_bytes(32),))
        database.execute("COMMIT")

    def _is_text(self) -> bool:
        """Return True for a file without a NUL byte, such as a configuration. A database has them in its first page."""
        with suppress(OSError):
            start = read_regular_file(self.path, FIRST_PAGE_BYTES)
            return start is not None and start != b"" and b"\0" not in start
        return False

    def _set_aside(self) -> None:
        """Rename a damaged file, so that a new one can be created. An existing file is not overwritten."""
        with suppress(OSError):
            names = (f"{self.path.name}.broken{number or ''}" for number in count())
            aside = next(path for path in map(self.path.with_name, names) if not os.path.lexists(path))
            for suffix in ("", "-journal"):
                old = self.path.with_name(self.path.name + suffix)
                if old.exists():
                    old.replace(aside.with_name(aside.name + suffix))
            log.warning("the state file is damaged and was set aside", path=str(self.path), set_aside_as=str(aside))


def _read_secret(database: sqlite3.Connection) -> bytes:
    row = database.execute("SELECT secret FROM store").fetchone()
    if row is None or not isinstance(row[0], bytes):
        raise Damaged("the row of the store is missing")
    return row[0]


def _describe(database: sqlite3.Connection) -> tuple[int, int, set[str]]:
    """Return the application id, the version and the names of the tables."""
    application = database.execute("PRAGMA application_id").fetchone()[0]
    version = database.execute("PRAGMA user_version").fetchone()[0]
    tables = database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
    return application, version, {name for (name,) in tables}


def _primary_code(error: Exception) -> int | None:
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
