"""The rate limiter: spacing, hourly share, endpoint limits, backoff."""

import random
from collections.abc import Iterator, Sequence
from contextlib import suppress

import pytest

from exporter.sync.limiter import NotAllowedYet, RateLimiter
from exporter.sync.rate_limits import RateLimitPolicy, RateLimitState
from exporter.sync.store import Change, MemoryStateStore
from exporter.tedee.client import LOCKS, SYNC
from exporter.tedee.errors import CallError, RateLimited, ServerFailed, Unauthorized
from tests.clock import FakeClock


def rate_limiter(
    clock: FakeClock,
    interval: float = 20.0,
    requests_per_hour: int = 350,
    *,
    account: str = "home",
    store: MemoryStateStore | None = None,
    is_first_start: bool = True,
) -> RateLimiter:
    policy = RateLimitPolicy(interval=interval, requests_per_hour=requests_per_hour)
    store = store or MemoryStateStore(clock)
    return RateLimiter(account, store, clock, policy, jitter=lambda: 1.0, is_first_start=is_first_start)


def call(
    limiter: RateLimiter, clock: FakeClock, endpoint: str = SYNC, takes: float = 0.5, user: str = "user 1"
) -> None:
    with limiter.acquire(endpoint, user):
        clock.advance(takes)


def fail(
    limiter: RateLimiter,
    clock: FakeClock,
    endpoint: str = SYNC,
    error: type[CallError] = ServerFailed,
    user: str = "user 1",
    **facts: float,
) -> None:
    with suppress(CallError), limiter.acquire(endpoint, user):
        clock.advance(0.5)
        raise error("it failed", account="home", endpoint=endpoint, **facts)  # type: ignore[arg-type]


def test_the_first_sync_may_go_at_once(clock: FakeClock) -> None:
    assert rate_limiter(clock).wait(SYNC) == 0


def test_the_spacing_counts_from_the_answer_and_not_from_the_sending(clock: FakeClock) -> None:
    limiter = rate_limiter(clock)
    call(limiter, clock, takes=7.0)
    assert limiter.wait(SYNC) == 20.0


def test_a_sync_a_moment_too_early_does_not_leave(clock: FakeClock) -> None:
    limiter = rate_limiter(clock)
    call(limiter, clock)
    clock.advance(19.999)
    with pytest.raises(NotAllowedYet):
        call(limiter, clock)
    clock.advance(0.001)
    call(limiter, clock)


def test_a_second_sync_does_not_leave_while_the_first_is_under_way(clock: FakeClock) -> None:
    limiter = rate_limiter(clock)
    with limiter.acquire(SYNC, "user 1"):
        clock.advance(3600)
        assert limiter.wait(SYNC) == float("inf")
        with pytest.raises(NotAllowedYet):
            call(limiter, clock)


def test_reservation_time_is_read_after_the_wait_for_the_store(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time-out of the call counts from it. Many accounts wait for one store on a slow disk."""

    class SlowStore(MemoryStateStore):
        def update(self, keys: Sequence[str], change: Change) -> tuple[RateLimitState, ...]:
            clock.advance(9.0)
            return super().update(keys, change)

    monkeypatch.setattr("exporter.sync.limiter.boottime", clock.monotonic)
    started_at = clock.monotonic()
    with rate_limiter(clock, store=SlowStore(clock)).acquire(SYNC, "user 1") as reserved_at:
        assert reserved_at == started_at + 9.0


def test_a_refused_call_is_not_counted_and_leaves_the_gate_as_it_was(clock: FakeClock) -> None:
    limiter = rate_limiter(clock)
    call(limiter, clock)
    with pytest.raises(NotAllowedYet):
        call(limiter, clock)
    assert limiter.wait(SYNC) == 20.0
    assert limiter.remaining() == 349


def test_names_may_be_fetched_right_after_a_sync_and_do_not_delay_the_next(clock: FakeClock) -> None:
    limiter = rate_limiter(clock)
    call(limiter, clock)
    call(limiter, clock, LOCKS)
    call(limiter, clock, LOCKS)
    assert limiter.wait(SYNC) == 19.0


def test_an_interval_longer_than_20_seconds_is_kept(clock: FakeClock) -> None:
    limiter = rate_limiter(clock, interval=60.0)
    call(limiter, clock)
    assert limiter.wait(SYNC) == 60.0


def test_an_interval_shorter_than_20_seconds_is_refused(clock: FakeClock) -> None:
    with pytest.raises(ValueError, match="one sync in 20 s"):
        rate_limiter(clock, interval=19.9)


def test_failures_double_the_wait_up_to_five_minutes(clock: FakeClock) -> None:
    limiter = rate_limiter(clock)
    waits = []
    for _ in range(7):
        fail(limiter, clock)
        waits.append(limiter.wait(SYNC))
        clock.advance(waits[-1])
    assert waits == [20, 40, 80, 160, 300, 300, 300]


def test_a_success_ends_the_backoff(clock: FakeClock) -> None:
    limiter = rate_limiter(clock)
    for _ in range(3):
        fail(limiter, clock)
        clock.advance(limiter.wait(SYNC))
    call(limiter, clock)
    assert limiter.wait(SYNC) == 20.0
    clock.advance(20)
    fail(limiter, clock)
    assert limiter.wait(SYNC) == 20.0


def test_jitter_makes_a_backoff_longer_and_never_shorter_than_the_spacing(clock: FakeClock) -> None:
    waits = set()
    for _ in range(50):
        limiter = RateLimiter("home", MemoryStateStore(clock), clock, is_first_start=True)
        fail(limiter, clock)
        waits.add(limiter.wait(SYNC))
    assert min(waits) > 20.0
    assert len(waits) > 10


def test_failing_names_back_off_without_holding_up_the_sync(clock: FakeClock) -> None:
    limiter = rate_limiter(clock)
    fail(limiter, clock, LOCKS)
    assert limiter.wait(LOCKS) == 20.0
    assert limiter.wait(SYNC) == 0.0


def test_retry_after_of_a_sync_blocks_every_endpoint(clock: FakeClock) -> None:
    limiter = rate_limiter(clock)
    fail(limiter, clock, SYNC, RateLimited, retry_after=1234.0)
    assert limiter.wait(SYNC) == 1234.0
    assert limiter.wait(LOCKS) == 1234.0


def test_retry_after_of_names_blocks_names_alone(clock: FakeClock) -> None:
    limiter = rate_limiter(clock)
    fail(limiter, clock, LOCKS, RateLimited, retry_after=1234.0)
    assert limiter.wait(SYNC) == 0.0
    assert limiter.wait(LOCKS) == 1234.0


def test_names_are_limited_to_10_requests_in_10_minutes(clock: FakeClock) -> None:
    limiter = rate_limiter(clock)
    sent: list[float] = []
    while clock.monotonic() < 1_000 + 3 * 3600:
        call(limiter, clock, LOCKS, takes=0.0)
        sent.append(clock.monotonic())
        clock.advance(limiter.wait(LOCKS) + 1.0)
    assert len(sent) > 100
    # A request may reach Tedee up to 10 seconds later than the one before it did.
    assert min(later - earlier for earlier, later in zip(sent, sent[10:], strict=False)) >= 610.0


def test_a_retry_after_shorter_than_the_spacing_does_not_shorten_it(clock: FakeClock) -> None:
    limiter = rate_limiter(clock)
    fail(limiter, clock, SYNC, RateLimited, retry_after=1.0)
    assert limiter.wait(SYNC) == 20.0


def test_a_retry_after_of_years_waits_for_the_hour_that_tedee_counts_in(clock: FakeClock) -> None:
    limiter = rate_limiter(clock)
    fail(limiter, clock, SYNC, RateLimited, retry_after=1e9)
    assert limiter.wait(SYNC) == 3600.0


def test_the_hourly_share_is_a_sliding_hour_over_all_endpoints(clock: FakeClock) -> None:
    limiter = rate_limiter(clock, requests_per_hour=12)
    start = clock.monotonic()
    for _ in range(9):
        call(limiter, clock)
        clock.advance(20)
    for _ in range(3):
        call(limiter, clock, LOCKS)
    assert limiter.remaining() == 0
    assert clock.monotonic() + limiter.wait(SYNC) == start + 3600.0
    with pytest.raises(NotAllowedYet):
        call(limiter, clock)
    clock.advance(limiter.wait(SYNC))
    assert limiter.remaining() == 1
    call(limiter, clock)


def test_near_the_end_of_the_share_syncs_slow_down_and_do_not_stop(clock: FakeClock) -> None:
    limiter = rate_limiter(clock, requests_per_hour=100)
    start, gaps = clock.monotonic(), []
    while clock.monotonic() < start + 2 * 3600:
        gaps.append(limiter.wait(SYNC))
        clock.advance(gaps[-1])
        call(limiter, clock, takes=0.0)
    assert gaps[1:50] == [20.0] * 49
    assert max(gaps) < 120
    assert len(gaps) >= 180


def test_names_cannot_use_up_the_share_of_the_sync(clock: FakeClock) -> None:
    limiter = rate_limiter(clock, requests_per_hour=30)
    for _ in range(10):
        call(limiter, clock, LOCKS, takes=0.0)
    assert limiter.wait(LOCKS) == 3600.0
    assert limiter.wait(SYNC) == 0.0


def test_a_record_failured_call_waits_like_a_failed_one_and_costs_nothing(clock: FakeClock) -> None:
    limiter = rate_limiter(clock)
    limiter.record_failure(LOCKS)
    limiter.record_failure(LOCKS)
    assert limiter.wait(LOCKS) == 40.0
    assert limiter.remaining() == 350


# Users


def test_renamed_account_shares_the_limit_of_its_user(clock: FakeClock) -> None:
    store = MemoryStateStore(clock)
    home = rate_limiter(clock, store=store)
    call(home, clock, takes=7.0)
    house = rate_limiter(clock, store=store, account="house")
    house.set_user("user 1")
    assert house.wait(SYNC) == 20.0
    with pytest.raises(NotAllowedYet):
        call(house, clock)
    clock.advance(20.0)
    call(house, clock)
    assert home.wait(SYNC) == 20.0
    assert house.remaining() == home.remaining() == 348


def test_call_under_way_blocks_the_other_account_of_a_user(clock: FakeClock) -> None:
    store = MemoryStateStore(clock)
    home = rate_limiter(clock, store=store)
    other = rate_limiter(clock, store=store, account="hotel")
    with home.acquire(SYNC, "user 1"):
        with pytest.raises(NotAllowedYet):
            call(other, clock)
        assert other.wait(SYNC) == 30.0
        clock.advance(9.0)
    assert other.wait(SYNC) == 20.0


def test_accounts_of_different_users_do_not_wait_for_each_other(clock: FakeClock) -> None:
    store = MemoryStateStore(clock)
    call(rate_limiter(clock, store=store), clock)
    call(rate_limiter(clock, store=store, account="hotel"), clock, user="user 2")


def test_unknown_account_waits_for_a_call_and_the_spacing(clock: FakeClock) -> None:
    limiter = rate_limiter(clock, is_first_start=False)
    assert limiter.wait(SYNC) == 30.0
    clock.advance(5.0)
    again = rate_limiter(clock, is_first_start=False)
    assert again.wait(SYNC) == 30.0
    assert limiter.wait(SYNC) == 25.0


def test_unknown_user_of_a_known_account_waits_likewise(clock: FakeClock) -> None:
    limiter = rate_limiter(clock)
    call(limiter, clock)
    clock.advance(60.0)
    limiter.set_user("user 2")
    assert limiter.wait(SYNC) == 30.0
    with pytest.raises(NotAllowedYet):
        call(limiter, clock, user="user 2")
    limiter.set_user("user 1")
    assert limiter.wait(SYNC) == 0.0


def test_user_of_an_account_that_was_never_called_may_be_called(clock: FakeClock) -> None:
    limiter = rate_limiter(clock)
    clock.advance(3600.0)
    limiter.record_failure(SYNC)
    clock.advance(limiter.wait(SYNC))
    call(limiter, clock)


def test_two_keys_of_one_user_in_turn_share_the_account_limit(clock: FakeClock) -> None:
    limiter = rate_limiter(clock)
    call(limiter, clock, user="key 1")
    clock.advance(limiter.wait(SYNC))
    limiter.set_user("key 2")
    clock.advance(limiter.wait(SYNC))
    call(limiter, clock, user="key 2")
    # The first key is known, and was not used for long. Its user may be the same.
    limiter.set_user("key 1")
    assert limiter.wait(SYNC) == 20.0


# The end of a backoff


def test_end_of_backoff_leaves_the_spacing(clock: FakeClock) -> None:
    limiter = rate_limiter(clock)
    for _ in range(4):
        clock.advance(limiter.wait(SYNC))
        fail(limiter, clock, error=Unauthorized)
    clock.advance(5.0)
    assert limiter.wait(SYNC) == 155.0
    limiter.end_backoff()
    assert limiter.wait(SYNC) == 15.0
    clock.advance(15.0)
    fail(limiter, clock, error=Unauthorized)
    assert limiter.wait(SYNC) == 20.0


def test_end_of_backoff_leaves_retry_after(clock: FakeClock) -> None:
    limiter = rate_limiter(clock)
    fail(limiter, clock, error=RateLimited, retry_after=600.0)
    limiter.record_failure(SYNC, retry_after=900.0)
    limiter.end_backoff()
    assert limiter.wait(SYNC) == 900.0


def test_end_of_backoff_covers_failures_without_a_request(clock: FakeClock) -> None:
    limiter = rate_limiter(clock)
    for _ in range(5):
        limiter.record_failure(SYNC)
    assert limiter.wait(SYNC) == 300.0
    limiter.end_backoff()
    assert limiter.wait(SYNC) == 0.0


def test_backoff_of_one_credential_does_not_delay_another(clock: FakeClock) -> None:
    store = MemoryStateStore(clock)
    wrong, right = (rate_limiter(clock, store=store) for _ in range(2))
    right.set_user("right key")
    for _ in range(5):
        clock.advance(wrong.wait(SYNC))
        fail(wrong, clock, error=Unauthorized, user="wrong key")
    assert wrong.wait(SYNC) == 300.0
    assert right.wait(SYNC) == 20.0


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_no_two_syncs_are_closer_than_20_seconds_and_no_hour_holds_more_than_the_share(
    seed: int,
) -> None:
    rng = random.Random(seed)
    clock = FakeClock()
    limiter = RateLimiter(
        "home", MemoryStateStore(clock), clock, RateLimitPolicy(requests_per_hour=60), is_first_start=True
    )
    ended: list[float] = []
    sent: list[float] = []
    gaps: list[float] = []

    def attempts() -> Iterator[None]:
        """Three simulated hours of someone who tries all the time, in every way."""
        while clock.monotonic() < 1_000 + 3 * 3600:
            yield
            clock.advance(rng.choice([0.0, 0.1, 1.0, 5.0, 19.99, 20.0, 60.0]))

    for _ in attempts():
        endpoint = rng.choice([SYNC, SYNC, LOCKS])
        with suppress(NotAllowedYet, CallError), limiter.acquire(endpoint, "user 1"):
            sent.append(clock.monotonic())
            if endpoint == SYNC and ended:
                gaps.append(clock.monotonic() - ended[-1])
            clock.advance(rng.choice([0.0, 0.3, 10.0]))
            if endpoint == SYNC:
                ended.append(clock.monotonic())
            if rng.random() < 0.2:
                raise RateLimited("x", account="a", endpoint=endpoint, retry_after=rng.choice([None, 0.0, 30.0]))

    assert len(gaps) > 50
    assert min(gaps) >= 20.0
    assert all(later - earlier >= 3600.0 for earlier, later in zip(sent, sent[60:], strict=False))
