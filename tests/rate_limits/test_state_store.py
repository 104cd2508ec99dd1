"""The state store: limits after restarts, crashes, full disks and clock jumps, and with several processes."""

import json
import os
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from exporter.clock import Instant
from exporter.state import sqlite_file as module
from exporter.state.rate_limits import RateLimitPolicy
from exporter.state.responses import CachedResponse, Failure
from exporter.state.sqlite_file import SQLiteFile
from exporter.state.stores import OpenStore
from exporter.sync.limiter import NotAllowedYet, RateLimiter
from exporter.tedee.endpoint import DEVICES, DOOR_SENSORS, SYNC, Endpoint
from exporter.tedee.errors import CallError, RateLimited, ServerFailed
from testing.clock import FakeClock
from testing.stores import LONGEST_CALL, open_store

UNKNOWN = LONGEST_CALL + 20.0
"""Seconds until the first call if the end of the last one is unknown."""
POLICY = RateLimitPolicy(longest_call=LONGEST_CALL)
USER = "user 1"


def limiter_of(
    store: OpenStore, clock: FakeClock, account: str = "home", *, policy: RateLimitPolicy = POLICY
) -> RateLimiter:
    limiter = RateLimiter(account, store.states, clock, policy, jitter=lambda: 1.0, is_first_start=store.states.is_new)
    limiter.set_user(USER)
    return limiter


def start(path: Path, clock: FakeClock, account: str = "home", *, policy: RateLimitPolicy = POLICY) -> RateLimiter:
    """Start a process and return its limiter."""
    return limiter_of(open_store(path, clock), clock, account, policy=policy)


def call(
    limiter: RateLimiter, clock: FakeClock, endpoint: Endpoint = SYNC, takes: float = 0.5, user: str = USER
) -> None:
    with limiter.acquire(endpoint, user):
        clock.advance(takes)


def fail(limiter: RateLimiter, error: CallError) -> None:
    with suppress(CallError), limiter.acquire(SYNC, USER):
        raise error


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "state.db"


# Restarts


def test_first_start_calls_at_once(path: Path, clock: FakeClock) -> None:
    assert start(path, clock).wait(SYNC) == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_start_killed_before_its_first_call_does_not_block(path: Path, clock: FakeClock) -> None:
    start(path, clock)
    clock.advance(5)
    assert start(path, clock).wait(SYNC) == 0


@pytest.mark.parametrize("end", ["close", "kill"])
def test_restart_waits_for_the_rest_of_the_spacing(path: Path, clock: FakeClock, end: str) -> None:
    store = open_store(path, clock)
    call(limiter_of(store, clock), clock)
    if end == "close":
        store.close()
    clock.advance(7)
    limiter = start(path, clock)
    assert limiter.wait(SYNC) == 13.0
    with pytest.raises(NotAllowedYet):
        call(limiter, clock)
    clock.advance(13)
    call(limiter, clock)


@pytest.mark.parametrize("end", ["close", "kill"])
def test_restart_after_the_spacing_calls_at_once(path: Path, clock: FakeClock, end: str) -> None:
    store = open_store(path, clock)
    call(limiter_of(store, clock), clock)
    if end == "close":
        store.close()
    clock.advance(60)
    assert start(path, clock).wait(SYNC) == 0


def test_process_killed_during_call_leaves_reservation(path: Path, clock: FakeClock) -> None:
    with start(path, clock).acquire(SYNC, USER):
        # A process that is killed here leaves the file as it is during the call.
        clock.advance(1)
        assert start(path, clock).wait(SYNC) == LONGEST_CALL + 20.0 - 1.0


def test_crash_loop_does_not_prevent_calls(path: Path, clock: FakeClock) -> None:
    call(start(path, clock), clock)
    waits = []
    for _ in range(8):
        clock.advance(5)
        waits.append(start(path, clock).wait(SYNC))
    assert waits == [15, 10, 5, 0, 0, 0, 0, 0]


def test_backoff_retry_after_and_requests_survive_restart(path: Path, clock: FakeClock) -> None:
    store = open_store(path, clock)
    limiter = limiter_of(store, clock)
    for _ in range(3):
        fail(limiter, ServerFailed("x", account="home", endpoint=SYNC.path))
        clock.advance(limiter.wait(SYNC))
    fail(limiter, RateLimited("x", account="home", endpoint=SYNC.path, retry_after=1800.0))
    store.close()
    clock.advance(100)
    again = start(path, clock)
    assert again.wait(SYNC) == 1700.0
    assert again.wait(DEVICES) == 1700.0
    assert again.remaining() == 346
    clock.advance(1700)
    fail(again, ServerFailed("x", account="home", endpoint=SYNC.path))
    assert again.wait(SYNC) == 300.0


def test_renamed_account_waits_for_the_call_of_its_user(path: Path, clock: FakeClock) -> None:
    with start(path, clock).acquire(SYNC, USER):
        clock.advance(1)
        limiter = start(path, clock, account="house")
        assert limiter.wait(SYNC) == UNKNOWN
        clock.advance(9)
    clock.advance(limiter.wait(SYNC) - 1)
    with pytest.raises(NotAllowedYet):
        call(limiter, clock)


def test_unknown_account_waits_even_if_file_is_valid(path: Path, clock: FakeClock) -> None:
    call(start(path, clock), clock)
    clock.advance(3600)
    limiter = start(path, clock, account="other")
    assert limiter.wait(SYNC) == UNKNOWN
    assert start(path, clock).wait(SYNC) == 0


def test_changed_number_of_shards_invalidates_the_file(path: Path, clock: FakeClock) -> None:
    call(limiter_of(open_store(path, clock, shard="0/2"), clock), clock)
    clock.advance(60)
    assert limiter_of(open_store(path, clock, shard="0/2"), clock).wait(SYNC) == 0
    assert limiter_of(open_store(path, clock, shard="0/3"), clock).wait(SYNC) == UNKNOWN


def test_shards_on_one_file_wait_once(path: Path, clock: FakeClock) -> None:
    shards = [open_store(path, clock, shard=shard) for shard in ("0/2", "1/2", "0/1")]
    limiters = [limiter_of(store, clock, f"account {number}") for number, store in enumerate(shards)]
    for limiter in [*limiters, *limiters]:
        clock.advance(UNKNOWN)
        call(limiter, clock)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda path, clock: None, None),
        (lambda path, clock: os.utime(path, (1e9, 1e9)), "permissions were changed"),
        (lambda path, clock: os.utime(path, (0, 0)), "a process could not write"),
        (lambda path, clock: clock.reboot(), "before this machine started"),
    ],
    ids=["nothing", "times", "incomplete", "reboot"],
)
def test_invalid_proof_is_logged_with_its_reason(
    path: Path, clock: FakeClock, change: Callable[[Path, FakeClock], None], reason: str | None
) -> None:
    call(start(path, clock), clock)
    change(path, clock)
    with capture_logs() as logs:
        start(path, clock)
    reasons = [line["reason"] for line in logs if "does not prove" in line["event"]]
    assert len(reasons) == (reason is not None)
    assert not reason or reason in reasons[0]


# Clocks


@pytest.mark.parametrize("jump", [-3600.0, 0.0, 365 * 86_400.0])
def test_wall_clock_does_not_matter_within_a_boot(path: Path, clock: FakeClock, jump: float) -> None:
    call(start(path, clock), clock)
    clock.advance(2)
    clock.set_wall(clock.wall() + jump)
    assert start(path, clock).wait(SYNC) == 18.0


@pytest.mark.parametrize("seconds", [0.0, 30.0, 3000.0])
@pytest.mark.parametrize("jump", [-3600.0, 0.0, 365 * 86_400.0])
def test_reboot_waits_for_a_call_and_the_spacing(path: Path, clock: FakeClock, jump: float, seconds: float) -> None:
    store = open_store(path, clock)
    with limiter_of(store, clock).acquire(SYNC, USER):
        clock.advance(1)
    store.close()
    clock.reboot(seconds=seconds)
    clock.set_wall(clock.wall() + jump)
    limiter = start(path, clock)
    assert limiter.wait(SYNC) == UNKNOWN
    clock.advance(limiter.wait(SYNC))
    call(limiter, clock)
    assert limiter.wait(SYNC) == 20.0


def test_reboot_remembers_retry_after_and_requests(path: Path, clock: FakeClock) -> None:
    limiter = start(path, clock)
    call(limiter, clock)
    clock.advance(20)
    fail(limiter, RateLimited("x", account="home", endpoint=SYNC.path, retry_after=1800.0))
    clock.reboot(seconds=100)
    limiter = start(path, clock)
    assert limiter.wait(SYNC) == 1700.0
    assert limiter.remaining() == 348


def test_longer_call_of_another_boot_is_waited_for(path: Path, clock: FakeClock) -> None:
    slow = start(path, clock, policy=RateLimitPolicy(longest_call=61.0))
    with slow.acquire(SYNC, USER):
        clock.reboot(seconds=1)
        assert start(path, clock).wait(SYNC) == 61.0 + 20.0


def test_monotonic_clock_that_went_back_counts_as_reboot(path: Path, clock: FakeClock) -> None:
    call(start(path, clock), clock)
    earlier = FakeClock(monotonic=50.0)
    assert start(path, earlier).wait(SYNC) == UNKNOWN


def test_two_machines_on_one_file_do_not_block_each_other(path: Path, clock: FakeClock) -> None:
    other_clock = FakeClock(monotonic=77.0)
    other_clock.reboot(0.0)
    clocks = (clock, other_clock)
    limiters = [start(path, each) for each in clocks]
    ended, calls = -100.0, 0
    for second in range(600):
        for limiter, each in zip(limiters, clocks, strict=True):
            with suppress(NotAllowedYet), limiter.acquire(SYNC, USER):
                assert second - ended >= 20
                ended, calls = second, calls + 1
            each.advance(1)
    assert calls > 10


# Files without a valid proof


def test_restored_old_copy_is_not_trusted(path: Path, clock: FakeClock) -> None:
    store = open_store(path, clock, copied=60.0)
    call(limiter_of(store, clock), clock)
    store.close()
    clock.advance(60)
    assert start(path, clock).wait(SYNC) == UNKNOWN


def test_restored_old_copy_with_its_mtime_is_not_trusted(path: Path, clock: FakeClock, tmp_path: Path) -> None:
    store = open_store(path, clock, copied=60.0)
    call(limiter_of(store, clock), clock)
    # Programs that copy files can set the modification time, but not the change time.
    os.utime(path, (time.time() - 60.0,) * 2)
    clock.advance(60)
    assert start(path, clock).wait(SYNC) == UNKNOWN


def test_wait_for_an_invalid_proof_survives_restart(path: Path, clock: FakeClock) -> None:
    call(limiter_of(open_store(path, clock, copied=60.0), clock), clock)
    clock.advance(60)
    assert start(path, clock).wait(SYNC) == UNKNOWN
    clock.advance(10)
    assert start(path, clock).wait(SYNC) == UNKNOWN - 10


def test_empty_file_is_not_a_first_start(path: Path, clock: FakeClock) -> None:
    path.parent.mkdir()
    path.touch()
    assert start(path, clock).wait(SYNC) == UNKNOWN


FORMAT_1 = """
CREATE TABLE page (account TEXT PRIMARY KEY, boot TEXT, monotonic REAL, wall REAL, page TEXT) WITHOUT ROWID;
CREATE TABLE kept (account TEXT, endpoint TEXT, kept BLOB, PRIMARY KEY (account, endpoint)) WITHOUT ROWID;
CREATE TABLE ended (well INTEGER NOT NULL);
INSERT INTO ended VALUES (1);
INSERT INTO page VALUES ('home', 'boot-1', 990.0, 1799999990.0, '{"user":"1f","paces":{"my/lock/sync":[1010.0,0]},\
"closed_until":0.0,"sent":[[989.9,"my/lock/sync"]]}');
INSERT INTO kept VALUES ('home', 'my/lock/sync', x'789c');
"""
"""A state file as version 1 wrote it, in WAL mode."""


def test_file_of_an_older_format_is_replaced(path: Path, clock: FakeClock) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.executescript(FORMAT_1)
        database.execute(f"PRAGMA application_id = {module.APPLICATION_ID}")
        database.execute("PRAGMA user_version = 1")
    database.close()
    with capture_logs() as logs:
        store = open_store(path, clock)
        limiter = limiter_of(store, clock)
        assert limiter.wait(SYNC) == UNKNOWN
        clock.advance(UNKNOWN)
        call(limiter, clock)
        assert limiter.wait(SYNC) == 20.0
    replaced, waiting = logs
    assert replaced["event"].startswith("the state file had an older format and was replaced")
    assert (replaced["log_level"], replaced["path"], replaced["old_format"]) == ("info", str(path), 1)
    assert waiting["event"].startswith("the state file does not prove when Tedee was last called")
    assert store.states.is_usable()
    store.close()
    assert [each.name for each in path.parent.iterdir()] == ["state.db"]
    # The next start trusts the new file.
    clock.advance(5)
    assert start(path, clock).wait(SYNC) == 15.0


def test_states_without_newer_fields_are_trusted(path: Path, clock: FakeClock) -> None:
    """Earlier programs of the same format wrote the states of endpoints without `reservation`."""
    store = open_store(path, clock)
    call(limiter_of(store, clock), clock)
    store.close()
    with sqlite3.connect(path) as database:
        (secret,) = database.execute("SELECT secret FROM store").fetchone()
        file = SQLiteFile(path, clock.monotonic)
        file._secret = secret
        for key in store.states._states:
            row_key = file.checksum(key)
            (content,) = database.execute("SELECT state FROM states WHERE key = ?", (row_key,)).fetchone()
            stored = json.loads(content)
            assert len(stored["state"]["endpoints"][SYNC.path]) == 4
            del stored["state"]["endpoints"][SYNC.path][3:]
            older = json.dumps(stored).encode()
            values = (older, file.checksum(key, older), row_key)
            database.execute("UPDATE states SET state = ?, checksum = ? WHERE key = ?", values)
    database.close()
    clock.advance(5)
    assert start(path, clock).wait(SYNC) == 15.0


def test_file_of_a_newer_format_is_not_touched(path: Path, clock: FakeClock) -> None:
    open_store(path, clock).close()
    with sqlite3.connect(path) as database:
        database.execute(f"PRAGMA user_version = {module.FORMAT_VERSION + 1}")
    database.close()
    before = path.read_bytes()
    store = open_store(path, clock)
    limiter = limiter_of(store, clock)
    assert limiter.wait(SYNC) == UNKNOWN
    clock.advance(UNKNOWN)
    call(limiter, clock)
    assert limiter.wait(SYNC) == 20.0
    assert not store.states.is_usable()
    assert path.read_bytes() == before


def assert_not_touched(path: Path, clock: FakeClock) -> None:
    """Check that the limits are in memory, and that the only file of the folder is as before."""
    before, modified = path.read_bytes(), path.stat().st_mtime
    store = open_store(path, clock)
    limiter = limiter_of(store, clock)
    assert limiter.wait(SYNC) == UNKNOWN
    clock.advance(UNKNOWN)
    call(limiter, clock)
    assert not store.states.is_usable()
    assert (path.read_bytes(), path.stat().st_mtime) == (before, modified)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_database_of_another_program_is_not_touched(path: Path, clock: FakeClock, mode: str) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as database:
        database.execute(f"PRAGMA journal_mode = {mode}")
        database.execute("CREATE TABLE photos (name)")
    database.close()
    assert_not_touched(path, clock)


@pytest.mark.parametrize("name", ["/proc/state.db", "/dev/null/state.db", "a-folder"])
def test_unusable_path_is_not_a_first_start(tmp_path: Path, clock: FakeClock, name: str) -> None:
    (tmp_path / "a-folder").mkdir()
    store = open_store(tmp_path / name, clock)
    limiter = limiter_of(store, clock)
    assert limiter.wait(SYNC) == UNKNOWN
    clock.advance(UNKNOWN)
    call(limiter, clock)
    with pytest.raises(NotAllowedYet):
        call(limiter, clock)
    assert not store.states.is_usable()


def test_damaged_file_is_set_aside(path: Path, clock: FakeClock) -> None:
    path.parent.mkdir()
    path.write_bytes(b"this is no database\0" * 500)
    path.with_name("state.db.broken").write_text("of an earlier damage")
    store = open_store(path, clock)
    assert limiter_of(store, clock).wait(SYNC) == UNKNOWN
    assert path.with_name("state.db.broken").read_text() == "of an earlier damage"
    assert path.with_name("state.db.broken1").read_bytes().startswith(b"this is no database")
    assert store.states.is_usable()


def test_text_file_is_left_unchanged(path: Path, clock: FakeClock) -> None:
    """A configuration or a key whose name was given as that of the state file."""
    path.parent.mkdir()
    path.write_text("accounts:\n  - name: home\n" * 100)
    assert_not_touched(path, clock)


@pytest.mark.parametrize("statement", ["DELETE FROM store", "UPDATE store SET secret = 'text'", "DROP TABLE states"])
def test_file_damaged_while_in_use_is_set_aside(path: Path, clock: FakeClock, statement: str) -> None:
    store = open_store(path, clock)
    limiter = limiter_of(store, clock)
    call(limiter, clock)
    with sqlite3.connect(path) as database:
        database.execute(statement)
    database.close()
    clock.advance(20)
    call(limiter, clock)
    clock.advance(20)
    with pytest.raises(NotAllowedYet):
        # The new file does not prove that no other process made a call.
        call(limiter, clock)
    assert store.states.is_usable()
    assert limiter.wait(SYNC) == UNKNOWN - 20
    assert path.with_name("state.db.broken").exists()


@pytest.mark.parametrize("column", ["stamp", "checksum"])
def test_file_damaged_while_in_use_is_not_trusted(path: Path, clock: FakeClock, column: str) -> None:
    limiter = start(path, clock)
    call(limiter, clock)
    with sqlite3.connect(path) as database:
        database.execute(f"UPDATE store SET {column} = x'00'")
    database.close()
    clock.advance(20)
    with pytest.raises(NotAllowedYet):
        call(limiter, clock)
    assert limiter.wait(SYNC) == UNKNOWN


# Calls that cannot be saved


@contextmanager
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make SQLite refuse to enlarge the file, as if the disk were full."""
    connect = sqlite3.connect

    class Full(sqlite3.Connection):
        def execute(self, statement: str, *values: object) -> sqlite3.Cursor:
            if statement.startswith(("REPLACE", "UPDATE", "CREATE")):
                super().execute("PRAGMA max_page_count = 1")
                super().execute("CREATE TABLE big AS SELECT zeroblob(1000000)")
            return super().execute(statement, *values)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", lambda *args, **kwargs: connect(*args, factory=Full, **kwargs))
        yield


@contextmanager
def disk_full_for(store: OpenStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    store.responses.close()  # type: ignore[attr-defined]
    with full_disk(monkeypatch):
        yield
    store.responses.close()  # type: ignore[attr-defined]


def test_full_disk_is_logged_and_limits_hold_in_memory(
    path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    open_store(path, clock).close()
    with full_disk(monkeypatch):
        store = open_store(path, clock)
        limiter = limiter_of(store, clock)
        assert limiter.wait(SYNC) == UNKNOWN
        clock.advance(UNKNOWN)
        call(limiter, clock)
        assert limiter.wait(SYNC) == 20.0
        assert not store.states.is_usable()
    assert capsys.readouterr().out.count("database or disk is full") == 1


def test_unsaved_states_are_written_when_disk_has_space(
    path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(path, clock)
    limiter = limiter_of(store, clock)
    call(limiter, clock)
    clock.advance(20)
    with disk_full_for(store, monkeypatch):
        call(limiter, clock)
    clock.advance(20)
    with pytest.raises(NotAllowedYet):
        # The file can be used again, but another process may have made a call in the meantime.
        call(limiter, clock)
    clock.advance(limiter.wait(SYNC))
    call(limiter, clock)
    assert store.states.is_usable()
    clock.advance(3)
    limiter = start(path, clock)
    assert limiter.wait(SYNC) == 17.0
    assert limiter.remaining() == 347


def test_unsaved_call_is_written_at_clean_shutdown(
    path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(path, clock)
    limiter = limiter_of(store, clock)
    call(limiter, clock)
    clock.advance(20)
    with disk_full_for(store, monkeypatch):
        call(limiter, clock)
    store.close()
    clock.advance(1)
    assert start(path, clock).remaining() == 348


@pytest.mark.parametrize("second_process", [False, True])
def test_unsaved_call_delays_the_next_start(
    path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, second_process: bool
) -> None:
    store = open_store(path, clock)
    limiter = limiter_of(store, clock)
    call(limiter, clock)
    if second_process:
        # The clean end of a second process proves nothing about the first.
        open_store(path, clock).close()
    clock.advance(60)
    with disk_full_for(store, monkeypatch):
        call(limiter, clock)
    clock.advance(1)
    # The first process is killed, and the disk has room again. In the file, the last call was 62 seconds ago.
    assert start(path, clock).wait(SYNC) == UNKNOWN


def test_unsaved_call_delays_other_processes(path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    stores = [open_store(path, clock) for _ in range(2)]
    one, two = (limiter_of(store, clock) for store in stores)
    call(two, clock)
    clock.advance(20)
    with disk_full_for(stores[0], monkeypatch):
        call(one, clock)
        clock.advance(1)
        with pytest.raises(NotAllowedYet):
            call(two, clock)
        assert two.wait(SYNC) == UNKNOWN


def test_file_that_cannot_be_marked_is_logged(
    path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = open_store(path, clock)
    limiter = limiter_of(store, clock)

    def read_only(*_args: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "utime", read_only)
    with disk_full_for(store, monkeypatch):
        call(limiter, clock)
    assert capsys.readouterr().out.count("neither written nor marked") == 1


def test_file_removed_while_in_use_is_created_again(path: Path, clock: FakeClock) -> None:
    limiter = start(path, clock)
    call(limiter, clock)
    path.unlink()
    clock.advance(20)
    with pytest.raises(NotAllowedYet):
        call(limiter, clock)
    assert limiter.wait(SYNC) == UNKNOWN
    clock.advance(UNKNOWN)
    call(limiter, clock)
    again = start(path, clock)
    assert again.wait(SYNC) == 20.0
    assert again.remaining() == 348


# Several processes


def test_two_processes_share_one_limit(path: Path, clock: FakeClock) -> None:
    one, two = (start(path, clock) for _ in range(2))
    with one.acquire(SYNC, USER):
        with pytest.raises(NotAllowedYet) as refused:
            call(two, clock)
        assert refused.value.by_another
        assert two.wait(SYNC) == 31.0
        clock.advance(1)
    with pytest.raises(NotAllowedYet):
        call(two, clock)
    clock.advance(19)
    with pytest.raises(NotAllowedYet):
        call(two, clock)
    assert two.wait(SYNC) == 1.0
    clock.advance(1)
    call(two, clock)
    with pytest.raises(NotAllowedYet):
        call(one, clock)
    assert two.remaining() == 348


def test_two_accounts_of_a_user_share_one_limit(path: Path, clock: FakeClock) -> None:
    one, two = start(path, clock), start(path, clock, account="house")
    clock.advance(UNKNOWN)
    call(one, clock)
    with pytest.raises(NotAllowedYet):
        call(two, clock)
    clock.advance(20)
    call(two, clock)
    with pytest.raises(NotAllowedYet):
        call(one, clock)


@pytest.mark.parametrize("replaced", [False, True])
def test_removed_file_leads_to_no_early_call(path: Path, clock: FakeClock, replaced: bool) -> None:
    open_store(path, clock, copied=60.0).close()
    old = path.read_bytes()
    one, two = (start(path, clock) for _ in range(2))
    clock.advance(max(one.wait(SYNC), two.wait(SYNC)))
    with one.acquire(SYNC, USER):
        # The second process reads the reservation of this call, and nothing after it.
        with pytest.raises(NotAllowedYet):
            call(two, clock)
        clock.advance(1)
    clock.advance(20)
    call(one, clock)
    ended = clock.monotonic()
    path.unlink()
    if replaced:
        path.write_bytes(old)
    while clock.monotonic() < ended + 19.5:
        for limiter in (two, one):
            with pytest.raises(NotAllowedYet):
                call(limiter, clock)
        clock.advance(0.5)


def test_old_copy_put_in_place_delays_running_processes(path: Path, clock: FakeClock) -> None:
    store = open_store(path, clock, copied=60.0)
    limiter = limiter_of(store, clock)
    clock.advance(60)
    call(limiter, clock)
    old = path.read_bytes()
    for _ in range(3):
        clock.advance(20)
        call(limiter, clock)
    path.write_bytes(old)
    clock.advance(20)
    with pytest.raises(NotAllowedYet):
        call(limiter, clock)
    assert limiter.wait(SYNC) == UNKNOWN
    assert limiter.remaining() == 346


def test_two_processes_share_the_hourly_share(path: Path, clock: FakeClock) -> None:
    policy = RateLimitPolicy(requests_per_hour=30)
    one, two = (start(path, clock, policy=policy) for _ in range(2))
    for limiter in [one, two] * 5:
        call(limiter, clock, DOOR_SENSORS)
    for limiter in (one, two):
        with pytest.raises(NotAllowedYet):
            call(limiter, clock, DOOR_SENSORS)


def test_locked_file_prevents_calls(path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUSY_TIMEOUT", 0.01)
    limiter = start(path, clock)
    with limiter.acquire(SYNC, USER):
        locking = sqlite3.connect(path, isolation_level=None)
        locking.execute("BEGIN IMMEDIATE")
    clock.advance(60)
    with pytest.raises(NotAllowedYet, match="does not release"):
        call(limiter, clock)
    locking.execute("ROLLBACK")
    locking.close()
    clock.advance(0.01)
    call(limiter, clock)
    assert limiter.remaining() == 348


def test_many_accounts_wait_once_for_a_locked_file(
    path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy: list[str] = []

    class Connection(sqlite3.Connection):
        def execute(self, statement: str, *arguments: Any) -> sqlite3.Cursor:
            try:
                return super().execute(statement, *arguments)
            except sqlite3.OperationalError:
                busy.append(statement)
                raise

    connect = sqlite3.connect
    monkeypatch.setattr(module, "BUSY_TIMEOUT", 0.01)
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **more: connect(*args, factory=Connection, **more))
    store = open_store(path, clock)
    limiter_of(store, clock)
    locking = connect(path, isolation_level=None)
    locking.execute("BEGIN IMMEDIATE")
    for number in range(40):
        limiter_of(store, clock, f"account {number}")
        store.responses.cached_response(f"account {number}", SYNC.path, "credential")
    assert len(busy) == 1
    locking.close()


# Cached responses


def response(clock: FakeClock, **changes: object) -> CachedResponse:
    return CachedResponse([b'{"id": 1}'], Instant.now(clock), **changes)  # type: ignore[arg-type]


def test_second_process_reads_cached_response_of_first(path: Path, clock: FakeClock) -> None:
    one, two = (open_store(path, clock) for _ in range(2))
    failure = Failure("server", "it broke \ud83d", 5.0)
    rows = [b'{"id": 1, "odd": NaN}', b"\xff\r\0"]
    cached = CachedResponse(rows, Instant.now(clock), failure, {1: None, 2: 7}, (1, 2**52))
    one.responses.store_response("home", SYNC.path, "key 1", cached)
    assert two.responses.cached_response("home", SYNC.path, "key 1") == cached
    assert two.responses.cached_response("home", DEVICES.path, "key 1") is None
    assert two.responses.cached_response("house", SYNC.path, "key 1") is None


def test_response_for_another_credential_is_not_returned(path: Path, clock: FakeClock) -> None:
    store = open_store(path, clock)
    store.responses.store_response("home", SYNC.path, "key 1", response(clock))
    assert store.responses.cached_response("home", SYNC.path, "key 2") is None


@pytest.mark.parametrize("rows", [None, [], [b""], [b'{"id": %d}' % number for number in range(2_500)]])
def test_response_of_any_length_is_returned_unchanged(path: Path, clock: FakeClock, rows: list[bytes] | None) -> None:
    cached = CachedResponse(rows, Instant.now(clock))
    open_store(path, clock).responses.store_response("home", SYNC.path, "key", cached)
    assert open_store(path, clock).responses.cached_response("home", SYNC.path, "key") == cached


def test_row_of_several_lines_is_stored_as_one(path: Path, clock: FakeClock) -> None:
    store = open_store(path, clock)
    store.responses.store_response(
        "home", SYNC.path, "key", CachedResponse([b'{\n  "id": 1\n}', b"[\n]"], Instant.now(clock))
    )
    cached = store.responses.cached_response("home", SYNC.path, "key")
    assert cached
    assert cached.rows == [b'{   "id": 1 }', b"[ ]"]


@pytest.mark.parametrize(
    "change", ["account = 'house'", "endpoint = 'x'", "response = response || x'00'", "checksum = x''"]
)
def test_changed_response_is_not_returned(path: Path, clock: FakeClock, change: str) -> None:
    store = open_store(path, clock)
    store.responses.store_response("home", SYNC.path, "key", response(clock))
    with sqlite3.connect(path) as database:
        database.execute(f"UPDATE responses SET {change}")
    database.close()
    assert store.responses.cached_response("home", SYNC.path, "key") is None
    assert store.responses.cached_response("house", SYNC.path, "key") is None


def test_responses_of_removed_accounts_are_deleted(path: Path, clock: FakeClock) -> None:
    store = open_store(path, clock)
    for account in ("old-tenant", "home"):
        limiter_of(store, clock, account)
        store.responses.store_response(
            account, SYNC.path, "key", CachedResponse([b'{"name": "Room of %b"}' % account.encode()])
        )
        store.responses.store_response(
            account, DEVICES.path, "key", response(clock, failure=Failure("server", f"secret of {account}", 1.0))
        )
    store.responses.delete_other_accounts(["home"])
    store.close()
    content = path.read_bytes()
    assert b"home" in content
    assert b"tenant" not in content
    assert store.responses.cached_response("home", DEVICES.path, "key")


def test_expired_states_are_deleted(path: Path, clock: FakeClock) -> None:
    store = open_store(path, clock)
    limiter = limiter_of(store, clock)
    for number in range(50):
        limiter.set_user(f"key {number}")
        clock.advance(limiter.wait(SYNC))
        call(limiter, clock, user=f"key {number}")
    clock.advance(3 * 3600)
    call(limiter, clock, user="key 49")
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT count(*) FROM states").fetchone() == (2,)
    database.close()


# Random histories

EVENTS = [
    "call",
    "call",
    "call",
    "fail",
    "limited",
    "advance",
    "kill",
    "close",
    "reboot",
    "spring",
    "fall",
    "rename",
    "rotate",
]


@settings(max_examples=100)
@given(st.lists(st.tuples(st.sampled_from(EVENTS), st.floats(0, 40)), min_size=20, max_size=60))
def test_random_history_never_shortens_the_spacing(
    tmp_path_factory: pytest.TempPathFactory, history: list[tuple[str, float]]
) -> None:
    clock = FakeClock()
    path = tmp_path_factory.mktemp("history") / "state.db"
    store = open_store(path, clock)
    account, user = "home", "key 0"
    limiter = limiter_of(store, clock, account)
    true_time, ended = 0.0, -100.0

    def advance(seconds: float) -> None:
        nonlocal true_time
        clock.advance(seconds)
        true_time += seconds

    for event, amount in history:
        match event:
            case "call" | "fail" | "limited":
                with suppress(NotAllowedYet, CallError), limiter.acquire(SYNC, user):
                    assert true_time - ended >= 20.0
                    advance(min(amount, LONGEST_CALL))
                    ended = true_time
                    if event == "fail":
                        raise ServerFailed("x", account="home", endpoint=SYNC.path)
                    if event == "limited":
                        raise RateLimited("x", account="home", endpoint=SYNC.path, retry_after=amount)
            case "advance":
                advance(amount)
            case "reboot":
                clock.reboot(amount)
                true_time += amount
            case "spring":
                clock.set_wall(clock.wall() + 365 * 86_400)
            case "fall":
                clock.set_wall(clock.wall() - 3600)
            case "close":
                store.close()
            case "rename":
                account = f"home {int(amount)}"
            case "rotate":
                user = f"key {int(amount) % 3}"
        if event in {"kill", "close", "reboot", "rename"}:
            store = open_store(path, clock)
            limiter = limiter_of(store, clock, account)


def test_folder_has_only_the_state_file(path: Path, clock: FakeClock) -> None:
    store = open_store(path, clock)
    with limiter_of(store, clock).acquire(SYNC, USER):
        assert [each.name for each in path.parent.iterdir()] == ["state.db"]
    assert all(stat.S_IMODE(each.stat().st_mode) & 0o077 == 0 for each in path.parent.iterdir())
    store.close()
    assert [each.name for each in path.parent.iterdir()] == ["state.db"]


CLOSED_DURING_TRANSACTIONS = """
import sys, threading, time
from pathlib import Path
from exporter.clock import SystemClock
from exporter.state.responses import CachedResponse
from exporter.state.sqlite import SQLiteStateStore

sys.setswitchinterval(1e-5)
response = CachedResponse(rows=[b'{"id": 1}' * 50] * 200)
for number in range(40):
    store = SQLiteStateStore(Path(sys.argv[1], f"{number}.db"), SystemClock(), longest_call=11.0)
    stopped = threading.Event()

    def work():
        while not stopped.is_set():
            store.store_response(threading.current_thread().name, "endpoint", "fingerprint", response)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.02)
    store.close()
    stopped.set()
    for thread in threads:
        thread.join()
"""


def test_file_can_be_closed_while_other_threads_use_it(tmp_path: Path) -> None:
    """Python crashes if a connection is closed while another thread uses it."""
    code = [sys.executable, "-c", CLOSED_DURING_TRANSACTIONS, str(tmp_path)]
    ended = subprocess.run(code, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


# A process that is stopped during its call


@pytest.mark.parametrize("succeeds", [True, False])
def test_late_end_of_a_call_does_not_shorten_the_next_reservation(path: Path, clock: FakeClock, succeeds: bool) -> None:
    stopped, other = start(path, clock), start(path, clock)
    # The process is stopped (SIGSTOP), and continues during the call of another one.
    with suppress(ServerFailed), stopped.acquire(SYNC, USER):
        clock.advance(LONGEST_CALL + 20.0)
        second = other.acquire(SYNC, USER)
        second.__enter__()
        clock.advance(1)
        if not succeeds:
            raise ServerFailed("", account="home", endpoint=SYNC.path)
    # The process of the second call is killed. Tedee may be responding until its time-out.
    assert start(path, clock).wait(SYNC) == LONGEST_CALL + 20.0 - 1.0
    assert stopped.wait(SYNC) >= LONGEST_CALL + 20.0 - 1.0


def test_end_of_a_call_after_that_of_a_late_one_counts(path: Path, clock: FakeClock) -> None:
    stopped, other = start(path, clock), start(path, clock)
    with stopped.acquire(SYNC, USER):
        clock.advance(LONGEST_CALL + 20.0)
        second = other.acquire(SYNC, USER)
        second.__enter__()
        clock.advance(1)
    clock.advance(2)
    second.__exit__(None, None, None)
    assert start(path, clock).wait(SYNC) == 20.0
