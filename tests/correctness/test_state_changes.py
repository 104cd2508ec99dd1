"""State changes of locks are counted once each, over failures, reloads, restarts and in several processes."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from exporter.secrets import Secret
from exporter.sync import state_changes as module
from exporter.sync.account import AccountSync
from exporter.sync.lock_filter import LockFilter
from exporter.sync.resource import ResourceOptions
from exporter.sync.snapshot import AccountStatus
from exporter.sync.state_changes import StateChanges
from exporter.tedee.models import DeviceState, SyncedLock
from exporter.tedee.rows import Timestamp
from testing.clock import FakeClock
from testing.stores import open_store
from tests.cloud import KEY, Recorder, Tedee, account_sync, client, detailed, envelope, run_for, synced

DATE, NEXT_DATE, LAST_DATE = "2026-11-27T08:00:00.197Z", "2026-11-27T08:00:00.198Z", "2026-11-27T09:00:00Z"


def lock_with_date(lock_id: int, date: float | None) -> SyncedLock:
    return SyncedLock(lock_id, True, DeviceState(last_state_changed_date=None if date is None else Timestamp(date)))


# The counts of a sequence of dates


@pytest.mark.parametrize(
    ("dates", "expected"),
    [
        ([], None),
        ([None], None),
        ([100.0], 0),
        ([100.0, 100.0, 100.0], 0),
        ([100.0, 100.001], 1),
        ([100.0, 300.0, 300.0, 400.0], 2),
        ([None, 100.0], 0),
        ([100.0, None], 0),
        ([100.0, None, 100.0], 0),
        ([100.0, None, None, 200.0], 1),
        ([200.0, 100.0], 0),
        ([200.0, 100.0, 100.0, 150.0], 1),
        ([4e9, 100.0, 200.0, 300.0], 2),
        ([0.0, 1.0], 1),
    ],
)
def test_change_is_a_later_date_than_the_previous_one(dates: Sequence[float | None], expected: int | None) -> None:
    changes = StateChanges()
    for date in dates:
        changes.update([lock_with_date(1, date)])
    assert changes.counts.get(1) == expected


def test_lock_without_state_keeps_its_count() -> None:
    changes = StateChanges()
    changes.update([lock_with_date(1, 100.0)])
    changes.update([lock_with_date(1, 200.0)])
    changes.update([SyncedLock(1, False, None)])
    assert changes.counts.get(1) == 1
    changes.update([lock_with_date(1, 300.0)])
    assert changes.counts.get(1) == 2


def test_locks_are_counted_separately() -> None:
    changes = StateChanges()
    changes.update([lock_with_date(1, 100.0), lock_with_date(2, 100.0)])
    changes.update([lock_with_date(1, 100.0), lock_with_date(2, 200.0), lock_with_date(3, 200.0)])
    assert [changes.counts.get(lock_id) for lock_id in (1, 2, 3, 4)] == [0, 1, 0, None]


def test_absent_locks_keep_their_counts_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ABSENT_LOCKS", 3)
    changes = StateChanges()
    for date in (100.0, 200.0):
        changes.update([lock_with_date(lock_id, date) for lock_id in range(4)])
    changes.update([lock_with_date(0, 200.0)])
    assert [changes.counts.get(lock_id) for lock_id in range(4)] == [1, 1, 1, 1]
    changes.update([lock_with_date(4, 200.0)])
    assert [changes.counts.get(lock_id) for lock_id in range(5)] == [None, None, None, None, 0]


def test_new_locks_in_each_response_use_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ABSENT_LOCKS", 100)
    changes = StateChanges()
    for date in range(1_000):
        changes.update([lock_with_date(lock_id, date) for lock_id in (0, 1 + date // 2)])
    assert len(changes._dates) <= 102
    assert len(changes.counts) <= 102
    assert changes.counts.get(0) == 999


# The counts of an account


def counts(status: AccountStatus) -> dict[int, int | None] | None:
    return {lock.id: lock.state_changes for lock in status.snapshot.locks} if status.snapshot else None


def sync(account: AccountSync, clock: FakeClock) -> None:
    """Run the account for the next sync, and for other calls that are due then."""
    run_for(account, clock, 20)


def locked(lock_id: int, date: str) -> dict[str, object]:
    return synced(lock_id, lastStateChangedDate=date)


def test_changes_between_two_syncs_count_as_one(tedee: Tedee, published: Recorder, clock: FakeClock) -> None:
    account = account_sync(clock, published)
    for date, expected in ((DATE, 0), (DATE, 0), (NEXT_DATE, 1), (LAST_DATE, 2)):
        tedee.has(locked(1, date))
        sync(account, clock)
        assert counts(published.last) == {1: expected}


def test_lock_without_a_date_has_no_count(tedee: Tedee, published: Recorder, clock: FakeClock) -> None:
    tedee.has(locked(1, "junk"), synced(2, connected=False), synced(3, connected=None) | {"deviceState": None})
    sync(account_sync(clock, published), clock)
    assert counts(published.last) == {1: None, 2: None, 3: None}


def test_change_of_an_offline_lock_is_counted_later(tedee: Tedee, published: Recorder, clock: FakeClock) -> None:
    account = account_sync(clock, published)
    rows = [locked(1, DATE), synced(1, connected=False), locked(1, NEXT_DATE)]
    for row, expected in zip(rows, (0, 0, 1), strict=True):
        tedee.has(row)
        sync(account, clock)
        assert counts(published.last) == {1: expected}


def test_lock_that_returns_continues_its_count(tedee: Tedee, published: Recorder, clock: FakeClock) -> None:
    account = account_sync(clock, published)
    for rows in ([locked(1, DATE)], [locked(1, NEXT_DATE)], [], [locked(2, DATE)], [locked(1, LAST_DATE)]):
        tedee.has(*rows)
        sync(account, clock)
    assert counts(published.last) == {1: 2}


def test_stale_lock_has_no_count_and_continues_it(tedee: Tedee, published: Recorder, clock: FakeClock) -> None:
    account = account_sync(clock, published)
    for date in (DATE, NEXT_DATE):
        tedee.has(locked(1, date))
        sync(account, clock)
    tedee.sync_status = 500
    run_for(account, clock, 3600)
    assert counts(published.last.as_of(clock.monotonic())) == {}
    tedee.sync_status = 200
    tedee.has(locked(1, LAST_DATE))
    run_for(account, clock, 600)
    assert counts(published.last.as_of(clock.monotonic())) == {1: 2}


def test_contradictory_lock_is_not_counted(tedee: Tedee, published: Recorder, clock: FakeClock) -> None:
    account = account_sync(clock, published)
    for rows in ([locked(1, DATE)], [locked(1, DATE), locked(1, LAST_DATE)], [locked(1, DATE)]):
        tedee.sync = envelope(rows)
        sync(account, clock)
    assert counts(published.last) == {1: 0}


# Reloads, restarts and several processes


def test_counts_continue_over_a_reload(tedee: Tedee, published: Recorder, clock: FakeClock) -> None:
    account = account_sync(clock, published)
    for date in (DATE, NEXT_DATE):
        tedee.has(locked(1, date), locked(2, date))
        sync(account, clock)
    for lock_filter in (LockFilter((2,)), LockFilter()):
        account.configure(replace(account._options, resources=ResourceOptions(300.0, lock_filter)))
        sync(account, clock)
    assert counts(published.last) == {1: 1, 2: 1}


def test_counts_continue_with_another_key(tedee: Tedee, published: Recorder, clock: FakeClock) -> None:
    account = account_sync(clock, published)
    for date in (DATE, NEXT_DATE):
        tedee.has(locked(1, date))
        sync(account, clock)
    with_another_key = replace(account._options, create_client=lambda **parts: client("home", Secret("new"), **parts))
    account.configure(with_another_key)
    tedee.has(locked(1, LAST_DATE), locked(2, LAST_DATE))
    run_for(account, clock, 120)
    assert tedee.keys[0] == KEY
    assert tedee.keys[-1] == "new"
    assert counts(published.last) == {1: 2, 2: 0}


class Process:
    """One run of the exporter with one account."""

    def __init__(self, path: Path, clock: FakeClock) -> None:
        self.store = open_store(path, clock)
        self.published = Recorder()
        self.account = account_sync(clock, self.published, store=self.store)
        self.published(self.account.status())

    def counts(self) -> dict[int, int | None] | None:
        return counts(self.published.last)


@pytest.fixture
def start(tmp_path: Path, clock: FakeClock) -> Callable[[], Process]:
    return lambda: Process(tmp_path / "state.db", clock)


Start = Callable[[], Process]


@pytest.mark.parametrize("end", ["close", "kill"])
def test_change_during_a_restart_is_counted(tedee: Tedee, start: Start, clock: FakeClock, end: str) -> None:
    first = start()
    for date in (DATE, NEXT_DATE):
        tedee.has(locked(1, date), locked(2, DATE))
        sync(first.account, clock)
    assert first.counts() == {1: 1, 2: 0}
    if end == "close":
        first.store.close()
    tedee.has(locked(1, LAST_DATE), locked(2, DATE))
    second = start()
    assert second.counts() == {1: 0, 2: 0}
    run_for(second.account, clock, 60)
    assert second.counts() == {1: 1, 2: 0}


def test_change_before_a_late_restart_is_not_counted(tedee: Tedee, start: Start, clock: FakeClock) -> None:
    first = start()
    tedee.has(locked(1, DATE))
    sync(first.account, clock)
    first.store.close()
    clock.advance(300)
    tedee.has(locked(1, NEXT_DATE))
    second = start()
    assert second.counts() is None
    run_for(second.account, clock, 60)
    assert second.counts() == {1: 0}


def test_follower_counts_the_changes_of_the_leader(tedee: Tedee, start: Start, clock: FakeClock) -> None:
    tedee.details = [detailed(1, "Front door")]
    leader, follower = start(), start()
    for date in (DATE, DATE, NEXT_DATE, LAST_DATE):
        tedee.has(locked(1, date))
        for _ in range(20):
            clock.advance(1)
            leader.account.run()
            follower.account.run()
    assert leader.counts() == follower.counts() == {1: 2}
    assert follower.published.last.durations.counts == (0,) * 9


def test_failure_of_the_leader_is_no_change(tedee: Tedee, start: Start, clock: FakeClock) -> None:
    leader, follower = start(), start()
    for date, code in ((DATE, 200), (NEXT_DATE, 200), (NEXT_DATE, 500), (NEXT_DATE, 200)):
        tedee.has(locked(1, date))
        tedee.sync_status = code
        for _ in range(60):
            clock.advance(1)
            leader.account.run()
            follower.account.run()
    assert leader.counts() == follower.counts() == {1: 1}
