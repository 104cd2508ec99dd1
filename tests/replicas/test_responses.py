"""Every exporter serves what one of them received."""

import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from math import inf
from typing import Any

import psycopg
import pytest
from structlog.testing import capture_logs

from exporter.clock import Instant
from exporter.state import postgresql
from exporter.state.postgresql import PostgreSQLStore
from exporter.state.responses import MAX_UNPACKED_BYTES, CachedResponse, Failure
from testing.postgresql import PostgreSQL
from testing.program import eventually
from testing.stores import LONGEST_CALL

from .conftest import DatabaseClock
from .test_limits import MachineClock

ROWS = [b'{"id": 1, "name": "Front door"}', b'{"id": 2}']
KEY = "fingerprint"


@pytest.fixture
def open_store(database: PostgreSQL, clock: DatabaseClock) -> Iterator[Callable[[], PostgreSQLStore]]:
    """Return a function that opens the store of a process on another machine."""
    stores: list[PostgreSQLStore] = []

    def open_one() -> PostgreSQLStore:
        stores.append(PostgreSQLStore(lambda: database.url, MachineClock(clock), longest_call=LONGEST_CALL))
        return stores[-1]

    yield open_one
    for each in stores:
        each.close()


Open = Callable[[], PostgreSQLStore]


def response(store: PostgreSQLStore, **fields: Any) -> CachedResponse:
    return CachedResponse(ROWS, at=Instant.now(store._clock), **fields)


def read(store: PostgreSQLStore) -> CachedResponse:
    found = store.cached_response("home", "my/lock/sync", KEY)
    assert found
    return found


def write(store: PostgreSQLStore, stored: CachedResponse, fingerprint: str = KEY) -> None:
    store.store_response("home", "my/lock/sync", fingerprint, stored)


def test_response_has_its_true_age_on_every_machine(open_store: Open, clock: DatabaseClock) -> None:
    first, second = open_store(), open_store()
    failed_at = first._clock.wall() - 5
    write(first, response(first, failure=Failure("timeout", "no response", failed_at), requested_ids=(1, 2)))
    clock.advance(12)
    found = read(second)
    assert (found.rows, found.requested_ids) == (ROWS, (1, 2))
    assert found.at
    assert found.at.age(Instant.now(second._clock)) == pytest.approx(12)
    assert second._clock.wall() - found.at.wall == pytest.approx(12)
    assert found.failure
    assert second._clock.wall() - found.failure.at == pytest.approx(17)
    assert read(second) is found


def test_response_for_another_credential_is_not_used(open_store: Open) -> None:
    first, second = open_store(), open_store()
    write(first, response(first))
    assert second.cached_response("home", "my/lock/sync", "another") is None
    assert second.cached_response("hotel", "my/lock/sync", KEY) is None
    write(first, response(first), "another")
    assert second.cached_response("home", "my/lock/sync", KEY) is None


def test_process_that_was_stopped_does_not_replace_a_newer_response(open_store: Open, clock: DatabaseClock) -> None:
    first, second = open_store(), open_store()
    old = response(first)
    clock.advance(25)
    new = response(second)
    write(second, new)
    write(first, old)
    found = read(open_store())
    assert found.at
    assert found.at.age(Instant.now(MachineClock(clock))) is None
    assert read(second) is new
    failed = replace(new, failure=Failure("timeout", "no response", 0.0))
    write(second, failed)
    assert read(first).failure


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no zlib",
        zlib.compress(b"no JSON"),
        zlib.compress(b"[]"),
        zlib.compress(b"{}"),
        zlib.compress(b'{"rows": null, "at": 1}'),
        zlib.compress(b'{"rows": 0}' + b" " * MAX_UNPACKED_BYTES),
    ],
    ids=["empty", "text", "text in zlib", "list", "no rows", "other fields", "too large"],
)
def test_unreadable_response_is_fetched_again(open_store: Open, database: PostgreSQL, content: bytes) -> None:
    first, second = open_store(), open_store()
    write(first, response(first))
    database.execute("UPDATE tedee_exporter.responses SET response = %s, stored_at = 0", content)
    for each in (first, second):
        assert each.cached_response("home", "my/lock/sync", KEY) is None
        assert each.problem() is None
    new = response(second)
    write(second, new)
    assert read(first).rows == new.rows


def test_credential_is_not_stored(open_store: Open, database: PostgreSQL) -> None:
    first = open_store()
    write(first, response(first), "the-fingerprint-of-a-key")
    (content,) = database.execute("SELECT string_agg(t::text, '') FROM tedee_exporter.responses t")
    assert "home" in content[0]
    assert "the-fingerprint" not in content[0]


@pytest.mark.parametrize("channel", ["tedee_exporter", "another"], ids=["notification", "polling"])
def test_new_response_is_reported_to_the_others(
    open_store: Open, database: PostgreSQL, clock: DatabaseClock, monkeypatch: pytest.MonkeyPatch, channel: str
) -> None:
    first, second = open_store(), open_store()
    # PgBouncer in transaction mode passes no notifications.
    monkeypatch.setattr(postgresql, "LISTEN", f"LISTEN {channel}")
    reported: dict[str, list[str]] = {"first": [], "second": []}
    first.subscribe(reported["first"].append)
    second.subscribe(reported["second"].append)
    write(first, response(first))
    eventually(lambda: reported["second"], "the report")
    assert reported == {"first": [], "second": ["home"]}
    database.stop()
    database.start(fsync="off")

    def is_written() -> bool:
        clock.advance(1)
        write(second, response(second))
        return bool(second.cached_response("home", "my/lock/sync", KEY))

    eventually(is_written, "the database")
    eventually(lambda: reported["first"], "the report after a restart of the database")


class _GrowingResponses(dict[tuple[str, str], postgresql.StoredResponse]):
    """Responses to which another thread adds one during each iteration."""

    def items(self) -> Any:
        for key, stored in super().items():
            self[f"{key[0]} again", key[1]] = stored
            yield key, stored


def test_responses_are_reported_while_others_are_stored(open_store: Open) -> None:
    first, second = open_store(), open_store()
    write(second, response(second))
    second._responses = _GrowingResponses(second._responses)
    reported: list[str] = []
    second.subscribe(reported.append)
    first.store_response("hotel", "my/lock/sync", KEY, response(first))
    eventually(lambda: reported == ["hotel"], "the report")


def test_response_that_is_known_to_be_the_newest_is_not_read_again(
    open_store: Open, database: PostgreSQL, clock: DatabaseClock
) -> None:
    first, second = open_store(), open_store()
    write(first, response(first))
    found = read(second)
    second.subscribe(lambda _account: None)
    eventually(lambda: second.poll_interval == inf, "the subscription")
    database.execute("DELETE FROM tedee_exporter.responses")
    assert read(second) is found
    clock.advance(1)
    write(first, response(first))
    eventually(lambda: read(second) is not found, "the new response")
    database.stop()
    eventually(lambda: second.cached_response("home", "my/lock/sync", KEY) is None, "the end of the subscription")
    database.start(fsync="off")


def test_accounts_check_for_responses_while_none_are_reported(open_store: Open, database: PostgreSQL) -> None:
    store = open_store()
    assert store.poll_interval == postgresql.UNWATCHED_POLL_INTERVAL
    store.subscribe(lambda _account: None)
    eventually(lambda: store.poll_interval == inf, "the subscription")
    database.stop()
    eventually(lambda: store.poll_interval == postgresql.UNWATCHED_POLL_INTERVAL, "the end of the subscription")
    database.start(fsync="off")
    eventually(lambda: store.poll_interval == inf, "the next subscription")


def test_failing_second_connection_is_reported_once(
    open_store: Open, database: PostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store()
    assert store.cached_response("home", "my/lock/sync", KEY) is None
    monkeypatch.setattr(postgresql, "RETRY_DELAY", 0.05)
    database.execute("ALTER DATABASE tedee ALLOW_CONNECTIONS false", database="postgres")
    with capture_logs() as logs:
        store.subscribe(lambda _account: None)
        eventually(lambda: len(logs) > 7, "more attempts")
    assert [each["event"].split(";")[0] for each in logs if each["log_level"] == "warning"] == [
        "a second connection to the state database fails"
    ]


def test_watching_ends_with_the_store(open_store: Open) -> None:
    store = open_store()
    # Stores of earlier tests may be open in this process.
    others = threading.enumerate()
    store.subscribe(lambda _account: None)
    watchers = [each for each in threading.enumerate() if each.name == "state database" and each not in others]
    assert watchers
    store.close()
    for each in watchers:
        each.join(30)
        assert not each.is_alive()


def test_restart_of_the_database_is_noticed_before_a_call_is_due(
    open_store: Open, database: PostgreSQL, clock: DatabaseClock
) -> None:
    store = open_store()
    store.subscribe(lambda _account: None)
    recorded = "SELECT incarnation FROM tedee_exporter.store"
    (before,) = eventually(lambda: _rows(database, recorded), "the first run of the server to be recorded")
    database.kill()
    database.start(fsync="off")

    def is_noticed() -> bool:
        clock.advance(1)
        return database.execute(recorded) != [before] and store.problem() is None

    eventually(is_noticed, "the next run of the server to be recorded")


def _rows(database: PostgreSQL, query: str) -> list[tuple[object, ...]]:
    try:
        return [row for row in database.execute(query) if row != ("",)]
    except psycopg.errors.UndefinedTable:
        return []
