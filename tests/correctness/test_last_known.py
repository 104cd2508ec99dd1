"""The last known state of a lock that is offline is that of the last response in which it was connected."""

from dataclasses import replace
from pathlib import Path

from exporter.secrets import Secret
from exporter.sync.account import AccountSync
from exporter.sync.snapshot import AccountStatus
from exporter.tedee.models import LockState
from testing.clock import FakeClock
from testing.stores import open_store
from tests.cloud import Recorder, Tedee, account_sync, client, run_for, synced


def last_known(status: AccountStatus, clock: FakeClock) -> dict[int, tuple[int | None, int] | None]:
    """Return the last known state of each lock, and its age in seconds."""
    assert status.snapshot
    known = {lock.id: lock.last_known for lock in status.snapshot.locks}
    return {
        lock_id: (each.state.state, round(clock.monotonic() - each.seen_at)) if each else None
        for lock_id, each in known.items()
    }


def sync(account: AccountSync, clock: FakeClock) -> None:
    run_for(account, clock, 20)


OFFLINE = synced(1, connected=False)


def test_offline_lock_has_the_state_it_was_last_seen_with(tedee: Tedee, published: Recorder, clock: FakeClock) -> None:
    account = account_sync(clock, published)
    for row, expected in [
        (synced(1, state=2), None),
        (synced(1, state=6), None),
        (OFFLINE, (LockState.LOCKED, 20)),
        (OFFLINE, (LockState.LOCKED, 40)),
        (synced(1, state=2), None),
        (OFFLINE, (LockState.UNLOCKED, 20)),
    ]:
        tedee.has(row)
        sync(account, clock)
        assert last_known(published.last, clock) == {1: expected}


def test_lock_that_was_never_connected_has_none(tedee: Tedee, published: Recorder, clock: FakeClock) -> None:
    account = account_sync(clock, published)
    for rows in ([OFFLINE, synced(2, connected=None)], [OFFLINE, synced(2, connected=False) | {"deviceState": {}}]):
        tedee.has(*rows)
        sync(account, clock)
    assert last_known(published.last, clock)[1] is None


def test_failed_syncs_do_not_change_the_age(tedee: Tedee, published: Recorder, clock: FakeClock) -> None:
    account = account_sync(clock, published)
    tedee.has(synced(1))
    sync(account, clock)
    tedee.sync_status = 500
    run_for(account, clock, 3_600)
    tedee.sync_status = 200
    tedee.has(OFFLINE)
    run_for(account, clock, 600)
    state, age = last_known(published.last, clock)[1] or (None, 0)
    assert state == LockState.LOCKED
    assert age >= 3_600


def test_restart_knows_the_stored_state(tedee: Tedee, clock: FakeClock, tmp_path: Path) -> None:
    for row, expected in [(synced(1), None), (OFFLINE, (LockState.LOCKED, 40))]:
        published = Recorder()
        store = open_store(tmp_path / "state.sqlite", clock)
        account = account_sync(clock, published, store=store)
        tedee.has(row)
        clock.advance(20)
        sync(account, clock)
        store.close()
        assert last_known(published.last, clock) == {1: expected}


def test_another_key_forgets_the_state(tedee: Tedee, published: Recorder, clock: FakeClock) -> None:
    account = account_sync(clock, published)
    tedee.has(synced(1))
    sync(account, clock)
    account.configure(replace(account._options, create_client=lambda **parts: client("home", Secret("new"), **parts)))
    tedee.has(OFFLINE)
    run_for(account, clock, 120)
    assert last_known(published.last, clock) == {1: None}
