"""The database: its tables, privileges, connections, and what `--config.check` finds."""

import gc
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from structlog.testing import capture_logs

from exporter.state import postgresql_database
from exporter.state.postgresql import PostgreSQLStore
from exporter.state.postgresql_database import DAMAGED, Connection, find_problem
from exporter.state.store import StoreBusy, StoreUnavailable
from testing.clock import FakeClock
from testing.postgresql import PostgreSQL
from testing.stores import LONGEST_CALL
from tests.tcp import tcp_server

from .conftest import DatabaseClock
from .test_limits import Replica

_MIGRATIONS = postgresql_database._MIGRATIONS
DOCUMENTED = (
    "GRANT USAGE ON SCHEMA tedee_exporter TO exporter",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA tedee_exporter TO exporter",
)


def create_tables(database: PostgreSQL) -> None:
    Connection(database.url).close()


@contextmanager
def role(server: PostgreSQL, *grants: str) -> Iterator[str]:
    """Create a role with a password, and return its URL."""
    server.execute("DROP ROLE IF EXISTS exporter")
    server.execute("CREATE ROLE exporter LOGIN PASSWORD 'opens-the-database'")
    for grant in grants:
        server.execute(grant)
    try:
        yield server.url.replace("tedee@", "exporter:opens-the-database@")
    finally:
        server.execute("DROP OWNED BY exporter CASCADE")
        server.execute("DROP ROLE exporter")


def test_role_may_create_the_tables(database: PostgreSQL, clock: DatabaseClock) -> None:
    with role(database, "GRANT CREATE ON DATABASE tedee TO exporter") as url:
        assert Replica(database, clock, url).store.states.is_usable()


def test_role_needs_no_more_than_the_documented_privileges(database: PostgreSQL, clock: DatabaseClock) -> None:
    create_tables(database)
    with role(database, *DOCUMENTED) as url:
        replica = Replica(database, clock, url)
        assert replica.store.states.is_usable()
        clock.advance(4000)
        replica.wait()
        assert replica.store.states.is_usable()


def test_missing_privilege_is_explained(database: PostgreSQL, clock: DatabaseClock) -> None:
    with role(database) as url, capture_logs() as logs:
        replica = Replica(database, clock, url)
        assert replica.store.states.is_usable() is False
    (line,) = logs
    assert line["error"].startswith("permission denied for database tedee; the user needs CREATE on the database")
    assert "opens-the-database" not in str(logs)


def test_too_many_connections_are_explained(database: PostgreSQL, clock: DatabaseClock) -> None:
    with role(database, "ALTER ROLE exporter CONNECTION LIMIT 0") as url, capture_logs() as logs:
        assert Replica(database, clock, url).store.states.is_usable() is False
    assert "too many connections for role" in logs[0]["error"]
    assert "opens-the-database" not in str(logs)


# Versions


@pytest.fixture
def migrated(monkeypatch: pytest.MonkeyPatch) -> None:
    """A later version of the program, which adds a column."""
    addition = "ALTER TABLE tedee_exporter.states ADD COLUMN note text;"
    monkeypatch.setattr(postgresql_database, "_MIGRATIONS", (*_MIGRATIONS, addition))


@pytest.mark.usefixtures("migrated")
@pytest.mark.parametrize("is_new", [True, False])
def test_replicas_that_start_together_change_the_tables_once(
    database: PostgreSQL, monkeypatch: pytest.MonkeyPatch, is_new: bool
) -> None:
    if not is_new:
        with monkeypatch.context() as older:
            older.setattr(postgresql_database, "_MIGRATIONS", _MIGRATIONS)
            create_tables(database)
    threads = [threading.Thread(target=create_tables, args=(database,)) for _ in range(5)]
    with capture_logs() as logs:
        for each in threads:
            each.start()
        for each in threads:
            each.join()
    assert [line["version"] for line in logs] == ([1, 2] if is_new else [2])
    assert database.execute("SELECT version FROM tedee_exporter.store") == [(len(_MIGRATIONS) + 1,)]
    assert database.execute("SELECT note FROM tedee_exporter.states") == []


def test_tables_of_a_newer_version_are_not_touched(database: PostgreSQL, clock: DatabaseClock) -> None:
    create_tables(database)
    newer = len(_MIGRATIONS) + 1
    database.execute("UPDATE tedee_exporter.store SET version = %s", newer)
    with capture_logs() as logs:
        assert Replica(database, clock).store.states.is_usable() is False
    assert f"the tables of the state database are of version {newer}" in logs[0]["error"]
    assert find_problem(database.url) == logs[0]["error"]


# Damage


@pytest.mark.parametrize("damage", ["DELETE FROM tedee_exporter.store", "DROP TABLE tedee_exporter.responses"])
def test_damaged_tables_are_explained(database: PostgreSQL, clock: DatabaseClock, damage: str) -> None:
    replica = Replica(database, clock)
    assert replica.store.states.is_usable()
    database.execute(damage)
    with capture_logs() as logs:
        for _ in range(3):
            replica.store.responses.cached_response("home", "my/lock/sync", "key")
            replica.wait()
            clock.advance(2.1)
    assert replica.store.states.is_usable() is False
    assert [line["error"] for line in logs if line["log_level"] == "warning"] == [DAMAGED]
    assert find_problem(database.url) == DAMAGED
    database.execute("DROP SCHEMA tedee_exporter CASCADE")
    replica.wait()
    assert replica.store.states.is_usable()


def test_tables_that_a_newer_version_changes_are_no_longer_used(store: PostgreSQLStore, database: PostgreSQL) -> None:
    use(store)
    database.execute("UPDATE tedee_exporter.store SET version = version + 1")
    with pytest.raises(StoreUnavailable, match="update all exporters that use it"):
        use(store)


# Problems while it is used


@pytest.fixture
def store_clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(database: PostgreSQL, store_clock: FakeClock) -> Iterator[PostgreSQLStore]:
    store = PostgreSQLStore(lambda: database.url, store_clock, longest_call=LONGEST_CALL)
    yield store
    store.close()


def use(store: PostgreSQLStore) -> None:
    with store.transaction(["account home"]):
        pass


def test_problem_is_reported_once(store: PostgreSQLStore, store_clock: FakeClock, database: PostgreSQL) -> None:
    use(store)
    database.stop()
    with capture_logs() as logs:
        for number in range(4):
            with pytest.raises(StoreUnavailable, match="the state database cannot be used: "):
                use(store)
            # The connection that ended is opened again before a problem is reported.
            assert len(logs) == (number > 0)
            assert store.problem()
            store_clock.advance(2.1)
        database.start(fsync="off")
        use(store)
    assert store.problem() is None
    events = [line["event"] for line in logs if line["event"].startswith("the state database can")]
    assert events == [
        "the state database cannot be used; nothing is requested until it can",
        "the state database can be used again",
    ]
    assert {line["database"] for line in logs} == {f"127.0.0.1:{database.port}/tedee"}


def test_tables_that_stay_locked_are_a_problem(
    store: PostgreSQLStore, store_clock: FakeClock, database: PostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(store)
    with psycopg.connect(database.url) as other:
        other.execute("LOCK TABLE tedee_exporter.states IN EXCLUSIVE MODE")
        for seconds in (0.0, 9.0, 1.0):
            store_clock.advance(seconds)
            assert store.problem() is None
            with pytest.raises(StoreBusy, match="another process has locked its tables"):
                use(store)
    assert "another process has locked its tables" in (store.problem() or "")
    use(store)
    assert store.problem() is None


def test_server_that_hangs_is_named(store: PostgreSQLStore, database: PostgreSQL) -> None:
    use(store)
    with database.hanging(), pytest.raises(StoreUnavailable, match="no response within 5 s"):
        use(store)


def test_failed_attempts_keep_no_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql_database, "CONNECT_TIMEOUT", 2)

    def open_files() -> int:
        return len([*Path("/proc/self/fd").iterdir()])

    with tcp_server(lambda connection: time.sleep(3)) as port:
        url = f"postgresql://tedee@127.0.0.1:{port}/tedee"
        gc.disable()
        try:
            before = open_files()
            assert find_problem(url) == "connection timeout expired"
            # The server has one of its own.
            assert open_files() <= before + 1
        finally:
            gc.enable()


def test_longest_call_of_any_process_counts_after_a_restart(
    store: PostgreSQLStore, store_clock: FakeClock, database: PostgreSQL
) -> None:
    other = PostgreSQLStore(lambda: database.url, store_clock, longest_call=121.0)
    use(other)
    other.close()
    use(store)
    database.execute("UPDATE tedee_exporter.store SET incarnation = 'another'")
    with capture_logs() as logs:
        use(store)
    assert [line["seconds"] for line in logs] == [121.0 + 20.0]


# Connections


def test_url_is_read_again_for_each_connection(database: PostgreSQL) -> None:
    urls = [database.url]
    clock = FakeClock()
    store = PostgreSQLStore(lambda: urls[-1], clock, longest_call=LONGEST_CALL)
    try:
        with role(database, "GRANT CREATE ON DATABASE tedee TO exporter") as url:
            with store.transaction(["account home"]):
                pass
            database.execute("DROP SCHEMA tedee_exporter CASCADE")
            urls.append(url)
            database.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
            assert store.cached_response("home", "my/lock/sync", "key") is None
            clock.advance(2.1)
            with store.transaction(["account home"]):
                assert database.execute(
                    "SELECT usename FROM pg_stat_activity WHERE application_name = 'tedee-exporter'"
                ) == [("exporter",)]
            store.close()
    finally:
        store.close()


@pytest.mark.parametrize(("configured", "used"), [("off", "local"), ("remote_apply", "remote_apply")])
def test_commits_are_written_before_a_call(database: PostgreSQL, configured: str, used: str) -> None:
    """If a process of the server crashes, the server loses the commits that it has not written."""
    database.execute(f"ALTER DATABASE tedee SET synchronous_commit = {configured}")
    connection = Connection(database.url)
    with connection.transaction() as cursor:
        assert cursor.execute("SHOW synchronous_commit").fetchone() == (used,)
    connection.close()


# `--config.check`


def test_check_creates_nothing(database: PostgreSQL) -> None:
    assert find_problem(database.url) is None
    assert database.execute("SELECT to_regnamespace('tedee_exporter')") == [(None,)]


def test_check_finds_server_that_does_not_respond(database: PostgreSQL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql_database, "CONNECT_TIMEOUT", 2)
    with database.hanging():
        assert "timeout" in (find_problem(database.url) or "")


def test_check_finds_read_only_server(database: PostgreSQL) -> None:
    database.execute("ALTER DATABASE tedee SET default_transaction_read_only = on")
    assert find_problem(database.url) == (
        "it is read-only; add target_session_attrs=read-write to state_url, and the hosts of all servers"
    )


def test_check_finds_missing_right_to_create_tables(database: PostgreSQL) -> None:
    expected = "it has no tables; the user needs CREATE on the database for the first start"
    with role(database) as url:
        assert (find_problem(url) or "").startswith(expected)
        database.execute("CREATE SCHEMA tedee_exporter")
        assert (find_problem(url) or "").startswith(expected)
        database.execute("GRANT ALL ON SCHEMA tedee_exporter TO exporter")
        assert find_problem(url) is None


def test_check_finds_missing_privileges(database: PostgreSQL) -> None:
    create_tables(database)
    with role(database, *DOCUMENTED) as url:
        assert find_problem(url) is None
        database.execute("REVOKE UPDATE ON tedee_exporter.states FROM exporter")
        database.execute("REVOKE DELETE ON tedee_exporter.responses FROM exporter")
        problem = find_problem(url) or ""
        assert problem.startswith("the user lacks ")
        assert {"UPDATE on tedee_exporter.states", "DELETE on tedee_exporter.responses"} == set(
            problem.removeprefix("the user lacks ").split(";")[0].split(", ")
        )
        database.execute("REVOKE USAGE ON SCHEMA tedee_exporter FROM exporter")
        assert "permission denied for schema tedee_exporter; the user needs" in (find_problem(url) or "")


def test_check_finds_tables_that_only_their_owner_can_change(
    database: PostgreSQL, request: pytest.FixtureRequest
) -> None:
    create_tables(database)
    request.getfixturevalue("migrated")
    with role(database, *DOCUMENTED) as url:
        assert "start one exporter once as the user who owns them" in (find_problem(url) or "")
    assert find_problem(database.url) is None
