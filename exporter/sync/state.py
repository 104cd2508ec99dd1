"""The ledger in a file, so that the contract outlives a crash and holds for two processes at once.

SQLite does what would be hard to get right: it replaces a page atomically, for one process at a time, and what is
committed survives the death of the process. What it cannot do (a full disk, a file that is read-only or broken) is
told, and the process goes on by what it remembers itself.
"""

import json
import os
import sqlite3
import threading
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import structlog
from pydantic import TypeAdapter, ValidationError

from exporter.clock import Clock
from exporter.tedee.client import SYNC

from .budget import WINDOW, distrusted
from .ledger import CalledTooEarly, Change, Kept, Pace, Page, Stamp

log = structlog.get_logger(__name__)

FORMAT = 1
"""`user_version` of the file. A file of another version is not touched."""
APPLICATION = 0x7EDEE
"""`application_id` of the file. Another program's database is not touched either."""
PATIENCE = 2.0
"""Seconds to wait for another process, which holds the file for milliseconds, before it is taken to be stuck."""

_SCHEMA = (
    "CREATE TABLE page (account TEXT PRIMARY KEY, boot TEXT, monotonic REAL, wall REAL, page TEXT) WITHOUT ROWID",
    "CREATE TABLE kept (account TEXT, endpoint TEXT, kept BLOB, PRIMARY KEY (account, endpoint)) WITHOUT ROWID",
    "CREATE TABLE ended (well INTEGER NOT NULL)",
    "INSERT INTO ended VALUES (1)",
    f"PRAGMA application_id = {APPLICATION}",
    f"PRAGMA user_version = {FORMAT}",
)
_PAGE = TypeAdapter(Page)
_KEPT = TypeAdapter(Kept)


class Unusable(Exception):
    """The file is not one of ours. The text says what it is and what to do."""


FAULTS = (sqlite3.Error, OSError, Unusable, UnicodeDecodeError)
"""What can be the matter with the file. The last is Python's, of a broken schema that SQLite complains about."""


class StateFile:
    """A ledger in an SQLite file, shared with every process that has the same file."""

    def __init__(self, path: Path, clock: Clock) -> None:
        """Open the file, or make it; its folder, too. Whatever goes wrong is told, and not raised.

        Args:
            path: the file.
            clock: tells how much of what is written is still to come.
        """
        self.path = path
        self._clock = clock
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        """Which file it is: a path can come to mean another one."""
        self._pages: dict[str, Page] = {}
        self._unsaved: set[str] = set()
        self._doubted: set[str] = set()
        """Accounts of which another process may know more than this file, which is not the one it was."""
        self._problem: str | None = None
        self._ended_well = False
        self._is_first_start = _identity(path) is None
        """An account that was never called may be called at once; one that is only unknown may not."""
        with self._lock:
            try:
                self._open()
            except FAULTS as error:
                self._fail(error)
                # That there is no file says nothing where none can be.
                self._is_first_start = False

    def page(self, account: str) -> Page:
        """The account's page as this process last saw it; at first, as the file has it."""
        if account not in self._pages:
            self.record(account, lambda page: page)
        return self._pages[account]

    def reserve(self, account: str, change: Change) -> None:
        """Replace the page by `change` of the newest there is.

        Raises:
            CalledTooEarly: `change` said so, or another process does not let go of the file.
        """
        with self._lock:
            try:
                self._replace(account, change, {})
            except FAULTS as error:
                if _is_busy(error):
                    raise CalledTooEarly("another process does not let go of the state file") from error
                self._pages[account] = change(self._pages[account])

    def record(self, account: str, change: Change, kept: Mapping[str, Kept] | None = None) -> None:
        """Replace the page, and keep something by endpoint."""
        with self._lock:
            try:
                self._replace(account, change, kept or {})
            except FAULTS:
                self._pages[account] = change(self._pages[account])

    def kept(self, account: str, endpoint: str) -> Kept | None:
        """What was last kept of an endpoint's calls, by this process or by another."""
        query = "SELECT kept FROM kept WHERE account = ? AND endpoint = ?"
        with self._lock, suppress(*FAULTS), self._transaction() as database:
            row = database.execute(query, (account, endpoint)).fetchone()
            return _unpack(row[0]) if row else None
        return None

    def usable(self) -> bool:
        """Whether what is recorded outlives the process."""
        return self._problem is None

    def close(self) -> None:
        """Write down that nothing was called that is not written down."""
        with self._lock:
            if not self._unsaved:
                with suppress(*FAULTS), self._transaction() as database:
                    database.execute("UPDATE ended SET well = 1")
            self._let_go()

    # One account's page

    def _replace(self, account: str, change: Change, kept: Mapping[str, Kept]) -> None:
        """Replace the page in the file and in memory; where the file fails, memory still has the newest page known.

        Raises:
            FAULTS: the file cannot be used.
            Exception: what `change` raises.
        """
        try:
            with self._transaction() as database:
                # Kept even if the change is refused: it says until when.
                self._pages[account] = self._newest(database, account)
                page = change(self._pages[account])
                self._write(database, account, page)
                for endpoint, what in kept.items():
                    database.execute("REPLACE INTO kept VALUES (?, ?, ?)", (account, endpoint, _pack(what)))
        except FAULTS:
            self._pages.setdefault(account, self._unknown())
            self._unsaved.add(account)
            raise
        self._unsaved.discard(account)
        self._pages[account] = page

    def _newest(self, database: sqlite3.Connection, account: str) -> Page:
        query = "SELECT boot, monotonic, wall, page FROM page WHERE account = ?"
        row = database.execute(query, (account,)).fetchone()
        stored = self._page_of(row) if row else None
        remembered = self._pages.get(account)
        if remembered is None:
            if stored is None:
                return self._unknown()
            return stored if self._ended_well else self._after_a_crash(stored)
        newest = remembered if stored is None else stored.merged(remembered) if account in self._unsaved else stored
        if account in self._doubted:
            self._doubted.discard(account)
            return distrusted(newest, self._clock.monotonic())
        return newest

    def _unknown(self) -> Page:
        """The page of an account that neither this process nor the file knows."""
        return Page() if self._is_first_start else distrusted(Page(), self._clock.monotonic())

    def _page_of(self, row: tuple[str, float, float, str]) -> Page:
        """A stored page in this boot's time; where it cannot be read, one of an account that was called just now."""
        now = Stamp.now(self._clock)
        try:
            page = _PAGE.validate_json(row[3])
            written = Stamp(str(row[0]), float(row[1]), float(row[2]))
        except (ValidationError, ValueError, TypeError):
            return distrusted(Page(), now.monotonic)
        if written.same_boot(now) and written.monotonic <= now.monotonic:
            return page
        # Of another boot, or another machine, there is only wall time, which may have jumped either way since. One
        # spacing from now is never too early and never long.
        age = max(0.0, now.wall - written.wall)
        moved = page.moved(now.monotonic - written.monotonic - age)
        paces = {endpoint: Pace(0.0, pace.failures) for endpoint, pace in moved.paces.items()}
        sent = tuple((min(at, now.monotonic), endpoint) for at, endpoint in moved.sent)
        return distrusted(Page(page.user, paces, min(moved.closed_until, now.monotonic + WINDOW), sent), now.monotonic)

    def _after_a_crash(self, stored: Page) -> Page:
        """The page that a process left that was killed: it may have called since, if it could not write that down.

        It did not before the page allowed it; from then on nobody knows.
        """
        now = self._clock.monotonic()
        return stored if stored.pace(SYNC).opens_at > now else distrusted(stored, now)

    def _write(self, database: sqlite3.Connection, account: str, page: Page) -> None:
        now = Stamp.now(self._clock)
        values = (account, now.boot, now.monotonic, now.wall, _PAGE.dump_json(page).decode())
        database.execute("REPLACE INTO page VALUES (?, ?, ?, ?, ?)", values)

    # The file

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """The file, for this process alone, and all or nothing.

        Raises:
            FAULTS: it cannot be used, which is told.
        """
        try:
            if self._database and self._identity != _identity(self.path):
                log.warning("the state file was replaced or removed", path=str(self.path))
                self._let_go()
                # Its inode is free now: what comes in its place may be given the same.
                self._identity = None
            database = self._database or self._open()
            database.execute("BEGIN IMMEDIATE")
            yield database
            database.execute("COMMIT")
        except FAULTS as error:
            self._fail(error)
            raise
        except BaseException:
            if self._database:
                self._database.execute("ROLLBACK")
            raise
        if self._problem:
            log.info("the state file can be used again", path=str(self.path))
            self._problem = None

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileExistsError):
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        database = sqlite3.connect(self.path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
        try:
            database.execute("PRAGMA journal_mode = WAL")
            # What is committed survives the process, whatever kills it. That it survives a power cut as well would
            # cost a write to the disk each time and gain nothing: after a boot, a page is not believed anyway.
            database.execute("PRAGMA synchronous = NORMAL")
            database.execute("BEGIN IMMEDIATE")
            self._check_or_create(database)
            self._ended_well = database.execute("SELECT well FROM ended").fetchone()[0] == 1
            database.execute("UPDATE ended SET well = 0")
            database.execute("COMMIT")
        except BaseException:
            database.close()
            raise
        # What this process remembers may be newer than what it finds in a file that comes back.
        self._unsaved |= set(self._pages)
        self._database = database
        if self._identity != (identity := _identity(self.path)):
            self._doubted |= set(self._pages)
            self._identity = identity
        return database

    def _check_or_create(self, database: sqlite3.Connection) -> None:
        application = database.execute("PRAGMA application_id").fetchone()[0]
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if application == version == 0 and not database.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            for statement in _SCHEMA:
                database.execute(statement)
        elif application != APPLICATION:
            raise Unusable("it is another program's database; name another state_file")
        elif version != FORMAT:
            raise Unusable(f"it has format {version}, not {FORMAT}; name another state_file, or remove this one")

    def _fail(self, error: Exception) -> None:
        """Say once what is wrong with the file, and let go of it, so that the next use tries anew."""
        problem = getattr(error, "strerror", None) or str(error)
        if self._problem != problem:
            self._problem = problem
            log.warning(
                "the state file cannot be used; Tedee's limits are kept as long as this process lives",
                path=str(self.path),
                error=problem,
            )
        self._let_go()
        broken = getattr(error, "sqlite_errorcode", None) in {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT}
        if broken or isinstance(error, UnicodeDecodeError):
            self._set_aside()

    def _set_aside(self) -> None:
        """Keep a broken file under another name, so that a new one can take its place."""
        aside = self.path.with_name(f"{self.path.name}.broken")
        with suppress(OSError):
            for part in ("", "-wal", "-shm"):
                old = self.path.with_name(self.path.name + part)
                if old.exists():
                    old.replace(aside.with_name(aside.name + part))
            log.warning("the broken state file was set aside", path=str(self.path), kept_as=str(aside))

    def _let_go(self) -> None:
        if self._database:
            with suppress(sqlite3.Error):
                self._database.close()
        self._database = None


def _is_busy(error: Exception) -> bool:
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _pack(kept: Kept) -> bytes:
    """A line of JSON with all but the rows, and how many they are; then each row in a line. Compressed."""
    rows = kept.rows or ()
    first = _KEPT.dump_python(replace(kept, rows=None)) | {"rows": None if kept.rows is None else len(rows)}
    # In JSON a newline is nothing but space.
    lines = (row.replace(b"\n", b" ") if b"\n" in row else row for row in map(bytes, rows))
    return zlib.compress(b"\n".join([json.dumps(first).encode(), *lines]), level=1)


def _unpack(packed: bytes) -> Kept | None:
    try:
        first, *rows = zlib.decompress(packed).split(b"\n")
        facts = json.loads(first)
        number = facts.pop("rows")
        kept = _KEPT.validate_python(facts)
    except (AttributeError, KeyError, ValueError, TypeError, RecursionError, zlib.error):
        return None
    if number is None:
        return kept
    # What an earlier version has kept had other rows, and no number.
    return replace(kept, rows=rows) if number == len(rows) else None
