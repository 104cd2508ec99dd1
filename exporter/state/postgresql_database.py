"""A PostgreSQL database that several processes share: it is connected to, checked, and given its tables."""

import random
import socket
import threading
import time
import traceback
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
BUSY_LIMIT = 10.0
"""Seconds without a successful transaction, because of locks, after which the database counts as unusable."""
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
    trusted_from double precision NOT NULL DEFAULT 0,
    longest_call double precision NOT NULL DEFAULT 0
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
TABLES = 3
DAMAGED = "the schema tedee_exporter is damaged; drop it, and the exporter creates it again"
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
_COUNT_TABLES = """
SELECT count(*) FROM pg_tables
WHERE schemaname = 'tedee_exporter' AND tablename IN ('store', 'states', 'responses')
"""
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
        self.problem: str | None = "it was not used yet"
        """Why the last transaction failed; None if it succeeded."""
        self._url = url
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._retry_at = 0.0
        self._busy_since = inf
        """Monotonic time of the first transaction since the last success that found a lock of another process."""
        self._is_reported = False

    @contextmanager
    def transaction(self) -> Iterator[Cursor]:
        """Run a transaction at the isolation level READ COMMITTED. An exception rolls it back.

        Raises:
            StoreBusy: Another process has locked a row.
            StoreUnavailable: The database cannot be used. It is tried again a second later.
        """
        with self._lock:
            if self._monotonic() < self._retry_at:
                raise StoreUnavailable(f"the state database cannot be used: {self.problem}")
            is_new = self._connection is None
            try:
                self._connection = self._connection or Connection(self._url())
                with self._connection.transaction() as cursor:
                    yield cursor
                self._succeeded()
            except _BUSY as error:
                reason = f"another process has locked its tables: {_first_line(error)}"
                self._busy_since = min(self._busy_since, self._monotonic())
                if self._monotonic() - self._busy_since >= BUSY_LIMIT:
                    self._failed(reason, report=True)
                raise StoreBusy(f"the state database is busy; {reason}") from error
            except (psycopg.Error, OSError, StoreUnavailable) as error:
                self.close()
                # The server closes a connection now and then. The next one is tried before that is reported.
                self._failed(explain(error), report=is_new)
                self._retry_at = self._monotonic() + RETRY_DELAY * random.uniform(1, 2)  # noqa: S311
                raise StoreUnavailable(f"the state database cannot be used: {self.problem}") from error

    def close(self) -> None:
        """Close the connection."""
        if self._connection:
            self._connection.close()
            self._connection = None

    def _succeeded(self) -> None:
        self.problem, self._busy_since = None, inf
        if self._is_reported:
            log.info("the state database can be used again", database=self.name)
            self._is_reported = False

    def _failed(self, problem: str, *, report: bool) -> None:
        self.problem = problem
        if report and not self._is_reported:
            log.warning(
                "the state database cannot be used; nothing is requested until it can",
                database=self.name,
                error=problem,
            )
            self._is_reported = True


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
        self._is_late = False
        """True if the deadline of a transaction has passed."""
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
            StoreUnavailable: It took too long.
        """
        self._deadline = time.monotonic() + RESPONSE_TIMEOUT
        try:
            # The transactions of psycopg would need a round trip more.
            self.connection.execute(_BEGIN)
            yield self.connection.cursor()
            self.connection.commit()
        except BaseException as error:
            with suppress(psycopg.Error):
                self.connection.rollback()
            if self._is_late:
                raise StoreUnavailable(f"no response within {RESPONSE_TIMEOUT:g} s") from error
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
                self._is_late = True
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
    try:
        # PgBouncer in transaction mode does not support prepared statements.
        return psycopg.Connection.connect(**parameters, autocommit=True, prepare_threshold=None)
    except psycopg.Error as error:
        # psycopg's frame and the error refer to each other, and would keep the socket until a garbage collection.
        traceback.clear_frames(error.__traceback__)
        raise


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
    # Functions such as to_regclass may use a cache that lacks what another process has just created.
    ((tables,),) = cursor.execute(_COUNT_TABLES).fetchall()
    if tables == 0:
        return 0
    row = cursor.execute("SELECT version FROM tedee_exporter.store").fetchone() if tables == TABLES else None
    if row is None:
        raise StoreUnavailable(DAMAGED)
    version: int = row[0]
    check_version(version)
    return version


def check_version(version: int) -> None:
    """Check the version of the tables.

    Raises:
        StoreUnavailable: It is newer than that of this program.
    """
    if version > len(_MIGRATIONS):
        raise StoreUnavailable(
            f"the tables of the state database are of version {version}, and this exporter needs {len(_MIGRATIONS)}; "
            "update all exporters that use it"
        )


def describe(url: str) -> str:
    """Return the hosts and the name of a database, without user and password, for log lines."""
    given = conninfo_to_dict(url)
    hosts = str(given.get("host") or given.get("hostaddr") or given.get("service") or "default host").split(",")
    ports = str(given.get("port") or "").split(",")
    ports = ports * len(hosts) if len(ports) == 1 else ports
    places = [f"{host}:{port}" if port else host for host, port in zip(hosts, ports, strict=False)]
    return f"{','.join(places)}/{given.get('dbname') or 'default database'}"


def explain(error: Exception) -> str:
    """Return what happened, and what to do if that is known."""
    remedy = next((text for kind, text in _REMEDIES.items() if isinstance(error, kind)), "")
    return f"{_first_line(error)}{'; ' if remedy else ''}{remedy}"


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0]
