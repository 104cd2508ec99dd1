"""Syncs of one account: when they and the lock details are requested, which locks, and the published status."""

from collections.abc import Iterator
from itertools import pairwise

import pytest
import responses

from exporter.sync.counters import MAX_LOGGED_REJECTIONS
from exporter.sync.lock_filter import LockFilter
from testing.clock import FakeClock
from tests.cloud import Recorder, Tedee, account_sync, detailed, envelope, run_for, synced


@pytest.fixture
def tedee() -> Iterator[Tedee]:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield Tedee(mock)


@pytest.fixture
def published() -> Recorder:
    return Recorder()


def names(published: Recorder) -> list[str]:
    snapshot = published.last.snapshot
    assert snapshot
    return [lock.name for lock in snapshot.locks]


def test_first_sync_is_published_before_lock_details(tedee: Tedee, published: Recorder, clock: FakeClock) -> None:
    tedee.has(synced(1))
    tedee.details = [detailed(1, "Front door")]
    run_for(account_sync(clock, published), clock, 1)
    assert tedee.endpoints() == ["sync", "locks", "locks"]
    first, _, second = published.statuses
    assert first.snapshot
    assert second.snapshot
    assert [lock.name for lock in first.snapshot.locks] == ["1"]
    assert [lock.name for lock in second.snapshot.locks] == ["Front door"]


def test_lock_details_are_fetched_once(tedee: Tedee, published: Recorder, clock: FakeClock) -> None:
    tedee.has(synced(1), synced(2, revision=None))
    tedee.details = [detailed(1, "Front door"), detailed(2, "Cellar")]
    run_for(account_sync(clock, published), clock, 3600)
    assert tedee.endpoints().count("sync") == 181
    assert tedee.endpoints().count("locks") == 2  # a page with locks, and one without new locks, which ends the list
    assert names(published) == ["Front door", "Cellar"]


def test_changed_revision_triggers_fetch_of_lock_details(tedee: Tedee, published: Recorder, clock: FakeClock) -> None:
    account = account_sync(clock, published)
    tedee.has(synced(1, revision=1))
    tedee.details = [detailed(1, "Front door")]
    run_for(account, clock, 60)
    tedee.has(synced(1, revision=2))
    tedee.details = [detailed(1, "Main entrance")]
    run_for(account, clock, 60)
    assert tedee.endpoints().count("locks") == 4
    assert names(published) == ["Main entrance"]


@pytest.mark.parametrize("first", [(1, 2), (2,)])
def test_lock_renamed_between_pages_gets_its_new_name(
    tedee: Tedee, published: Recorder, clock: FakeClock, first: tuple[int, ...]
) -> None:
    def on_call(endpoint: str) -> None:
        # Each page takes so long that a sync is made before the next one.
        clock.advance(25.0 if endpoint == "locks" else 0.1)
        if tedee.endpoints().count("locks") == 2:
            tedee.has(synced(1, revision=2), synced(2))
            tedee.details = [detailed(1, "Main entrance"), detailed(2, "Cellar")]

    tedee.on_call = on_call
    tedee.page_size = 1
    tedee.has(*map(synced, first))
    tedee.details = [detailed(1, "Front door"), detailed(2, "Cellar")]
    run_for(account_sync(clock, published), clock, 3600)
    assert names(published) == ["Main entrance", "Cellar"]
    assert tedee.endpoints().count("locks") == 6


def test_lock_renamed_before_first_sync_gets_its_new_name(tedee: Tedee, published: Recorder, clock: FakeClock) -> None:
    def on_call(endpoint: str) -> None:
        if endpoint == "sync":
            tedee.details = [detailed(9, "Main entrance")]

    tedee.on_call = on_call
    tedee.has(synced(9, revision=2))
    tedee.details = [detailed(9, "Front door")]
    run_for(account_sync(clock, published, lock_filter=LockFilter(serial_numbers=("111111-00009",))), clock, 3600)
    assert names(published) == ["Main entrance"]
    assert tedee.endpoints().count("locks") == 4


def test_new_lock_triggers_fetch_of_lock_details(tedee: Tedee, published: Recorder, clock: FakeClock) -> None:
    account = account_sync(clock, published)
    tedee.has(synced(1))
    tedee.details = [detailed(1, "Front door")]
    run_for(account, clock, 60)
    tedee.has(synced(1), synced(2))
    tedee.details = [detailed(1, "Front door"), detailed(2, "Cellar")]
    run_for(account, clock, 60)
    assert tedee.endpoints().count("locks") == 4
    assert names(published) == ["Front door", "Cellar"]


def test_lock_missing_from_list_is_retried_every_5_minutes(tedee: Tedee, published: Recorder, clock: FakeClock) -> None:
    tedee.has(synced(1))
    run_for(account_sync(clock, published), clock, 3590)
    assert tedee.endpoints().count("locks") == 12
    assert names(published) == ["1"]


def test_lock_missed_by_shrinking_list_is_found_later(tedee: Tedee, published: Recorder, clock: FakeClock) -> None:
    def on_call(endpoint: str) -> None:
        if tedee.endpoints().count("locks") == 2:
            tedee.has(synced(2), synced(3))
            tedee.details = [detailed(2, "Two"), detailed(3, "Three")]

    tedee.on_call = on_call
    tedee.page_size = 2
    tedee.has(synced(1), synced(2), synced(3))
    tedee.details = [detailed(1, "One"), detailed(2, "Two"), detailed(3, "Three")]
    account = account_sync(clock, published)
    run_for(account, clock, 290)
    assert names(published) == ["Two", "3"]
    assert tedee.endpoints().count("locks") == 2
    run_for(account, clock, 3600)
    assert names(published) == ["Two", "Three"]
    assert tedee.endpoints().count("locks") == 4


def test_constantly_changing_revision_obeys_list_limit(tedee: Tedee, published: Recorder, clock: FakeClock) -> None:
    account = account_sync(clock, published)
    tedee.details = [detailed(1, "Front door")]
    for revision in range(179):
        tedee.has(synced(1, revision=revision))
        run_for(account, clock, 20)
    assert tedee.endpoints().count("locks") == 60
    assert tedee.endpoints().count("sync") == 180


def test_rate_limited_list_does_not_delay_syncs(tedee: Tedee, published: Recorder, clock: FakeClock) -> None:
    tedee.has(synced(1))
    tedee.details_status, tedee.details_headers = 429, {"Retry-After": "600"}
    run_for(account_sync(clock, published), clock, 590)
    assert tedee.endpoints().count("sync") == 30
    assert tedee.endpoints().count("locks") == 1


def test_failing_list_backs_off_and_does_not_affect_syncs(tedee: Tedee, published: Recorder, clock: FakeClock) -> None:
    account = account_sync(clock, published)
    tedee.has(synced(1))
    tedee.details_status = 500
    run_for(account, clock, 3600)
    assert tedee.endpoints().count("sync") == 181
    assert 12 <= tedee.endpoints().count("locks") <= 18
    assert published.last.up
    assert published.last.other_resources[0].failure
    assert published.last.failures["server"] == 0
    tedee.details_status = 200
    tedee.details = [detailed(1, "Front door")]
    run_for(account, clock, 320)
    assert names(published) == ["Front door"]
    assert published.last.other_resources[0].failure is None


def test_failing_sync_fetches_no_lock_details(tedee: Tedee, published: Recorder, clock: FakeClock) -> None:
    tedee.sync_status = 401
    run_for(account_sync(clock, published), clock, 600)
    assert set(tedee.endpoints()) == {"sync"}


def test_long_and_slow_list_does_not_delay_syncs(tedee: Tedee, published: Recorder, clock: FakeClock) -> None:
    synced_at: list[float] = []

    def on_call(endpoint: str) -> None:
        synced_at.extend([clock.monotonic()] if endpoint == "sync" else [])
        clock.advance(6.0 if endpoint == "locks" else 0.1)

    tedee.on_call = on_call
    tedee.page_size = 10
    tedee.has(*(synced(number) for number in range(500)))
    tedee.details = [detailed(number, f"Lock {number}") for number in range(500)]
    run_for(account_sync(clock, published), clock, 3600)
    assert max(later - earlier for earlier, later in pairwise(synced_at)) <= 20.1 + 6.0
    assert tedee.endpoints().count("locks") == 51
    assert names(published)[499] == "Lock 499"


@pytest.mark.parametrize(
    ("lock_filter", "pages"),
    # A lock that is listed before its first sync may be renamed between the two, so the list is fetched twice.
    [(LockFilter(), 41), (LockFilter(serial_numbers=("111111-00399",)), 82)],
)
def test_long_list_continues_when_limits_allow(
    tedee: Tedee, published: Recorder, clock: FakeClock, lock_filter: LockFilter, pages: int
) -> None:
    tedee.page_size = 10
    tedee.has(*(synced(number) for number in range(400)))
    tedee.details = [detailed(number, f"Lock {number}") for number in range(400)]
    account = account_sync(clock, published, requests_per_hour=60, lock_filter=lock_filter)
    run_for(account, clock, 605)
    assert tedee.endpoints().count("locks") == 10
    run_for(account, clock, 605)
    assert tedee.endpoints().count("locks") == 20
    waits_until = published.last.next_sync if lock_filter else published.last.other_resources[0].delayed_until
    assert waits_until == pytest.approx(clock.wall() + 2390, abs=30)
    run_for(account, clock, 3700)
    assert tedee.endpoints().count("locks") == 40
    run_for(account, clock, 3700)
    assert "Lock 399" in names(published)
    run_for(account, clock, 2 * 3700)
    assert tedee.endpoints().count("locks") == pages
    assert published.last.other_resources[0].delayed_until is None


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
    assert tedee.endpoints()[0] == "locks"
    assert [query for endpoint, query in tedee.calls if endpoint == "sync"] == [{"id": ["9"]}] * 4
    assert names(published) == ["Nine"]


def test_unknown_serial_numbers_are_a_failed_sync(tedee: Tedee, published: Recorder, clock: FakeClock) -> None:
    tedee.details = [detailed(7, "Seven")]
    times = run_for(
        account_sync(clock, published, lock_filter=LockFilter(serial_numbers=("000000-00000",))), clock, 3600
    )
    assert "sync" not in tedee.endpoints()
    assert tedee.endpoints().count("locks") == len(times) < 40
    assert published.last.up is False
    assert published.last.failures["not_found"] == len(times) // 2
    assert published.last.failure
    assert "000000-00000" in published.last.failure.message


def test_missing_serial_number_is_found_when_it_appears(tedee: Tedee, published: Recorder, clock: FakeClock) -> None:
    account = account_sync(clock, published, lock_filter=LockFilter(serial_numbers=("111111-00007", "111111-00009")))
    tedee.has(synced(7))
    tedee.details = [detailed(7, "Seven")]
    run_for(account, clock, 60)
    assert published.last.missing == ("111111-00009",)
    assert published.last.up
    assert tedee.endpoints().count("locks") == 4
    run_for(account, clock, 230)
    assert tedee.endpoints().count("locks") == 4
    tedee.has(synced(7), synced(9))
    tedee.details = [detailed(7, "Seven"), detailed(9, "Nine")]
    run_for(account, clock, 60)
    assert tedee.endpoints().count("locks") == 6
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
    assert tedee.endpoints().count("locks") == 4


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
        ("my/lock", "200"): 1,
        ("my/lock/sync", "500"): 1,
    }
    assert published.last.requests_remaining == 347


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


def test_endless_list_of_new_locks_is_bounded(tedee: Tedee, published: Recorder, clock: FakeClock) -> None:
    """The size of the list is limited. The lock details of the incomplete list are used."""
    account = account_sync(clock, published)
    tedee.page_size = 50
    tedee.has(synced(1))
    tedee.details = [detailed(number, f"Lock {number} {'x' * 100_000}") for number in range(1, 501)]
    run_for(account, clock, 600)
    pages = [int(query["Page"][0]) for endpoint, query in tedee.calls if endpoint == "locks"]
    assert pages == [1, 2, 3, 4]
    assert names(published)[0].startswith("Lock 1 x")


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


def test_overlapping_pages_list_each_lock_once(tedee: Tedee, published: Recorder, clock: FakeClock) -> None:
    tedee.has(synced(1), synced(2), synced(3))
    rows = [
        detailed(1, "One"),
        detailed(2, "Two"),
        detailed(2, "Two, renamed"),
        detailed(3, "Three"),
        detailed(3, "Three"),
    ]
    tedee.details, tedee.page_size = rows, 2
    run_for(account_sync(clock, published), clock, 20)
    assert names(published) == ["One", "Two, renamed", "Three"]
    assert tedee.endpoints().count("locks") == 3


def test_list_of_identical_pages_ends(tedee: Tedee, published: Recorder, clock: FakeClock) -> None:
    tedee.has(synced(1))
    tedee.details = [detailed(1, "One")]
    tedee.same_page = True
    run_for(account_sync(clock, published), clock, 20)
    assert names(published) == ["One"]
    assert tedee.endpoints().count("locks") == 2


def test_unusable_page_does_not_end_the_list(tedee: Tedee, published: Recorder, clock: FakeClock) -> None:
    tedee.has(synced(1), synced(2))
    tedee.details = [{"id": None}, detailed(1, "One"), {"name": "no id"}, detailed(2, "Two")]
    tedee.page_size = 1
    run_for(account_sync(clock, published), clock, 20)
    assert names(published) == ["One", "Two"]
    assert tedee.endpoints().count("locks") == 5


@pytest.mark.parametrize("good", [[], [detailed(1, "One")]])
def test_list_of_unusable_pages_ends(
    tedee: Tedee, published: Recorder, clock: FakeClock, good: list[dict[str, object]]
) -> None:
    tedee.has(synced(1))
    tedee.details = [*good, *({"id": None} for _ in range(100))]
    tedee.page_size = 1
    run_for(account_sync(clock, published), clock, 20)
    assert names(published) == (["One"] if good else ["1"])
    assert tedee.endpoints().count("locks") == len(good) + 2
