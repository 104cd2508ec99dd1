"""Restarts and several processes: responses are loaded from the store, and two processes make the calls of one."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import responses
from structlog.testing import capture_logs

from exporter.secrets import Secret
from exporter.sync.lock_filter import LockFilter
from exporter.sync.resource import ResourceOptions
from testing.clock import FakeClock
from testing.stores import open_store
from tests.cloud import Recorder, Tedee, account_sync, detailed, run_for, synced


@pytest.fixture
def tedee() -> Iterator[Tedee]:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        tedee = Tedee(mock)
        tedee.has(synced(1), synced(2, state=2))
        tedee.details = [detailed(1, "Front door"), detailed(2, "Cellar")]
        yield tedee


@pytest.fixture
def start(tmp_path: Path, clock: FakeClock) -> Callable[..., "Process"]:
    return lambda **options: Process(tmp_path / "state.db", clock, **options)


class Process:
    """One run of the exporter with one account."""

    def __init__(self, path: Path, clock: FakeClock, **options: object) -> None:
        self.store = open_store(path, clock)
        self.published = Recorder()
        self._clock = clock
        self.account = account_sync(clock, self.published, store=self.store, **options)  # type: ignore[arg-type]
        self.published(self.account.status())

    def run_due(self) -> None:
        """Make the calls that are due now: a sync, and both fetches of devices."""
        run_for(self.account, self._clock, 0)

    def states(self) -> dict[str, int | None]:
        snapshot = self.published.last.snapshot
        assert snapshot
        return {lock.label: lock.synced.device_state.state for lock in snapshot.locks if lock.synced.device_state}


Start = Callable[..., Process]


@pytest.mark.parametrize("end", ["close", "kill"])
def test_restart_serves_last_result_with_true_age(tedee: Tedee, start: Start, clock: FakeClock, end: str) -> None:
    first = start()
    first.run_due()
    synced_at = clock.wall()
    if end == "close":
        first.store.close()
    clock.advance(12)
    second = start()
    assert second.states() == {"Front door": 6, "Cellar": 2}
    status = second.published.last
    assert status.snapshot
    assert status.snapshot.at == synced_at
    assert status.snapshot.fresh_until == clock.monotonic() + 300 - 12
    assert status.up is True
    assert status.next_sync == clock.wall() + 8
    assert tedee.endpoints().count("sync") == 1


def test_first_sync_of_another_process_is_logged_once(tedee: Tedee, start: Start, clock: FakeClock) -> None:
    leader, follower = start(), start()
    leader.run_due()
    with capture_logs() as logs:
        for _ in range(3):
            clock.advance(2)
            follower.run_due()
            clock.advance(18)
            leader.run_due()
    lines = [(line["event"], line.get("locks")) for line in logs if line["log_level"] == "info"]
    assert lines == [("first sync of another process is served", 2)]
    assert tedee.endpoints().count("sync") == 4


def test_restart_does_not_fetch_devices(tedee: Tedee, start: Start, clock: FakeClock) -> None:
    for _ in range(5):
        process = start()
        run_for(process.account, clock, 60)
        process.store.close()
    assert process.states() == {"Front door": 6, "Cellar": 2}
    assert tedee.endpoints().count("details") == 1
    assert tedee.endpoints().count("door_sensors") == 1


def test_stale_result_is_not_served_after_restart(tedee: Tedee, start: Start, clock: FakeClock) -> None:
    first = start()
    first.run_due()
    clock.advance(300)
    status = start().published.last
    assert status.snapshot is None
    assert status.up is None


@pytest.mark.parametrize("jump", [0.0, -55.0, -3600.0, 365 * 86_400.0])
def test_states_are_not_served_after_reboot_before_sync(
    tedee: Tedee, start: Start, clock: FakeClock, jump: float
) -> None:
    start().run_due()
    clock.reboot(seconds=60)
    clock.set_wall(clock.wall() + jump)
    process = start()
    assert process.published.last.snapshot is None
    run_for(process.account, clock, 40)
    assert process.states() == {"Front door": 6, "Cellar": 2}
    assert tedee.endpoints().count("details") == 2  # the age of the devices is unknown


def test_wall_clock_jump_does_not_change_ages(tedee: Tedee, start: Start, clock: FakeClock) -> None:
    start().run_due()
    clock.advance(10)
    clock.set_wall(clock.wall() + 86_400)
    snapshot = start().published.last.snapshot
    assert snapshot
    assert snapshot.fresh_until == clock.monotonic() + 290
    assert clock.wall() - snapshot.at == pytest.approx(10)


def test_failure_is_reported_after_restart(tedee: Tedee, start: Start, clock: FakeClock) -> None:
    first = start()
    first.run_due()
    tedee.sync_status = 503
    run_for(first.account, clock, 20)
    status = start().published.last
    assert status.up is False
    assert status.failure
    assert "503" in status.failure.message
    assert status.snapshot


def test_follower_gets_new_names_after_reboot(tedee: Tedee, start: Start, clock: FakeClock) -> None:
    start().run_due()
    clock.reboot(seconds=60)
    leader, follower = start(), start()
    tedee.has(synced(1, revision=2), synced(2, state=2))
    tedee.details = [detailed(1, "Main entrance"), detailed(2, "Cellar")]
    run_for(leader.account, clock, 60)
    run_for(follower.account, clock, 5)
    assert follower.states() == {"Main entrance": 6, "Cellar": 2}


def test_failure_is_reported_after_restart_with_stale_data(tedee: Tedee, start: Start, clock: FakeClock) -> None:
    first = start()
    first.run_due()
    tedee.sync_status = 503
    run_for(first.account, clock, 400)
    status = start().published.last
    assert status.up is False
    assert status.failure
    assert status.snapshot is None


def test_failure_is_reported_after_restart_without_data(tedee: Tedee, start: Start, clock: FakeClock) -> None:
    tedee.sync_status = 503
    start().run_due()
    status = start().published.last
    assert status.up is False
    assert status.failure


def test_failure_without_data_is_reported_by_followers(tedee: Tedee, start: Start, clock: FakeClock) -> None:
    leader, follower = start(), start()
    tedee.sync_status = 401
    leader.run_due()
    run_for(follower.account, clock, 5)
    assert follower.published.last.up is False
    assert follower.published.last.failure == leader.published.last.failure


def test_changed_key_is_used_soon_after_restart(tedee: Tedee, start: Start, clock: FakeClock, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("wrong-key")
    tedee.wrong_keys = {"wrong-key"}
    first = start(key=file)
    run_for(first.account, clock, 150)
    second = start(key=file)
    file.write_text("right-key")
    run_for(second.account, clock, 60)
    assert second.states() == {"Front door": 6, "Cellar": 2}


def test_unselected_locks_are_not_served_after_restart(tedee: Tedee, start: Start, clock: FakeClock) -> None:
    start().run_due()
    assert start(lock_filter=LockFilter(ids=(2,))).states() == {"Cellar": 2}


FilterChange = tuple[LockFilter, LockFilter, dict[str, int] | None]

FILTER_CHANGES: list[FilterChange] = [
    (LockFilter(), LockFilter(ids=(2,)), {"Cellar": 2}),
    (LockFilter(ids=(1, 2)), LockFilter(ids=(2,)), {"Cellar": 2}),
    (LockFilter(ids=(1, 2)), LockFilter(serial_numbers=("111111-00002",)), {"Cellar": 2}),
    (LockFilter(ids=(1,)), LockFilter(ids=(2,)), None),
    (LockFilter(ids=(1,)), LockFilter(ids=(1, 2)), None),
    (LockFilter(ids=(1,)), LockFilter(), None),
    (LockFilter(serial_numbers=("111111-00001",)), LockFilter(), None),
    (LockFilter(ids=(1,)), LockFilter(serial_numbers=("111111-00002",)), None),
    (LockFilter(), LockFilter(serial_numbers=("000000-00000",)), None),
]
"""Old and new lock filter, and the states of the new filter's locks in a response for the old one. None if the response
lacks some of them."""


@pytest.mark.parametrize("change", FILTER_CHANGES)
def test_restart_with_other_filter_serves_complete_data_only(
    tedee: Tedee, start: Start, clock: FakeClock, change: FilterChange
) -> None:
    before, after, served = change
    start(lock_filter=before).run_due()
    clock.advance(5)
    process = start(lock_filter=after)
    status = process.published.last
    assert (process.states() if status.snapshot else None) == served
    assert status.up is (None if served is None else True)


@pytest.mark.parametrize("change", FILTER_CHANGES)
def test_reload_with_other_filter_serves_complete_data_only(
    tedee: Tedee, start: Start, clock: FakeClock, change: FilterChange
) -> None:
    before, after, served = change
    process = start(lock_filter=before)
    run_for(process.account, clock, 5)
    account = process.account
    account.configure(replace(account._options, resources=ResourceOptions(300.0, after)))
    account.run()
    status = process.published.last
    assert (process.states() if status.snapshot else None) == served
    assert status.up is (None if served is None else True)


def test_unresolved_serial_number_has_no_cached_response(tedee: Tedee, start: Start, clock: FakeClock) -> None:
    tedee.details_status = 500
    start().run_due()
    clock.advance(5)
    status = start(lock_filter=LockFilter(serial_numbers=("111111-00002",))).published.last
    assert (status.up, status.snapshot) == (None, None)


def test_follower_ignores_responses_for_other_locks(tedee: Tedee, start: Start, clock: FakeClock) -> None:
    one, two = start(lock_filter=LockFilter(ids=(1,))), start(lock_filter=LockFilter(ids=(2,)))
    clock.advance(20)
    tedee.has(synced(1))
    one.run_due()
    two.account.run()
    assert two.published.last.snapshot is None
    tedee.has(synced(2, state=2))
    clock.advance(20)
    two.run_due()
    one.account.run()
    assert one.states() == {"Front door": 6}
    assert two.states() == {"Cellar": 2}


def test_two_processes_share_calls_and_results(tedee: Tedee, start: Start, clock: FakeClock) -> None:
    processes = [start(), start()]
    clock.advance(20)
    started = clock.monotonic()
    for second in range(300):
        tedee.has(synced(1, state=second % 7), synced(2))
        for process in processes:
            process.account.run()
        clock.advance(1)
    assert tedee.endpoints().count("sync") == 15
    assert tedee.endpoints().count("details") == 1
    one, two = processes
    for process in processes:
        process.account.run()
    assert one.states() == two.states()
    assert clock.monotonic() - started == 300


def test_follower_takes_over_when_leader_ends(tedee: Tedee, start: Start, clock: FakeClock) -> None:
    one, two = start(), start()
    clock.advance(20)
    one.run_due()
    two.account.run()
    one.store.close()
    before = tedee.endpoints().count("sync")
    for _ in range(100):
        clock.advance(1)
        two.account.run()
    assert tedee.endpoints().count("sync") - before == 5


def test_follower_reports_failure_of_leader(tedee: Tedee, start: Start, clock: FakeClock) -> None:
    one, two = start(), start()
    clock.advance(20)
    one.run_due()
    two.account.run()
    tedee.sync_status = 401
    clock.advance(20)
    one.run_due()
    two.account.run()
    assert two.published.last.up is False
    assert two.published.last.failure == one.published.last.failure
    assert two.published.last.failures["auth"] == 0


def test_locks_of_previous_user_are_not_served(tedee: Tedee, start: Start, clock: FakeClock) -> None:
    start().run_due()
    clock.advance(5)
    other = start(key=Secret("key-of-another-user"))
    assert other.published.last.snapshot is None
    assert other.account.wait() == 30
