"""A state store in PostgreSQL, which exporters on any machines share. It also stores cached responses.

A state is read and replaced while its row is locked. All times in the database are seconds of its own clock
(`clock_timestamp()`), so that the clocks of the machines do not matter.
"""

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from hashlib import blake2b
from math import inf
from typing import NamedTuple

import msgspec
import psycopg
import structlog

from exporter import background
from exporter.clock import Clock, Instant
from exporter.tedee.endpoint import SYNC_SPACING

from .postgresql_database import DAMAGED, RETRY_DELAY, Connection, Cursor, Database, check_version, explain
from .rate_limits import HOUR, RateLimitState
from .recovery import StoredState, restore
from .responses import CachedResponse, pack, unpack
from .store import StoreBusy, StoreUnavailable, Transaction

log = structlog.get_logger(__name__)

LISTEN = "LISTEN tedee_exporter"
POLL_INTERVAL = 1.0
"""Seconds between two checks for new responses, if no notification arrives. PgBouncer passes none."""
UNWATCHED_POLL_INTERVAL = 10.0
"""Seconds between two checks of an account for new responses, while `subscribe` cannot report them."""
NEWS_DELAY = 0.1
"""Seconds after a check until the next one, if there are notifications all the time."""
WATCH_FAILURES = 3
"""Number of failed connections in succession after which a warning is logged. A restart of the database takes one."""
NEWS_WINDOW = 10.0
"""Seconds for which a check looks back: transactions become visible later than the time in them."""
CLOCK_CHANGED = "its clock has changed"
CLOCK_TOLERANCE = 2.0
"""Seconds by which the database's clock may differ from its earlier course, before it counts as changed."""
DAY = 86400.0
SPREAD = 10.0
"""Seconds over which calls are spread after the database may have lacked some."""

_SERVER = """
SELECT extract(epoch FROM clock_timestamp())::float8,
       concat(extract(epoch FROM pg_postmaster_start_time()), '/', pg_relation_filenode('tedee_exporter.states')),
       incarnation, clock_changes, trusted_from, longest_call, version
FROM tedee_exporter.store
"""
"""The present time; which run of which server has which tables; and what the processes have recorded about it."""
_INSERT_STATES = "INSERT INTO tedee_exporter.states (key) SELECT unnest(%s::text[]) ON CONFLICT DO NOTHING"
_LOCK_STATES = "SELECT key, state FROM tedee_exporter.states WHERE key = ANY(%s) ORDER BY key FOR UPDATE"
_UPDATE_STATES = """
UPDATE tedee_exporter.states AS old SET state = new.state, expires = new.expires
FROM unnest(%s::text[], %s::text[], %s::float8[]) AS new (key, state, expires) WHERE old.key = new.key
"""
_DISTRUST = "UPDATE tedee_exporter.store SET incarnation = %s, clock_changes = %s, trusted_from = %s"
_SET_LONGEST_CALL = "UPDATE tedee_exporter.store SET longest_call = greatest(longest_call, %s)"
_STORE_RESPONSE = """
INSERT INTO tedee_exporter.responses AS known (account, endpoint, fingerprint, received_at, stored_at, response)
VALUES (%s, %s, %s, %s, extract(epoch FROM clock_timestamp()), %s)
ON CONFLICT (account, endpoint) DO UPDATE
SET fingerprint = excluded.fingerprint, received_at = excluded.received_at, stored_at = excluded.stored_at,
    response = excluded.response
WHERE known.fingerprint <> excluded.fingerprint
   OR coalesce(known.received_at, 0) <= coalesce(excluded.received_at, 0)
RETURNING stored_at, pg_notify('tedee_exporter', '')
"""
"""A process that was stopped for a while does not replace a newer response."""
_READ_RESPONSE = """
SELECT stored_at, received_at, CASE WHEN stored_at = %s THEN NULL ELSE response END
FROM tedee_exporter.responses WHERE account = %s AND endpoint = %s AND fingerprint = %s
"""
_READ_NEWS = """
SELECT account, endpoint, stored_at FROM tedee_exporter.responses
WHERE stored_at > extract(epoch FROM clock_timestamp()) - %s
"""
_PURGE = (
    "DELETE FROM tedee_exporter.states WHERE expires < %s",
    "DELETE FROM tedee_exporter.responses WHERE stored_at < %s",
)


class Server(NamedTuple):
    """What a transaction knows about the database."""

    now: float
    """Present time of its clock, in Unix seconds."""
    offset: float
    """Seconds to add for the monotonic time of this process, at most."""
    least_offset: float
    """The same, at least: the response took the difference of the two."""
    incarnation: str
    """Which run of which server has which tables."""
    clock_changes: int
    """Number of recorded changes of its clock."""
    trusted_from: float
    """Time until which the states may lack calls."""
    longest_call: float
    """Maximum duration in seconds of a call by any process that has used the database."""

    @property
    def epoch(self) -> str:
        """The period in which its times can be compared."""
        return f"{self.incarnation} {self.clock_changes}"


class StoredResponse(NamedTuple):
    """A response that this process wrote or read."""

    stored_at: float
    fingerprint: str
    response: CachedResponse


class PostgreSQLStore:
    """Rate-limit states and cached responses in a database.

    A state is written before the request and after the response. The database can lose the last writes: it fails over
    to a standby, or is restored from a backup. Then another server runs, or the server was started, or the tables were
    created since; or the clock changed. After each of these no call is made for the maximum duration of a call plus the
    spacing.
    """

    is_required = True
    is_new = False

    def __init__(self, url: Callable[[], str], clock: Clock, *, longest_call: float) -> None:
        """Create a store without connecting to the database.

        Args:
            url: Returns the connection string or URI of libpq.
            clock: Clock of this process.
            longest_call: Maximum duration in seconds of a call by another process.
        """
        self.longest_call = longest_call
        self._database = Database(url, clock.monotonic)
        self.name = self._database.name
        self.poll_interval = UNWATCHED_POLL_INTERVAL
        self._url = url
        self._clock = clock
        self._known: Server | None = None
        """As in the last transaction."""
        self._generation = 0
        self._responses: dict[tuple[str, str], StoredResponse] = {}
        self._newest: Mapping[tuple[str, str], float] = {}
        """When each response was stored, by account and endpoint; empty while `subscribe` cannot report them."""
        self._purged_at = clock.monotonic()
        self._closed = threading.Event()

    @contextmanager
    def transaction(self, keys: Sequence[str]) -> Iterator[Transaction]:
        """Replace the states of some keys, as `StateStore.transaction` does."""
        rows = sorted({_digest(key) for key in keys})
        with self._transaction() as cursor:
            stored = dict(cursor.execute(_LOCK_STATES, (rows,)).fetchall())
            if len(stored) < len(rows):
                cursor.execute(_INSERT_STATES, (rows,))
                stored = dict(cursor.execute(_LOCK_STATES, (rows,)).fetchall())
            server = self._server(cursor)
            before = tuple(self._decode(key, stored[_digest(key)], server) for key in keys)
            now, blocked_until = server.now + server.offset, server.trusted_from + server.offset
            transaction = Transaction(now, before, blocked_until, self._generation)
            yield transaction
            at = Instant(server.epoch, server.now, server.now)
            changed = {}
            for key, old, new in zip(keys, before, transaction.states, strict=True):
                if new and new != old:
                    moved = new.moved(-server.offset)
                    changed[_digest(key)] = (_encode(StoredState(at, moved)), _expiry(moved, server))
            if changed:
                cursor.execute(_UPDATE_STATES, (list(changed), *map(list, zip(*changed.values(), strict=True))))
            self._purge(cursor, server)

    def problem(self) -> str | None:
        """Return why the last transaction failed, also one of a response; None if it succeeded."""
        return self._database.problem

    def mark_incomplete(self) -> bool:
        """Do nothing: without the database no call begins, and the reservation of one in progress is in it."""
        return True

    def close(self) -> None:
        """Close the connections."""
        self._closed.set()
        self._database.close()

    # Cached responses. If the database cannot be used, the next transaction of a state reports it.

    def store_response(self, account: str, endpoint: str, fingerprint: str, response: CachedResponse) -> None:
        """Store a response, as `ResponseStore.store_response` does."""
        with suppress(StoreBusy, StoreUnavailable), self._transaction() as cursor:
            server = self._server(cursor)
            received_at = None if response.at is None else response.at.monotonic - server.offset
            failure = response.failure and replace(response.failure, at=response.failure.at - self._wall_offset(server))
            packed = pack(replace(response, at=None, failure=failure))
            row = (account, endpoint, _digest(fingerprint), received_at, packed)
            if written := cursor.execute(_STORE_RESPONSE, row).fetchone():
                self._responses[account, endpoint] = StoredResponse(written[0], fingerprint, response)

    def cached_response(self, account: str, endpoint: str, fingerprint: str) -> CachedResponse | None:
        """Return a stored response, as `ResponseStore.cached_response` does."""
        known = self._responses.get((account, endpoint))
        if known and known.fingerprint != fingerprint:
            known = None
        if known and self._newest.get((account, endpoint)) == known.stored_at:
            return known.response
        with suppress(StoreBusy, StoreUnavailable), self._transaction() as cursor:
            query = (known.stored_at if known else None, account, endpoint, _digest(fingerprint))
            row = cursor.execute(_READ_RESPONSE, query).fetchone()
            if row is None:
                return None
            stored_at, received_at, packed = row
            if packed is None and known:
                return known.response
            unpacked = unpack(packed)
            if unpacked is None:
                return None
            response = self._restored(unpacked, received_at, self._server(cursor))
            self._responses[account, endpoint] = StoredResponse(stored_at, fingerprint, response)
            return response
        return None

    def delete_other_accounts(self, accounts: Collection[str]) -> None:
        """Do nothing: other processes may have other accounts. A response that is not replaced for a day is deleted."""

    def subscribe(self, listener: Callable[[str], None]) -> None:
        """Call the listener with the account of each response that another process stores, on a thread of its own."""
        background.start(lambda: self._watch(listener), name="state database")

    def _watch(self, listener: Callable[[str], None]) -> None:
        known: dict[tuple[str, str], float] = {}
        failures = 0
        while not self._closed.is_set():
            try:
                with closing(Connection(self._url())) as connection:
                    failures = 0
                    self._report_news(connection, known, listener)
            except (psycopg.Error, OSError, StoreUnavailable) as error:
                self.poll_interval, self._newest = UNWATCHED_POLL_INTERVAL, {}
                self._check_server()
                failures += 1
                # If the database cannot be used at all, that is reported already.
                is_news = failures == WATCH_FAILURES and self.problem() is None
                (log.warning if is_news else log.debug)(
                    "a second connection to the state database fails; responses of other processes are found later",
                    database=self.name,
                    error=explain(error),
                )
                self._closed.wait(RETRY_DELAY)

    def _report_news(
        self, connection: Connection, known: dict[tuple[str, str], float], listener: Callable[[str], None]
    ) -> None:
        """Call the listener for new responses, until the store is closed or the connection ends."""
        connection.connection.execute(LISTEN)
        window, is_new = DAY, True
        while not self._closed.is_set():
            with connection.transaction() as cursor:
                rows = {row[:2]: row[2] for row in cursor.execute(_READ_NEWS, (window,)).fetchall()}
            # A copy, because other threads add responses.
            own = {key: stored.stored_at for key, stored in self._responses.copy().items()}
            news = [key for key, stored_at in rows.items() if stored_at not in (known.get(key), own.get(key))]
            known |= rows
            self._newest, self.poll_interval = known, inf
            window = NEWS_WINDOW
            for account in dict.fromkeys(account for account, _ in news):
                listener(account)
            if is_new or self.problem():
                self._check_server()
            is_new = False
            for _ in connection.connection.notifies(timeout=POLL_INTERVAL, stop_after=1):
                pass
            self._closed.wait(NEWS_DELAY)

    def _check_server(self) -> None:
        """Notice another server, and that the database can be used again, before a call is due."""
        with suppress(StoreBusy, StoreUnavailable), self._transaction() as cursor:
            self._server(cursor)

    def _restored(self, response: CachedResponse, received_at: float | None, server: Server) -> CachedResponse:
        """Return a response with the times of this process."""
        failure = response.failure and replace(response.failure, at=response.failure.at + self._wall_offset(server))
        at = None
        if received_at is not None:
            # The offset may be too large by the time that the response took.
            monotonic = min(received_at + server.offset, self._clock.monotonic())
            wall = self._clock.wall() - (self._clock.monotonic() - monotonic)
            at = Instant(self._clock.boot(), monotonic, wall)
        return replace(response, at=at, failure=failure)

    def _wall_offset(self, server: Server) -> float:
        """Return the seconds to add to a time of the database for the Unix time of this process."""
        return self._clock.wall() - (self._clock.monotonic() - server.offset)

    # The database itself

    @contextmanager
    def _transaction(self) -> Iterator[Cursor]:
        entered = False
        known: Server | None = None
        try:
            with self._database.transaction() as cursor:
                entered, known = True, self._known
                yield cursor
        except BaseException:
            if entered:
                # A change of the server that was not recorded must be noticed again.
                self._known = known
            raise

    def _server(self, cursor: Cursor) -> Server:
        """Return what is known about the database, and record a change that makes its states incomplete.

        Called after the rows are locked: the time is that of the transaction.
        """
        server, stored = self._read_server(cursor)
        if self._change_of(server, stored):
            # Locked, so that only one process records the change.
            cursor.execute("SELECT 1 FROM tedee_exporter.store FOR UPDATE")
            server, stored = self._read_server(cursor)
            if change := self._change_of(server, stored):
                seconds = server.longest_call + SYNC_SPACING
                server = server._replace(
                    trusted_from=server.now + seconds, clock_changes=server.clock_changes + (change == CLOCK_CHANGED)
                )
                cursor.execute(_DISTRUST, (server.incarnation, server.clock_changes, server.trusted_from))
                log.info(
                    "the state database may lack calls; accounts wait until any earlier call ended",
                    database=self.name,
                    reason=change,
                    seconds=seconds,
                )
        if self._known is None or self._known.epoch != server.epoch:
            self._generation += 1
        self._known = server
        return server

    def _change_of(self, server: Server, stored: str) -> str | None:
        """Return why the states may be incomplete; None if they are not."""
        known = self._known
        if stored != server.incarnation:
            return "another server runs, it was started, or its tables were created"
        if known is None or known.epoch != server.epoch:
            # The first transaction, or another process recorded a change.
            return None
        is_later = server.least_offset > known.offset + CLOCK_TOLERANCE
        is_earlier = server.offset < known.least_offset - CLOCK_TOLERANCE
        return CLOCK_CHANGED if is_later or is_earlier else None

    def _read_server(self, cursor: Cursor) -> tuple[Server, str]:
        """Return what is known about the database, and the recorded incarnation."""
        before = self._clock.monotonic()
        row = cursor.execute(_SERVER).fetchone()
        after = self._clock.monotonic()
        if row is None:
            raise StoreUnavailable(DAMAGED)
        now, incarnation, stored, clock_changes, trusted_from, longest_call, version = row
        check_version(version)
        if longest_call < self.longest_call:
            longest_call = self.longest_call
            cursor.execute(_SET_LONGEST_CALL, (longest_call,))
        server = Server(now, after - now, before - now, incarnation, clock_changes, trusted_from, longest_call)
        return server, stored

    def _decode(self, key: str, content: str | None, server: Server) -> RateLimitState | None:
        if content is None:
            return None
        # All accounts wait for the same time. Their next calls are not made at the same moment.
        spread = int(_digest(key), 16) / 2**128 * SPREAD
        try:
            stored = msgspec.json.decode(content, type=StoredState)
        except msgspec.MsgspecError:
            # Another version of the program wrote it.
            return None
        present = restore(stored, Instant(server.epoch, server.now, server.now))
        return present.moved(server.offset).blocked(server.trusted_from + server.offset + spread)

    def _purge(self, cursor: Cursor, server: Server) -> None:
        """Delete the states of replaced keys, and the responses of removed accounts, once an hour."""
        if self._clock.monotonic() >= self._purged_at + HOUR:
            self._purged_at = self._clock.monotonic()
            states, responses = _PURGE
            cursor.execute(states, (server.now,))
            cursor.execute(responses, (server.now - DAY,))


def _digest(text: str) -> str:
    """Return a digest: keys and fingerprints are derived from credentials."""
    return blake2b(text.encode(), digest_size=16).hexdigest()


def _encode(stored: StoredState) -> str:
    return msgspec.json.encode(stored).decode()


def _expiry(state: RateLimitState, server: Server) -> float:
    allowed = max((each.next_allowed_at for each in state.endpoints.values()), default=0.0)
    return max(server.now + HOUR, allowed, state.blocked_until)
