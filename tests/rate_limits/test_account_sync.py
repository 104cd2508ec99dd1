"""Syncs of one account: when they and the devices are requested, which locks, and the published status."""

import pytest

from exporter.sync.counters import MAX_LOGGED_REJECTIONS
from exporter.sync.lock_filter import LockFilter
from testing.clock import FakeClock
from tests.cloud import KEY, Recorder, Tedee, account_sync, detailed, envelope, run_for, synced


def names(published: Recorder) -> list[str]:
    snapshot = published.last.snapshot
    assert snapshot
    return [lock.label for lock in snapshot.locks]


def test_first_sync_is_published_before_devices(tedee: Tedee, published: Recorder, clock: FakeClock) -> None:
    tedee.has(synced(1))
    tedee.details = [detailed(1, "Front door")]
    run_for(account_sync(clock, published), clock, 1)
    assert tedee.endpoints() == ["sync", "details", "door_sensors"]
    first, second, _ = published.statuses
    assert first.snapshot
    assert second.snapshot
    assert [lock.label for lock in first.snapshot.locks] == ["1"]
    assert [lock.label for lock in second.snapshot.locks] == ["Front door"]


def test_devices_are_fetched_every_10_minutes(tedee: Tedee, published: Recorder, clock: FakeClock) -> None:
    tedee.has(synced(1), synced(2, revision=None))
    tedee.details = [detailed(1, "Front door"), detailed(2, "Cellar")]
    run_for(account_sync(clock, published), clock, 3600)
    assert tedee.endpoints().count("sync") == 181
    assert tedee.endpoints().count("details") == 7
    assert tedee.endpoints().count("door_sensors") == 7
    assert names(published) == ["Front door", "Cellar"]


def test_changed_revision_triggers_fetch_of_devices(tedee: Tedee, published: Recorder, clock: FakeClock) -> None:
    account = account_sync(clock, published)
    tedee.has(synced(1, revision=1))
    tedee.details = [detailed(1, "Front door")]
    run_for(account, clock, 60)
    tedee.has(synced(1, revision=2))
    tedee.details = [detailed(1, "Main entrance")]
    run_for(account, clock, 60)
    assert tedee.endpoints().count("details") == 2
    assert names(published) == ["Main entrance"]


@pytest.mark.parametrize("moment", ["details", "door_sensors"])
def test_lock_renamed_during_fetch_gets_its_new_name(
    tedee: Tedee, published: Recorder, clock: FakeClock, moment: str
) -> None:
    def on_call(endpoint: str) -> None:
        if endpoint == moment:
            tedee.has(synced(1, revision=2), synced(2))
            tedee.details = [detailed(1, "Main entrance"), detailed(2, "Cellar")]

    tedee.on_call = on_call
    tedee.has(synced(1))
    tedee.details = [detailed(1, "Front door")]
    run_for(account_sync(clock, published), clock, 590)
    assert names(published) == ["Main entrance", "Cellar"]
    assert tedee.endpoints().count("details") == 2


def test_lock_renamed_before_first_sync_gets_its_new_name(tedee: Tedee, published: Recorder, clock: FakeClock) -> None:
    def on_call(endpoint: str) -> None:
        if endpoint == "sync":
            tedee.details = [detailed(9, "Main entrance")]

    tedee.on_call = on_call
    tedee.has(synced(9, revision=2))
    tedee.details = [detailed(9, "Front door")]
    run_for(account_sync(clock, published, lock_filter=LockFilter(serial_numbers=("111111-00009",))), clock, 590)
    assert names(published) == ["Main entrance"]
    assert tedee.endpoints().count("details") == 2


def test_new_lock_triggers_fetch_of_devices(tedee: Tedee, published: Recorder, clock: FakeClock) -> None:
    account = account_sync(clock, published)
    tedee.has(synced(1))
    tedee.details = [detailed(1, "Front door")]
    run_for(account, clock, 60)
    tedee.has(synced(1), synced(2))
    tedee.details = [detailed(1, "Front door"), detailed(2, "Cellar")]
    run_for(account, clock, 60)
    assert tedee.endpoints().count("details") == 2
    assert names(published) == ["Front door", "Cellar"]


def test_lock_missing_from_details_is_looked_up_at_the_next_interval(
    tedee: Tedee, published: Recorder, clock: FakeClock
) -> None:
    tedee.has(synced(1))
    account = account_sync(clock, published)
    run_for(account, clock, 3590)
    assert tedee.endpoints().count("details") == 6
    assert names(published) == ["1"]
    tedee.details = [detailed(1, "Front door")]
    run_for(account, clock, 20)
    assert names(published) == ["Front door"]


@pytest.mark.parametrize("events_interval", [None, 60.0])
def test_constantly_changing_revision_does_not_delay_syncs(
    tedee: Tedee, published: Recorder, clock: FakeClock, events_interval: float | None
) -> None:
    """Events use their share before the revisions begin to change."""
    tedee.clock = clock
    locks = range(1, 51)
    tedee.details = [detailed(number, f"Lock {number}") for number in locks]
    tedee.has(*map(synced, locks))
    account = account_sync(clock, published, events_interval=events_interval)
    run_for(account, clock, 300)
    before = tedee.endpoints().count("details")
    for revision in range(2, 2 + 3 * 180):
        tedee.has(*(synced(number, revision=revision) for number in locks))
        run_for(account, clock, 20)
    assert 68 <= tedee.endpoints().count("details") - before <= 72
    assert {*tedee.gaps(KEY)} == {20.0}


def test_rate_limited_devices_do_not_delay_syncs(tedee: Tedee, published: Recorder, clock: FakeClock) -> None:
    tedee.has(synced(1))
    tedee.details_status, tedee.details_headers = 429, {"Retry-After": "600"}
    run_for(account_sync(clock, published), clock, 590)
    assert tedee.endpoints().count("sync") == 30
    assert tedee.endpoints().count("details") == 1
    assert tedee.endpoints().count("door_sensors") == 1


def test_failing_devices_back_off_and_do_not_affect_syncs(tedee: Tedee, published: Recorder, clock: FakeClock) -> None:
    account = account_sync(clock, published)
    tedee.has(synced(1))
    tedee.details_status = 500
    run_for(account, clock, 3600)
    assert tedee.endpoints().count("sync") == 181
    assert 12 <= tedee.endpoints().count("details") <= 18
    assert tedee.endpoints().count("door_sensors") == 7
    assert published.last.up
    assert published.last.other_resources[0].failure
    assert published.last.failures["server"] == 0
    tedee.details_status = 200
    tedee.details = [detailed(1, "Front door")]
    run_for(account, clock, 320)
    assert names(published) == ["Front door"]
    assert published.last.other_resources[0].failure is None


def test_failing_sync_fetches_no_devices(tedee: Tedee, published: Recorder, clock: FakeClock) -> None:
    tedee.sync_status = 401
    run_for(account_sync(clock, published), clock, 600)
    assert set(tedee.endpoints()) == {"sync"}


def test_failures_back_off_and_keep_the_last_snapshot(tedee: Tedee, published: Recorder, clock: FakeClock) -> None:
    account = account_sync(clock, published)
    tedee.has(synced(1))
    run_for(account, clock, 20)
    tedee.sync_status = 503
    started = clock.monotonic()
    assert [at - started for at in run_for(account, clock, 400)] == [20, 40, 80, 160, 320]
    assert published.last.up is False
    assert published.last.failures["server"] == 5
    assert published.last.failure
    assert "503" in published.last.failure.message
    assert published.last.snapshot
    assert published.last.snapshot.at == clock.wall() - 400


def test_retry_after_delays_next_sync(tedee: Tedee, published: Recorder, clock: FakeClock) -> None:
    account = account_sync(clock, published)
    tedee.sync_status = 429
    tedee.sync_headers = {"Retry-After": "777"}
    account.run()
    assert account.wait() == 777
    assert published.last.next_sync == clock.wall() + 777
    assert published.last.failures["rate_limited"] == 1


def test_selected_ids_are_requested_from_first_sync(tedee: Tedee, published: Recorder, clock: FakeClock) -> None:
    tedee.has(synced(7), synced(9))
    tedee.details = [detailed(7, "Seven"), detailed(9, "Nine"), detailed(8, "Eight")]
    run_for(account_sync(clock, published, lock_filter=LockFilter(ids=(7, 9))), clock, 60)
    assert [query for endpoint, query in tedee.calls if endpoint == "sync"] == [{"id": ["7", "9"]}] * 4
    assert names(published) == ["Seven", "Nine"]


def test_serial_numbers_are_resolved_before_first_sync(tedee: Tedee, published: Recorder, clock: FakeClock) -> None:
    tedee.has(synced(9))
    tedee.details = [detailed(7, "Seven"), detailed(9, "Nine")]
    run_for(account_sync(clock, published, lock_filter=LockFilter(serial_numbers=("111111-00009",))), clock, 60)
    assert tedee.endpoints()[0] == "details"
    assert [query for endpoint, query in tedee.calls if endpoint == "sync"] == [{"id": ["9"]}] * 4
    assert names(published) == ["Nine"]


def test_unknown_serial_numbers_are_a_failed_sync(tedee: Tedee, published: Recorder, clock: FakeClock) -> None:
    tedee.details = [detailed(7, "Seven")]
    times = run_for(
        account_sync(clock, published, lock_filter=LockFilter(serial_numbers=("000000-00000",))), clock, 3600
    )
    assert "sync" not in tedee.endpoints()
    assert tedee.endpoints().count("details") == len(times) < 20
    assert published.last.up is False
    assert published.last.failures["not_found"] == len(times)
    assert published.last.failure
    assert "000000-00000" in published.last.failure.message


def test_missing_serial_number_is_found_when_it_appears(tedee: Tedee, published: Recorder, clock: FakeClock) -> None:
    account = account_sync(clock, published, lock_filter=LockFilter(serial_numbers=("111111-00007", "111111-00009")))
    tedee.has(synced(7))
    tedee.details = [detailed(7, "Seven")]
    run_for(account, clock, 60)
    assert published.last.missing == ("111111-00009",)
    assert published.last.up
    assert tedee.endpoints().count("details") == 2
    run_for(account, clock, 530)
    assert tedee.endpoints().count("details") == 2
    tedee.has(synced(7), synced(9))
    tedee.details = [detailed(7, "Seven"), detailed(9, "Nine")]
    run_for(account, clock, 60)
    assert tedee.endpoints().count("details") == 3
    assert names(published) == ["Seven", "Nine"]
    assert not published.last.missing
    assert tedee.calls[-1] == ("sync", {"id": ["7", "9"]})


def test_lock_with_new_id_is_found_by_its_serial_number(tedee: Tedee, published: Recorder, clock: FakeClock) -> None:
    account = account_sync(clock, published, lock_filter=LockFilter(serial_numbers=("111111-00007", "111111-00009")))
    tedee.has(synced(7), synced(9))
    tedee.details = [detailed(7, "Seven"), detailed(9, "Nine")]
    run_for(account, clock, 60)
    tedee.sync_status = 404
    tedee.details = [detailed(7, "Seven"), detailed(99, "Nine", serialNumber="111111-00009")]
    run_for(account, clock, 20)
    tedee.sync_status = 200
    tedee.has(synced(7), synced(99))
    run_for(account, clock, 40)
    assert tedee.calls[-1] == ("sync", {"id": ["7", "99"]})
    assert names(published) == ["Seven", "Nine"]


def test_removed_selected_lock_fails_only_one_sync(tedee: Tedee, published: Recorder, clock: FakeClock) -> None:
    account = account_sync(clock, published, lock_filter=LockFilter(ids=(7, 9)))
    tedee.sync_status = 404
    tedee.details = [detailed(7, "Seven")]
    account.run()
    tedee.sync_status = 200
    tedee.has(synced(7))
    run_for(account, clock, 20)
    assert [query for endpoint, query in tedee.calls if endpoint == "sync"] == [{"id": ["7", "9"]}, {"id": ["7"]}]
    assert names(published) == ["Seven"]
    assert published.last.missing == ("9",)
    assert tedee.endpoints().count("details") == 2


def test_removed_lock_is_absent_after_next_sync(tedee: Tedee, published: Recorder, clock: FakeClock) -> None:
    account = account_sync(clock, published)
    tedee.has(synced(1), synced(2))
    run_for(account, clock, 20)
    tedee.has(synced(2))
    run_for(account, clock, 20)
    assert names(published) == ["2"]


def test_requests_are_counted_by_endpoint_and_code(tedee: Tedee, published: Recorder, clock: FakeClock) -> None:
    account = account_sync(clock, published)
    tedee.has(synced(1))
    account.run()
    tedee.sync_status = 500
    run_for(account, clock, 20)
    assert published.last.requests == {
        ("my/lock/sync", "200"): 1,
        ("my/device/details", "200"): 1,
        ("my/doorsensor", "200"): 1,
        ("my/lock/sync", "500"): 1,
    }
    assert published.last.requests_remaining == 346


def test_all_failure_reasons_start_at_zero(tedee: Tedee, published: Recorder, clock: FakeClock) -> None:
    status = account_sync(clock, published).status()
    assert status.failures == dict.fromkeys(
        (
            "auth",
            "forbidden",
            "not_found",
            "rate_limited",
            "server",
            "timeout",
            "connection",
            "tls",
            "invalid_response",
        ),
        0,
    )
    assert status.up is None
    assert status.next_sync == clock.wall()


def test_rejected_value_is_counted_always_and_logged_once(
    tedee: Tedee, published: Recorder, clock: FakeClock, capsys: pytest.CaptureFixture[str]
) -> None:
    account = account_sync(clock, published)
    tedee.has(synced(1, batteryLevel=255), synced(2))
    run_for(account, clock, 60)
    assert published.last.rejection_counts == {"battery_level": 4}
    logged = capsys.readouterr()
    assert (logged.out + logged.err).count("battery_level") == 1


def test_log_of_rejected_values_is_bounded(
    tedee: Tedee, published: Recorder, clock: FakeClock, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each sync returns other locks."""
    account = account_sync(clock, published)
    for first in range(0, 1_500, 150):
        tedee.has(*(synced(number, batteryLevel=255) for number in range(first, first + 150)))
        run_for(account, clock, 20)
    logged = "".join(capsys.readouterr())
    assert logged.count("field=battery_level") == MAX_LOGGED_REJECTIONS
    assert logged.count("only counted, in tedee_rejected_values_total") == 1
    assert published.last.rejection_counts["battery_level"] >= 1_500


def test_huge_details_fail_and_do_not_affect_syncs(tedee: Tedee, published: Recorder, clock: FakeClock) -> None:
    account = account_sync(clock, published)
    tedee.has(synced(1))
    tedee.details = [detailed(number, f"Lock {number} {'x' * 100_000}") for number in range(1, 171)]
    run_for(account, clock, 60)
    failure = published.last.other_resources[0].failure
    assert failure
    assert "exceeds 16,777,216 bytes" in failure.message
    assert published.last.up
    assert names(published) == ["1"]
    assert tedee.endpoints().count("sync") == 4


def test_version_that_tedee_no_longer_lists_is_reported(tedee: Tedee, published: Recorder, clock: FakeClock) -> None:
    account = account_sync(clock, published)
    account.run()
    assert published.last.version_supported is None
    tedee.sync_headers = {"API-Supported-Versions": "1.35, 1.36, 37"}
    run_for(account, clock, 20)
    assert published.last.version_supported is True
    tedee.sync_headers = {"API-Supported-Versions": "38, 39"}
    run_for(account, clock, 20)
    assert published.last.version_supported is False


def test_unsuccessful_envelope_with_http_200_is_a_failure(tedee: Tedee, published: Recorder, clock: FakeClock) -> None:
    account = account_sync(clock, published)
    tedee.sync = envelope(None, success=False, errorMessages=["Rate limit exceeded"], statusCode=429)
    account.run()
    assert published.last.failures["rate_limited"] == 1
