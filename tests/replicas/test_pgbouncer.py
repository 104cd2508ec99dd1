"""Exporters reach the database through PgBouncer in transaction mode, which has one connection to the server."""

import shutil
import subprocess
from collections.abc import Iterator

import psycopg
import pytest

from exporter.state.postgresql import PostgreSQLStore
from exporter.state.responses import CachedResponse
from exporter.tedee.endpoint import SYNC
from testing.postgresql import PostgreSQL, unprivileged
from testing.program import TIMEOUT, eventually, free_port
from tests.conftest import skip_unless_ci

from .conftest import DatabaseClock
from .test_limits import UNKNOWN, USER, Replica

PROGRAM = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/bin")


@pytest.fixture
def url(database: PostgreSQL, clock: DatabaseClock) -> Iterator[str]:
    """The URL of a PgBouncer."""
    if PROGRAM is None:
        skip_unless_ci("pgbouncer is not installed; .ci/install-test-programs installs it on Debian")
    port = free_port()
    folder = database.folder.parent / "pgbouncer"
    folder.mkdir(exist_ok=True)
    (folder / "users.txt").write_text('"tedee" ""\n')
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\ntedee = host=127.0.0.1 port={database.port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
        f"listen_port = {port}\nauth_type = trust\nauth_file = {folder}/users.txt\npool_mode = transaction\n"
        "default_pool_size = 1\nunix_socket_dir =\n"
    )
    process = subprocess.Popen([PROGRAM, "-q", folder / "pgbouncer.ini"], **unprivileged())
    url = f"postgresql://tedee@127.0.0.1:{port}/tedee"
    try:
        eventually(lambda: _connects(url), "PgBouncer to accept connections")
        yield url
    finally:
        process.kill()
        process.wait(TIMEOUT)


def _connects(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True


def test_limits_hold_and_responses_are_shared(url: str, database: PostgreSQL, clock: DatabaseClock) -> None:
    first, second = (Replica(database, clock, url) for _ in range(2))
    clock.advance(UNKNOWN)
    reported: list[str] = []
    responses = second.store.responses
    assert isinstance(responses, PostgreSQLStore)
    responses.subscribe(reported.append)
    with first.limiter.acquire(SYNC, USER):
        assert second.wait() == UNKNOWN
    assert [second.wait(), first.wait()] == [20, 20]
    first.store.responses.store_response("home", "my/lock/sync", "fingerprint", CachedResponse([b"{}"]))
    eventually(lambda: reported == ["home"], "the report")
    found = responses.cached_response("home", "my/lock/sync", "fingerprint")
    assert found
    assert found.rows == [b"{}"]
