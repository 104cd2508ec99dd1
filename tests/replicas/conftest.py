from collections.abc import Iterator

import pytest

from exporter.state import postgresql
from testing.clock import FakeClock
from testing.postgresql import PostgreSQL, running_server


@pytest.fixture(autouse=True)
def without_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all accounts wait equally long after a change of the database."""
    monkeypatch.setattr(postgresql, "SPREAD", 0.0)


@pytest.fixture(scope="session")
def server() -> Iterator[PostgreSQL]:
    """A PostgreSQL server with an empty database."""
    with running_server() as server:
        yield server


class DatabaseClock(FakeClock):
    """The clock of the database, which replaces `clock_timestamp()` for its users."""

    def __init__(self, server: PostgreSQL) -> None:
        super().__init__()
        self.server = server
        server.execute("CREATE SCHEMA fake")
        server.execute("CREATE TABLE fake.time (at double precision)")
        server.execute("INSERT INTO fake.time VALUES (0)")
        server.execute(
            "CREATE FUNCTION fake.clock_timestamp() RETURNS timestamptz LANGUAGE sql "
            "AS 'SELECT to_timestamp(at) FROM fake.time'"
        )
        server.execute("ALTER ROLE tedee IN DATABASE tedee SET search_path = fake, pg_catalog, public")
        self.set_wall(self.wall())

    def advance(self, seconds: float) -> None:
        """Let time pass, also for the database."""
        super().advance(seconds)
        self.set_wall(self.wall())

    def set_wall(self, wall: float) -> None:
        """Set the clock of the database."""
        super().set_wall(wall)
        self.server.execute("UPDATE fake.time SET at = %s", wall)


@pytest.fixture
def database(server: PostgreSQL) -> PostgreSQL:
    """The server with an empty database for one test."""
    server.execute("DROP DATABASE IF EXISTS tedee WITH (FORCE)", database="postgres")
    server.create_database()
    return server


@pytest.fixture
def clock(database: PostgreSQL) -> DatabaseClock:
    """The clock of the database. A process has another wall clock, see `MachineClock`."""
    return DatabaseClock(database)
