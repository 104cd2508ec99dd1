"""A PostgreSQL database that several processes share: it is connected to, checked, and given its tables."""

import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from math import inf
from os import dup
from typing import Any

import psycopg
import structlog
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict

from exporter import background

from .store import StoreBusy, StoreUnavailable

log = structlog.get_logger(__name__)

CONNECT_TIMEOUT = 5
"""Seconds for a connection to one of the servers."""
RESPONSE_TIMEOUT = 5.0
"""Seconds for a transaction. A server that hangs does not respond at all."""
LOCK_TIMEOUT = "1s"
"""Time to wait for a row that another process has locked. A transaction takes milliseconds."""
DEADLINE_INTERVAL = 1.0
"""Seconds between two checks whether a transaction takes longer than RESPONSE_TIMEOUT."""
IDLE_TIMEOUT = "5s"
"""Time after which the server ends a transaction of a process that was stopped, so that others get its rows."""
RETRY_DELAY = 1.0
"""Minimum seconds between two attempts to connect. Up to as many are added: processes should not connect at once."""
CREATION_LOCK = 0x7EDEE
"""Key of the advisory lock that is held while tables are created."""

Cursor = psycopg.Cursor[Any]

_MIGRATIONS = (
    """
CREATE SCHEMA IF NOT EXISTS tedee_exporter;
CREATE TABLE tedee_exporter.store (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    version integer NOT NULL,
    incarnation text NOT NULL DEFAULT '',
    clock_changes integer NOT NULL DEFAULT 0,
    trusted_from double precision NOT NULL DEFAULT 0
);
CREATE TABLE tedee_exporter.states (key text PRIMARY KEY, state text, expires double precision) WITH (fillfactor = 50);
CREATE TABLE tedee_exporter.responses (
    account text,
    endpoint text,
    fingerprint text NOT NULL,
    received_at double precision,
    stored_at double precision NOT NULL,
    response bytea NOT NULL,
    PRIMARY KEY (account, endpoint)
) WITH (fillfactor = 50);
INSERT INTO tedee_exporter.store (version) VALUES (0);
""",
)
"""The statements that change the tables from one version to the next. The first create them."""
EMPTY = (
    "the table tedee_exporter.store has no row; drop the schema tedee_exporter, which the exporter then creates again"
)
_BEGIN = f"""
BEGIN ISOLATION LEVEL READ COMMITTED;
SELECT set_config('lock_timeout', '{LOCK_TIMEOUT}', true),
       set_config('idle_in_transaction_session_timeout', '{IDLE_TIMEOUT}', true),
       set_config('statement_timeout', '{RESPONSE_TIMEOUT:g}s', true),
       set_config('synchronous_commit', CASE current_setting('synchronous_commit') WHEN 'off' THEN 'local'
                                        ELSE current_setting('synchronous_commit') END, true)
"""
"""The time-outs are those of the transaction. Options of the connection would not pass PgBouncer. If a process of the
server crashes, the server loses the commits that were not synchronous, and has the same start time as before."""
_FIND_TABLES = "SELECT FROM pg_tables WHERE schemaname = 'tedee_exporter' AND tablename = 'store'"
_MAY_CREATE = """
SELECT CASE WHEN to_regnamespace('tedee_exporter') IS NULL THEN has_database_privilege(current_database(), 'CREATE')
            ELSE has_schema_privilege('tedee_exporter', 'CREATE') END
"""
_IS_OWNER = "SELECT pg_has_role(tableowner, 'USAGE') FROM pg_tables WHERE schemaname = 'tedee_exporter' LIMIT 1"
_MISSING_PRIVILEGES = """
SELECT privilege || ' on ' || name
FROM (VALUES ('tedee_exporter.store'), ('tedee_exporter.states'), ('tedee_exporter.responses')) AS tables (name),
     (VALUES ('SELECT'), ('INSERT'), ('UPDATE'), ('DELETE')) AS privileges (privilege)
WHERE NOT has_table_privilege(name, privilege)
"""
_BUSY = (errors.LockNotAvailable, errors.QueryCanceled, errors.DeadlockDetected, errors.SerializationFailure)
_REMEDIES: dict[type[psycopg.Error], str] = {
    errors.InsufficientPrivilege: (
        "the user needs CREATE on the database for the first start, then USAGE on the schema tedee_exporter, and "
        "SELECT, INSERT, UPDATE and DELETE on its tables"
    ),
    errors.ReadOnlySqlTransaction: "add target_session_attrs=read-write to state_url, and the hosts of all servers",
}
"""What to do, where the message of the server does not imply it."""


class Database:
    """A database. The connection is opened in the first transaction, and again after an error. Thread-safe."""

    def __init__(self, url: Callable[[], str], monotonic: Callable[[], float]) -> None:
        """Create a database without connecting to it.

        Args:
            url: Returns the connection string or URI of libpq. It may change: a password is replaced now and then.
            monotonic: Returns monotonic seconds.
        """
        self.name = describe(url())
        self._url = url
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._retry_at = 0.0
        self.is_usable = False
        """True if the last transaction succeeded."""
        self._problem = ""

    @contextmanager
    def transaction(self) -> Iterator[Cursor]:
        """Run a transaction at the isolation level READ COMMITTED. An exception rolls it back.

        Raises:
            StoreBusy: Another process has locked a row.
            StoreUnavailable: The database cannot be used. It is tried again a second later.
        """
        with self._lock:
            if self._monotonic() < self._retry_at:
                raise StoreUnavailable(self._problem)
            try:
                self._connection = self._connection or Connection(self._url())
                with self._connection.transaction() as cursor:
                    yield cursor
                self.is_usable = True
            except _BUSY as error:
                raise StoreBusy(f"another process has locked the state database: {_first_line(error)}") from error
            except (psycopg.Error, OSError, StoreUnavailable) as error:
                self.close()
                self.is_usable = False
                self._problem = explain(error)
                self._retry_at = self._monotonic() + RETRY_DELAY * random.uniform(1, 2)  # noqa: S311
                raise StoreUnavailable(self._problem) from error

    def close(self) -> None:
        """Close the connection."""
        if self._connection:
            self._connection.close()
            self._connection = None


class Connection:
    """A connection to a database that has the tables. Its transactions end in any case."""

    def __init__(self, url: str, *, prepare: bool = True) -> None:
        """Connect, and create or change the tables.

        Args:
            url: Connection string or URI of libpq.
            prepare: Whether to create or change the tables.

        Raises:
            psycopg.Error: The database cannot be used.
            StoreUnavailable: Its tables are of a newer version, or damaged.
        """
        self.connection = _connect(url)
        self._deadline = inf
        self._closed = threading.Event()
        self._socket = socket.socket(fileno=dup(self.connection.fileno()))
        # libpq would wait for ever for a server that hangs.
        background.start(self._enforce_deadline, name="database deadline")
        if not prepare:
            return
        try:
            with self.transaction() as cursor:
                prepare_schema(cursor)
        except BaseException:
            self.close()
            raise

    @contextmanager
    def transaction(self) -> Iterator[Cursor]:
        """Run a transaction. The connection is closed if it takes longer than RESPONSE_TIMEOUT and a second.

        Raises:
            psycopg.Error: The transaction failed.
        """
        self._deadline = time.monotonic() + RESPONSE_TIMEOUT
        try:
            # The transactions of psycopg would need a round trip more.
            self.connection.execute(_BEGIN)
            yield self.connection.cursor()
            self.connection.commit()
        except BaseException:
            with suppress(psycopg.Error):
                self.connection.rollback()
            raise
        finally:
            self._deadline = inf

    def close(self) -> None:
        """Close the connection."""
        self._closed.set()
        with suppress(psycopg.Error, OSError):
            self.connection.close()
        self._socket.close()

    def _enforce_deadline(self) -> None:
        while not self._closed.wait(DEADLINE_INTERVAL):
            if time.monotonic() > self._deadline:
                with suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)


def find_problem(url: str) -> str | None:
    """Return why a database cannot be used, and what to do; None if it can. Nothing is created."""
    try:
        with closing(Connection(url, prepare=False)) as connection, connection.transaction() as cursor:
            return _find_problem(cursor)
    except (psycopg.Error, OSError, StoreUnavailable) as error:
        return explain(error)


def _find_problem(cursor: Cursor) -> str | None:
    ((is_read_only,),) = cursor.execute("SHOW transaction_read_only").fetchall()
    if is_read_only == "on":
        return f"it is read-only; {_REMEDIES[errors.ReadOnlySqlTransaction]}"
    version = _read_version(cursor)
    if version == 0:
        ((may_create,),) = cursor.execute(_MAY_CREATE).fetchall()
        return None if may_create else f"it has no tables; {_REMEDIES[errors.InsufficientPrivilege]}"
    if missing := [name for (name,) in cursor.execute(_MISSING_PRIVILEGES).fetchall()]:
        return f"the user lacks {', '.join(missing)}; {_REMEDIES[errors.InsufficientPrivilege]}"
    ((is_owner,),) = cursor.execute(_IS_OWNER).fetchall()
    if version < len(_MIGRATIONS) and not is_owner:
        return "its tables are of an older version; start one exporter once as the user who owns them"
    return None


def _connect(url: str) -> psycopg.Connection[Any]:
    parameters: dict[str, Any] = {"application_name": "tedee-exporter", "connect_timeout": CONNECT_TIMEOUT}
    parameters |= {key: value for key, value in conninfo_to_dict(url).items() if value is not None}
    # PgBouncer in transaction mode does not support prepared statements.
    return psycopg.Connection.connect(**parameters, autocommit=True, prepare_threshold=None)


def prepare_schema(cursor: Cursor) -> None:
    """Create the tables, or change those of an older version.

    Raises:
        psycopg.Error: That is not permitted.
        StoreUnavailable: The tables are of a newer version, or damaged.
    """
    if _read_version(cursor) == len(_MIGRATIONS):
        return
    cursor.execute("SELECT pg_advisory_xact_lock(%s)", (CREATION_LOCK,))
    # Another process may have done it meanwhile.
    version = _read_version(cursor)
    for number, statements in enumerate(_MIGRATIONS[version:], version + 1):
        cursor.execute(statements)
        cursor.execute("UPDATE tedee_exporter.store SET version = %s", (number,))
        log.info("changed the tables of the state database", schema="tedee_exporter", version=number)


def _read_version(cursor: Cursor) -> int:
    """Return the version of the tables, 0 if there are none.

    Raises:
        StoreUnavailable: They are of a newer version, or damaged.
    """
    if not _has_tables(cursor):
        return 0
    row = cursor.execute("SELECT version FROM tedee_exporter.store").fetchone()
    if row is None:
        raise StoreUnavailable(EMPTY)
    version: int = row[0]
    if version > len(_MIGRATIONS):
        raise StoreUnavailable(
            f"the tables of the state database are of version {version}, and this exporter needs {len(_MIGRATIONS)}; "
            "update all exporters that use it"
        )
    return version


def _has_tables(cursor: Cursor) -> bool:
    # Functions such as to_regclass may use a cache that lacks what another process has just created.
    return bool(cursor.execute(_FIND_TABLES).fetchall())


def describe(url: str) -> str:
    """Return the hosts and the name of a database, without user and password, for log lines."""
    given = conninfo_to_dict(url)
    host = given.get("host") or given.get("hostaddr") or given.get("service") or "default host"
    return f"{host}/{given.get('dbname') or 'default database'}"


def explain(error: Exception) -> str:
    """Return what happened, and what to do if that is known."""
    remedy = next((text for kind, text in _REMEDIES.items() if isinstance(error, kind)), "")
    return f"{_first_line(error)}{'; ' if remedy else ''}{remedy}"


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0]
