"""Lost if these fail: requests of the hour that the user's own app needs, or the names and the right locks."""

from collections.abc import Iterator
from itertools import pairwise

import pytest
import responses

from exporter.sync.account import MAX_LOGGED_REJECTIONS
from exporter.sync.lock_details import LockFilter
from tests.clock import FakeClock
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


def test_the_first_sync_goes_before_the_names_and_is_published_without_them(
    tedee: Tedee, published: Recorder, clock: FakeClock
) -> None:
    tedee.has(synced(1))
    tedee.details = [detailed(1, "Front door")]
    run_for(account_sync(clock, published), clock, 1)
    assert tedee.endpoints() == ["sync", "locks", "locks"]
    first, _, second = published.statuses
    assert first.snapshot
    assert second.snapshot
    assert [lock.name for lock in first.snapshot.locks] == ["1"]
    assert [lock.name for lock in second.snapshot.locks] == ["Front door"]


def test_names_are_fetched_once_and_then_no_more(tedee: Tedee, published: Recorder, clock: FakeClock) -> None:
    tedee.has(synced(1), synced(2, revision=None))
    tedee.details = [detailed(1, "Front door"), detailed(2, "Cellar")]
    run_for(account_sync(clock, published), clock, 3600)
    assert tedee.endpoints().count("sync") == 181
    assert tedee.endpoints().count("locks") == 2  # the page of names, and the page that shows that it was the last
    assert names(published) == ["Front door", "Cellar"]


def test_a_moved_revision_fetches_names_again(tedee: Tedee, published: Recorder, clock: FakeClock) -> None:
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
def test_a_lock_that_is_renamed_while_the_list_is_paged_gets_its_new_name(
    tedee: Tedee, published: Recorder, clock: FakeClock, first: tuple[int, ...]
) -> None:
    def answer(endpoint: str) -> None:
        # Each page takes so long that a sync goes before the next one.
        clock.advance(25.0 if endpoint == "locks" else 0.1)
        if tedee.endpoints().count("locks") == 2:
            tedee.has(synced(1, revision=2), synced(2))
            tedee.details = [detailed(1, "Main entrance"), detailed(2, "Cellar")]

    tedee.on_call = answer
    tedee.page_size = 1
    tedee.has(*map(synced, first))
    tedee.details = [detailed(1, "Front door"), detailed(2, "Cellar")]
    run_for(account_sync(clock, published), clock, 3600)
    assert names(published) == ["Main entrance", "Cellar"]
    assert tedee.endpoints().count("locks") == 6


def test_a_chosen_lock_that_is_renamed_between_the_list_and_its_first_sync_gets_its_new_name(
    tedee: Tedee, published: Recorder, clock: FakeClock
) -> None:
    def answer(endpoint: str) -> None:
        if endpoint == "sync":
            tedee.details = [detailed(9, "Main entrance")]

    tedee.on_call = answer
    tedee.has(synced(9, revision=2))
    tedee.details = [detailed(9, "Front door")]
    run_for(account_sync(clock, published, lock_filter=LockFilter(serial_numbers=("111111-00009",))), clock, 3600)
    assert names(published) == ["Main entrance"]
    assert tedee.endpoints().count("locks") == 4


def test_an_unknown_lock_fetches_names_again(tedee: Tedee, published: Recorder, clock: FakeClock) -> None:
    account = account_sync(clock, published)
    tedee.has(synced(1))
    tedee.details = [detailed(1, "Front door")]
    run_for(account, clock, 60)
    tedee.has(synced(1), synced(2))
    tedee.details = [detailed(1, "Front door"), detailed(2, "Cellar")]
    run_for(account, clock, 60)
    assert tedee.endpoints().count("locks") == 4
    assert names(published) == ["Front door", "Cellar"]


def test_a_lock_that_the_list_never_names_asks_for_it_no_more_often_than_every_five_minutes(
    tedee: Tedee, published: Recorder, clock: FakeClock
) -> None:
    tedee.has(synced(1))
    run_for(account_sync(clock, published), clock, 3590)
    assert tedee.endpoints().count("locks") == 12
    assert names(published) == ["1"]


def test_a_lock_that_is_overlooked_where_the_list_shrinks_between_two_pages_is_found(
    tedee: Tedee, published: Recorder, clock: FakeClock
) -> None:
    def answer(endpoint: str) -> None:
        if tedee.endpoints().count("locks") == 2:
            tedee.has(synced(2), synced(3))
            tedee.details = [detailed(2, "Two"), detailed(3, "Three")]

    tedee.on_call = answer
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


def test_revision_that_moves_all_the_time_stays_within_the_limit_of_names(
    tedee: Tedee, published: Recorder, clock: FakeClock
) -> None:
    account = account_sync(clock, published)
    tedee.details = [detailed(1, "Front door")]
    for revision in range(179):
        tedee.has(synced(1, revision=revision))
        run_for(account, clock, 20)
    assert tedee.endpoints().count("locks") == 60
    assert tedee.endpoints().count("sync") == 180


def test_rate_limited_names_do_not_delay_the_sync(tedee: Tedee, published: Recorder, clock: FakeClock) -> None:
    tedee.has(synced(1))
    tedee.details_status, tedee.details_headers = 429, {"Retry-After": "600"}
    run_for(account_sync(clock, published), clock, 590)
    assert tedee.endpoints().count("sync") == 30
    assert tedee.endpoints().count("locks") == 1


def test_names_that_fail_leave_the_sync_alone_and_are_tried_again_less_and_less_often(
    tedee: Tedee, published: Recorder, clock: FakeClock
) -> None:
    account = account_sync(clock, published)
    tedee.has(synced(1))
    tedee.details_status = 500
    run_for(account, clock, 3600)
    assert tedee.endpoints().count("sync") == 181
    assert 12 <= tedee.endpoints().count("locks") <= 18
    assert published.last.up
    assert published.last.details_failure
    assert published.last.failures["server"] == 0
    tedee.details_status = 200
    tedee.details = [detailed(1, "Front door")]
    run_for(account, clock, 320)
    assert names(published) == ["Front door"]
    assert published.last.details_failure is None


def test_a_failing_sync_asks_for_no_names(tedee: Tedee, published: Recorder, clock: FakeClock) -> None:
    tedee.sync_status = 401
    run_for(account_sync(clock, published), clock, 600)
    assert set(tedee.endpoints()) == {"sync"}


def test_a_long_and_slow_list_of_names_does_not_hold_up_the_syncs(
    tedee: Tedee, published: Recorder, clock: FakeClock
) -> None:
    synced_at: list[float] = []

    def answer(endpoint: str) -> None:
        synced_at.extend([clock.monotonic()] if endpoint == "sync" else [])
        clock.advance(6.0 if endpoint == "locks" else 0.1)

    tedee.on_call = answer
    tedee.page_size = 10
    tedee.has(*(synced(number) for number in range(500)))
    tedee.details = [detailed(number, f"Lock {number}") for number in range(500)]
    run_for(account_sync(clock, published), clock, 3600)
    assert max(later - earlier for earlier, later in pairwise(synced_at)) <= 20.1 + 6.0
    assert tedee.endpoints().count("locks") == 51
    assert names(published)[499] == "Lock 499"


@pytest.mark.parametrize(
    ("chosen", "pages"),
    # What was listed before it was first synced may have been renamed in between: its list is fetched twice.
    [(LockFilter(), 41), (LockFilter(serial_numbers=("111111-00399",)), 82)],
)
def test_long_list_of_names_continues_when_its_limits_allow(
    tedee: Tedee, published: Recorder, clock: FakeClock, chosen: LockFilter, pages: int
) -> None:
    tedee.page_size = 10
    tedee.has(*(synced(number) for number in range(400)))
    tedee.details = [detailed(number, f"Lock {number}") for number in range(400)]
    account = account_sync(clock, published, requests_per_hour=60, lock_filter=chosen)
    run_for(account, clock, 605)
    assert tedee.endpoints().count("locks") == 10
    run_for(account, clock, 605)
    assert tedee.endpoints().count("locks") == 20
    waiting = published.last.next_sync if chosen else published.last.details_wait_until
    assert waiting == pytest.approx(clock.wall() + 2390, abs=30)
    run_for(account, clock, 3700)
    assert tedee.endpoints().count("locks") == 40
    run_for(account, clock, 3700)
    assert "Lock 399" in names(published)
    run_for(account, clock, 2 * 3700)
    assert tedee.endpoints().count("locks") == pages
    assert published.last.details_wait_until is None


def test_failures_back_off_and_the_old_snapshot_stays_until_a_sync_succeeds(
    tedee: Tedee, published: Recorder, clock: FakeClock
) -> None:
    account = account_sync(clock, published)
    tedee.has(synced(1))
    run_for(account, clock, 20)
    tedee.sync_status = 503
    began = clock.monotonic()
    assert [at - began for at in run_for(account, clock, 400)] == [20, 40, 80, 160, 320]
    assert published.last.up is False
    assert published.last.failures["server"] == 5
    assert published.last.failure
    assert "503" in published.last.failure.message
    assert published.last.snapshot
    assert published.last.snapshot.at == clock.wall() - 400


def test_retry_after_is_waited_out(tedee: Tedee, published: Recorder, clock: FakeClock) -> None:
    account = account_sync(clock, published)
    tedee.sync_status = 429
    tedee.sync_headers = {"Retry-After": "777"}
    account.run()
    assert account.wait() == 777
    assert published.last.next_sync == clock.wall() + 777
    assert published.last.failures["rate_limited"] == 1


def test_chosen_ids_are_asked_for_from_the_first_sync_on(tedee: Tedee, published: Recorder, clock: FakeClock) -> None:
    tedee.has(synced(7), synced(9))
    tedee.details = [detailed(7, "Seven"), detailed(9, "Nine"), detailed(8, "Eight")]
    run_for(account_sync(clock, published, lock_filter=LockFilter(ids=(7, 9))), clock, 60)
    assert [query for endpoint, query in tedee.calls if endpoint == "sync"] == [{"id": ["7", "9"]}] * 4
    assert names(published) == ["Seven", "Nine"]


def test_chosen_serial_numbers_are_looked_up_first_and_never_sync_the_other_locks(
    tedee: Tedee, published: Recorder, clock: FakeClock
) -> None:
    tedee.has(synced(9))
    tedee.details = [detailed(7, "Seven"), detailed(9, "Nine")]
    run_for(account_sync(clock, published, lock_filter=LockFilter(serial_numbers=("111111-00009",))), clock, 60)
    assert tedee.endpoints()[0] == "locks"
    assert [query for endpoint, query in tedee.calls if endpoint == "sync"] == [{"id": ["9"]}] * 4
    assert names(published) == ["Nine"]


def test_serial_numbers_that_the_account_lacks_are_a_failed_sync_and_nothing_is_synced(
    tedee: Tedee, published: Recorder, clock: FakeClock
) -> None:
    tedee.details = [detailed(7, "Seven")]
    moments = run_for(
        account_sync(clock, published, lock_filter=LockFilter(serial_numbers=("000000-00000",))), clock, 3600
    )
    assert "sync" not in tedee.endpoints()
    assert tedee.endpoints().count("locks") == len(moments) < 40
    assert published.last.up is False
    assert published.last.failures["not_found"] == len(moments) // 2
    assert published.last.failure
    assert "000000-00000" in published.last.failure.message


def test_one_missing_serial_number_costs_the_others_nothing_and_is_found_when_it_comes(
    tedee: Tedee, published: Recorder, clock: FakeClock
) -> None:
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


def test_a_lock_that_was_added_again_under_another_id_is_found_by_its_serial_number(
    tedee: Tedee, published: Recorder, clock: FakeClock
) -> None:
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


def test_a_chosen_id_that_the_account_lost_costs_the_others_one_sync(
    tedee: Tedee, published: Recorder, clock: FakeClock
) -> None:
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


def test_a_lock_that_leaves_the_account_leaves_the_snapshot_with_the_next_sync(
    tedee: Tedee, published: Recorder, clock: FakeClock
) -> None:
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


def test_every_reason_exists_at_zero_from_the_start(tedee: Tedee, published: Recorder, clock: FakeClock) -> None:
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


def test_a_value_that_cannot_be_used_is_counted_each_time_and_logged_once(
    tedee: Tedee, published: Recorder, clock: FakeClock, capsys: pytest.CaptureFixture[str]
) -> None:
    account = account_sync(clock, published)
    tedee.has(synced(1, batteryLevel=255), synced(2))
    run_for(account, clock, 60)
    assert published.last.rejections == {"battery_level": 4}
    written = capsys.readouterr()
    assert (written.out + written.err).count("battery_level") == 1


def test_log_of_rejected_values_is_bounded(
    tedee: Tedee, published: Recorder, clock: FakeClock, capsys: pytest.CaptureFixture[str]
) -> None:
    """Even if the locks are others each time."""
    account = account_sync(clock, published)
    for first in range(0, 1_500, 150):
        tedee.has(*(synced(number, batteryLevel=255) for number in range(first, first + 150)))
        run_for(account, clock, 20)
    written = "".join(capsys.readouterr())
    assert written.count("field=battery_level") == MAX_LOGGED_REJECTIONS
    assert written.count("only counted, in tedee_rejected_values_total") == 1
    assert published.last.rejections["battery_level"] >= 1_500


def test_endless_list_of_new_locks_ends(tedee: Tedee, published: Recorder, clock: FakeClock) -> None:
    """At a size, after which the names on it are shown."""
    account = account_sync(clock, published)
    tedee.page_size = 50
    tedee.has(synced(1))
    tedee.details = [detailed(number, f"Lock {number} {'x' * 100_000}") for number in range(1, 501)]
    run_for(account, clock, 600)
    pages = [int(query["Page"][0]) for endpoint, query in tedee.calls if endpoint == "locks"]
    assert pages == [1, 2, 3, 4]
    assert names(published)[0].startswith("Lock 1 x")


def test_a_version_that_tedee_no_longer_lists_is_told(tedee: Tedee, published: Recorder, clock: FakeClock) -> None:
    account = account_sync(clock, published)
    account.run()
    assert published.last.version_supported is None
    tedee.sync_headers = {"API-Supported-Versions": "1.35, 1.36, 37"}
    run_for(account, clock, 20)
    assert published.last.version_supported is True
    tedee.sync_headers = {"API-Supported-Versions": "38, 39"}
    run_for(account, clock, 20)
    assert published.last.version_supported is False


def test_an_answer_that_says_it_failed_is_a_failure_even_with_http_200(
    tedee: Tedee, published: Recorder, clock: FakeClock
) -> None:
    account = account_sync(clock, published)
    tedee.sync = envelope(None, success=False, errorMessages=["Rate limit exceeded"], statusCode=429)
    account.run()
    assert published.last.failures["rate_limited"] == 1


def test_pages_that_overlap_name_every_lock_once(tedee: Tedee, published: Recorder, clock: FakeClock) -> None:
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


def test_a_list_whose_pages_are_all_the_same_ends(tedee: Tedee, published: Recorder, clock: FakeClock) -> None:
    tedee.has(synced(1))
    tedee.details = [detailed(1, "One")]
    tedee.same_page = True
    run_for(account_sync(clock, published), clock, 20)
    assert names(published) == ["One"]
    assert tedee.endpoints().count("locks") == 2


def test_a_page_of_which_nothing_can_be_used_does_not_end_the_list(
    tedee: Tedee, published: Recorder, clock: FakeClock
) -> None:
    tedee.has(synced(1), synced(2))
    tedee.details = [{"id": None}, detailed(1, "One"), {"name": "no id"}, detailed(2, "Two")]
    tedee.page_size = 1
    run_for(account_sync(clock, published), clock, 20)
    assert names(published) == ["One", "Two"]
    assert tedee.endpoints().count("locks") == 5


@pytest.mark.parametrize("good", [[], [detailed(1, "One")]])
def test_a_list_that_goes_on_with_nothing_that_can_be_used_ends(
    tedee: Tedee, published: Recorder, clock: FakeClock, good: list[dict[str, object]]
) -> None:
    tedee.has(synced(1))
    tedee.details = [*good, *({"id": None} for _ in range(100))]
    tedee.page_size = 1
    run_for(account_sync(clock, published), clock, 20)
    assert names(published) == (["One"] if good else ["1"])
    assert tedee.endpoints().count("locks") == len(good) + 2
