"""The limits of calls hold for exporters on several machines, whatever happens to the database."""

import itertools
import shutil
from collections.abc import Iterator
from contextlib import suppress
from math import inf
from typing import ClassVar

import psycopg
import pytest
from structlog.testing import capture_logs

from exporter.state import postgresql
from exporter.state.rate_limits import RateLimitPolicy
from exporter.state.stores import OpenStore, open_store
from exporter.sync.limiter import NotAllowedYet, RateLimiter
from exporter.tedee.endpoint import DEVICES, SYNC
from exporter.tedee.errors import RateLimited
from testing.postgresql import PostgreSQL
from testing.program import eventually
from testing.stores import LONGEST_CALL

from .conftest import DatabaseClock

POLICY = RateLimitPolicy(longest_call=LONGEST_CALL)
USER = "user 1"
UNKNOWN = LONGEST_CALL + 20.0
"""Seconds until the first call if the end of the last one is unknown."""


class MachineClock:
    """The clock of a machine: its wall clock and boot differ from those of other machines, by hours."""

    numbers = itertools.count(1)

    def __init__(self, database: DatabaseClock) -> None:
        self._number = next(self.numbers)
        self._database = database
        self._started_at = database.monotonic()

    def wall(self) -> float:
        """Return Unix seconds."""
        sign = 1 if self._number % 2 else -1
        return 1_800_000_000.0 + sign * 3600 * self._number + self._passed()

    def monotonic(self) -> float:
        """Return seconds since the boot."""
        return 1e5 * self._number + self._passed()

    def boot(self) -> str:
        """Return the identifier of the boot."""
        return f"machine {self._number}"

    def _passed(self) -> float:
        return self._database.monotonic() - self._started_at


class Replica:
    """An exporter on a machine of its own, with one account."""

    running: ClassVar[list["Replica"]] = []

    def __init__(self, server: PostgreSQL, database: DatabaseClock, url: str | None = None, shard: str = "0/1") -> None:
        self.clock = MachineClock(database)
        self.store: OpenStore = open_store(
            lambda: url or server.url, self.clock, longest_call=LONGEST_CALL, shard=shard
        )
        self.limiter = RateLimiter("home", self.store.states, self.clock, POLICY, jitter=lambda: 1.0)
        self.limiter.set_user(USER)
        self.running.append(self)

    def wait(self) -> float:
        """Try to call. Returns the seconds until a call is allowed: 0 after a call, infinity without the database."""
        with suppress(NotAllowedYet), self.limiter.acquire(SYNC, USER):
            return 0.0
        return round(self.limiter.wait(SYNC), 3) if self.store.states.is_usable() else inf


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """Close the stores after each test."""
    yield
    while Replica.running:
        Replica.running.pop().store.close()


def started(server: PostgreSQL, clock: DatabaseClock, count: int = 2) -> list[Replica]:
    """Start replicas, and wait until the first call is allowed."""
    replicas = [Replica(server, clock) for _ in range(count)]
    clock.advance(UNKNOWN)
    return replicas


def test_first_start_waits_since_another_store_may_have_been_used(database: PostgreSQL, clock: DatabaseClock) -> None:
    assert Replica(database, clock).wait() == UNKNOWN


def test_call_of_one_replica_is_the_limit_of_all(database: PostgreSQL, clock: DatabaseClock) -> None:
    first, second, third = started(database, clock, 3)
    with first.limiter.acquire(SYNC, USER):
        assert second.wait() == UNKNOWN
        clock.advance(4)
        assert third.wait() == UNKNOWN - 4
    assert [second.wait(), third.wait()] == [20, 20]
    clock.advance(19.9)
    assert [each.wait() for each in (third, second, first)] == [pytest.approx(0.1)] * 3
    clock.advance(0.2)
    assert [each.wait() for each in (third, second, first)] == [0, 20, 20]


def test_number_of_shards_may_change_at_any_time(database: PostgreSQL, clock: DatabaseClock) -> None:
    (first,) = started(database, clock, 1)
    assert first.wait() == 0
    # The account moves to a process that is started next to the first one, and back.
    second = Replica(database, clock, shard="1/3")
    assert [second.wait(), first.wait()] == [20, 20]
    clock.advance(20)
    assert [second.wait(), first.wait()] == [0, 20]
    third = Replica(database, clock, shard="0/2")
    clock.advance(20)
    assert [third.wait(), second.wait(), first.wait()] == [0, 20, 20]


def test_killed_call_blocks_until_it_must_have_ended(database: PostgreSQL, clock: DatabaseClock) -> None:
    first, second = started(database, clock)
    with first.limiter.acquire(SYNC, USER):
        clock.advance(UNKNOWN - 1)
        assert second.wait() == 1
        clock.advance(1)
        assert second.wait() == 0


def test_late_end_of_a_stopped_call_does_not_shorten_the_next_one(database: PostgreSQL, clock: DatabaseClock) -> None:
    stopped, other, third = started(database, clock, 3)
    with stopped.limiter.acquire(SYNC, USER):
        clock.advance(UNKNOWN)
        call = other.limiter.acquire(SYNC, USER)
        call.__enter__()
        clock.advance(1)
    assert third.wait() == UNKNOWN - 1
    call.__exit__(None, None, None)
    assert third.wait() == 20


def test_calls_after_a_restart_of_the_database_are_spread(
    database: PostgreSQL, clock: DatabaseClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "SPREAD", 10.0)
    (replica,) = started(database, clock, 1)
    states = replica.store.states
    keys = [f"account {number}" for number in range(40)]
    states.update(keys, lambda _now, _states: tuple(POLICY.unknown_state(0.0) for _ in keys))
    clock.advance(1000)
    database.execute("UPDATE tedee_exporter.store SET incarnation = 'another'")
    after = states.update(keys, lambda _now, newest: tuple(each or POLICY.unknown_state(0.0) for each in newest))
    times = sorted(each.blocked_until - after[0].blocked_until for each in after)
    assert 7 < times[-1] - times[0] <= 10
    assert max(later - earlier for earlier, later in itertools.pairwise(times)) < 3


def test_retry_after_is_obeyed_by_all(database: PostgreSQL, clock: DatabaseClock) -> None:
    first, second = started(database, clock)
    error = RateLimited("", account="home", endpoint=SYNC.path, retry_after=300.0)
    with suppress(RateLimited), first.limiter.acquire(SYNC, USER):
        raise error
    assert second.wait() == 300
    with pytest.raises(NotAllowedYet), second.limiter.acquire(DEVICES, USER):
        pass


def test_hourly_share_is_shared(database: PostgreSQL, clock: DatabaseClock) -> None:
    replicas = started(database, clock, 3)
    for each in replicas * 2:
        each.wait()
        clock.advance(21)
    assert {each.limiter.remaining() for each in replicas} == {344, 345, 346}
    replicas[0].wait()
    assert replicas[0].limiter.remaining() == 343


# The database fails


def test_no_call_without_the_database(database: PostgreSQL, clock: DatabaseClock) -> None:
    first, second = started(database, clock)
    assert first.wait() == 0
    clock.advance(25)
    with capture_logs() as logs:
        database.stop()
        try:
            for each in (first, second):
                with (
                    pytest.raises(NotAllowedYet, match="the state database cannot be used"),
                    each.limiter.acquire(SYNC, USER),
                ):
                    raise AssertionError
                assert each.store.states.is_usable() is False
        finally:
            database.start()
    # The connection that ended is opened again before a problem is reported.
    assert logs == []
    clock.advance(2.1)
    # Another run of the server: what it had not written is lost.
    assert [first.wait(), second.wait()] == [UNKNOWN, UNKNOWN]
    assert first.store.states.is_usable() is True
    clock.advance(UNKNOWN)
    assert [first.wait(), second.wait()] == [0, 20]


def test_database_that_ends_during_a_call_gets_its_end_later(database: PostgreSQL, clock: DatabaseClock) -> None:
    first, second = started(database, clock)
    with first.limiter.acquire(SYNC, USER):
        database.kill()
        database.start(fsync="off")
    # The connections of the run before are found to be closed.
    assert [second.wait(), first.wait()] == [inf, inf]
    clock.advance(2.1)
    assert [second.wait(), first.wait()] == [UNKNOWN, UNKNOWN]
    clock.advance(UNKNOWN)
    assert [second.wait(), first.wait()] == [0, 20]


def test_database_that_hangs_delays_no_longer_than_the_time_out(database: PostgreSQL, clock: DatabaseClock) -> None:
    first, second = started(database, clock)
    with database.hanging(), pytest.raises(NotAllowedYet), first.limiter.acquire(SYNC, USER):
        raise AssertionError
    clock.advance(2.1)
    assert second.wait() == 0
    clock.advance(2.1)
    assert first.wait() == pytest.approx(20 - 2.1)


def test_stopped_replica_does_not_block_others(database: PostgreSQL, clock: DatabaseClock) -> None:
    (second,) = started(database, clock, 1)
    with suppress(psycopg.Error), psycopg.connect(database.url) as stopped:
        stopped.execute("SELECT set_config('idle_in_transaction_session_timeout', '5s', true)")
        stopped.execute("SELECT key FROM tedee_exporter.states FOR UPDATE")
        with pytest.raises(NotAllowedYet, match="another process has locked"), second.limiter.acquire(SYNC, USER):
            raise AssertionError
        assert eventually(lambda: second.wait() == 0, "the server to end the transaction")


def test_old_copy_of_the_tables_is_noticed(database: PostgreSQL, clock: DatabaseClock) -> None:
    first, second = started(database, clock)
    database.run(
        "pg_dump",
        f"--dbname={database.url}",
        "--format=custom",
        "--schema=tedee_exporter",
        f"--file={database.folder}.dump",
    )
    assert first.wait() == 0
    first.store.close()
    second.store.close()
    database.execute("DROP SCHEMA tedee_exporter CASCADE")
    database.run("pg_restore", f"--dbname={database.url}", f"{database.folder}.dump")
    clock.advance(5)
    third = Replica(database, clock)
    assert third.wait() == UNKNOWN
    assert first.wait() == UNKNOWN


@pytest.mark.parametrize("jump", [-7200.0, -30.0, 30.0, 7200.0])
def test_change_of_the_databases_clock_is_noticed(database: PostgreSQL, clock: DatabaseClock, jump: float) -> None:
    first, second = started(database, clock)
    assert first.wait() == 0
    clock.set_wall(clock.wall() + jump)
    assert second.wait() == UNKNOWN
    assert first.wait() == UNKNOWN
    clock.advance(UNKNOWN - 1)
    assert [first.wait(), second.wait()] == [1, 1]
    clock.advance(1)
    assert [second.wait(), first.wait()] == [0, 20]


def has_states(server: PostgreSQL) -> bool:
    """Return True if a standby has the tables, and the states of an account and its user."""
    with suppress(psycopg.errors.UndefinedTable):
        return bool(server.execute("SELECT count(*) > 1 FROM tedee_exporter.states")[0][0])
    return False


def test_standby_that_lacks_the_last_call_is_noticed(database: PostgreSQL, clock: DatabaseClock) -> None:
    standby = PostgreSQL(database.folder.parent / "standby")
    database.copy_to(standby)
    standby.start(fsync="off")
    try:
        url = (
            f"postgresql://tedee@127.0.0.1:{database.port},127.0.0.1:{standby.port}/tedee"
            "?target_session_attrs=read-write"
        )
        first, second = (Replica(database, clock, url) for _ in range(2))
        clock.advance(UNKNOWN)
        eventually(lambda: has_states(standby), "the copy")
        standby.execute("SELECT pg_wal_replay_pause()")
        assert first.wait() == 0
        database.kill()
        standby.promote()
        eventually(lambda: not standby.execute("SELECT pg_is_in_recovery()")[0][0], "the promotion")
        clock.server = standby
        assert [second.wait(), first.wait()] == [inf, inf]
        clock.advance(2.1)
        assert [second.wait(), first.wait()] == [UNKNOWN, UNKNOWN]
    finally:
        standby.kill()
        shutil.rmtree(standby.folder)
        database.start(fsync="off")


def test_history_of_calls_never_breaks_the_limit(database: PostgreSQL, clock: DatabaseClock) -> None:
    """Three replicas try as often as they can, while one of them fails now and then."""
    replicas = started(database, clock, 3)
    ends: list[float] = []
    for number in range(60):
        replica = replicas[number * 7 % 3]
        with suppress(NotAllowedYet), replica.limiter.acquire(SYNC, USER):
            assert not ends or clock.monotonic() >= ends[-1] + 20 - 1e-5
            clock.advance(number % 5)
            ends.append(clock.monotonic())
        clock.advance(3.7)
        if number % 20 == 19:
            replicas[0].store.close()
            replicas[0] = Replica(database, clock)
    assert len(ends) > 8
