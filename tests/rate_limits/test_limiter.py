"""The rate limiter: spacing, hourly share, endpoint limits, backoff."""

import random
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import pairwise

import pytest

from exporter.state.cache import Change, StateCache
from exporter.state.rate_limits import RateLimitPolicy, RateLimitState
from exporter.sync.limiter import NotAllowedYet, RateLimiter
from exporter.tedee.endpoint import ACTIVITIES, DEVICES, DOOR_SENSORS, SYNC, Endpoint
from exporter.tedee.errors import CallError, RateLimited, ServerFailed, Unauthorized
from testing.clock import FakeClock


def rate_limiter(
    clock: FakeClock,
    interval: float = 20.0,
    requests_per_hour: int = 350,
    *,
    account: str = "home",
    states: StateCache | None = None,
    is_first_start: bool = True,
) -> RateLimiter:
    policy = RateLimitPolicy(interval=interval, requests_per_hour=requests_per_hour)
    states = states or StateCache(clock)
    return RateLimiter(account, states, clock, policy, jitter=lambda: 1.0, is_first_start=is_first_start)


def call(
    limiter: RateLimiter, clock: FakeClock, endpoint: Endpoint = SYNC, takes: float = 0.5, user: str = "user 1"
) -> None:
    with limiter.acquire(endpoint, user):
        clock.advance(takes)


def fail(
    limiter: RateLimiter,
    clock: FakeClock,
    endpoint: Endpoint = SYNC,
    error: type[CallError] = ServerFailed,
    user: str = "user 1",
    **facts: float,
) -> None:
    with suppress(CallError), limiter.acquire(endpoint, user):
        clock.advance(0.5)
        raise error("it failed", account="home", endpoint=endpoint.path, **facts)  # type: ignore[arg-type]


def test_first_sync_is_allowed_at_once(clock: FakeClock) -> None:
    assert rate_limiter(clock).wait(SYNC) == 0


def test_spacing_counts_from_the_response(clock: FakeClock) -> None:
    limiter = rate_limiter(clock)
    call(limiter, clock, takes=7.0)
    assert limiter.wait(SYNC) == 20.0


def test_early_sync_is_rejected(clock: FakeClock) -> None:
    limiter = rate_limiter(clock)
    call(limiter, clock)
    clock.advance(19.999)
    with pytest.raises(NotAllowedYet):
        call(limiter, clock)
    clock.advance(0.001)
    call(limiter, clock)


def test_second_sync_is_rejected_while_first_is_in_progress(clock: FakeClock) -> None:
    limiter = rate_limiter(clock)
    with limiter.acquire(SYNC, "user 1"):
        clock.advance(3600)
        assert limiter.wait(SYNC) == float("inf")
        with pytest.raises(NotAllowedYet):
            call(limiter, clock)


def test_reservation_time_is_read_after_wait_for_store(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time-out of the call counts from this time. Many accounts may wait for one store on a slow disk."""

    class SlowStates(StateCache):
        def update(self, keys: Sequence[str], change: Change) -> tuple[RateLimitState, ...]:
            clock.advance(9.0)
            return super().update(keys, change)

    monkeypatch.setattr("exporter.sync.limiter.boottime", clock.monotonic)
    with rate_limiter(clock, states=SlowStates(clock)).acquire(SYNC, "user 1") as reserved_at:
        assert reserved_at == clock.monotonic()


def test_rejected_call_does_not_change_the_state(clock: FakeClock) -> None:
    limiter = rate_limiter(clock)
    call(limiter, clock)
    with pytest.raises(NotAllowedYet):
        call(limiter, clock)
    assert limiter.wait(SYNC) == 20.0
    assert limiter.remaining() == 349


def test_devices_do_not_delay_syncs(clock: FakeClock) -> None:
    limiter = rate_limiter(clock)
    call(limiter, clock)
    call(limiter, clock, DEVICES)
    call(limiter, clock, DEVICES)
    assert limiter.wait(SYNC) == 19.0


def test_interval_above_20_seconds_is_used(clock: FakeClock) -> None:
    limiter = rate_limiter(clock, interval=60.0)
    call(limiter, clock)
    assert limiter.wait(SYNC) == 60.0


def test_interval_below_20_seconds_is_rejected(clock: FakeClock) -> None:
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


def test_success_ends_the_backoff(clock: FakeClock) -> None:
    limiter = rate_limiter(clock)
    for _ in range(3):
        fail(limiter, clock)
        clock.advance(limiter.wait(SYNC))
    call(limiter, clock)
    assert limiter.wait(SYNC) == 20.0
    clock.advance(20)
    fail(limiter, clock)
    assert limiter.wait(SYNC) == 20.0


def test_jitter_never_shortens_the_spacing(clock: FakeClock) -> None:
    waits = set()
    for _ in range(50):
        limiter = RateLimiter("home", StateCache(clock), clock, is_first_start=True)
        fail(limiter, clock)
        waits.add(limiter.wait(SYNC))
    assert min(waits) > 20.0
    assert len(waits) > 10


def test_failing_devices_do_not_delay_syncs(clock: FakeClock) -> None:
    limiter = rate_limiter(clock)
    fail(limiter, clock, DEVICES)
    assert limiter.wait(DEVICES) == 20.0
    assert limiter.wait(SYNC) == 0.0


def test_retry_after_of_a_sync_blocks_every_endpoint(clock: FakeClock) -> None:
    limiter = rate_limiter(clock)
    fail(limiter, clock, SYNC, RateLimited, retry_after=1234.0)
    assert limiter.wait(SYNC) == 1234.0
    assert limiter.wait(DEVICES) == 1234.0


def test_retry_after_of_devices_blocks_only_them(clock: FakeClock) -> None:
    limiter = rate_limiter(clock)
    fail(limiter, clock, DEVICES, RateLimited, retry_after=1234.0)
    assert limiter.wait(SYNC) == 0.0
    assert limiter.wait(DEVICES) == 1234.0


def test_endpoint_is_limited_to_4_requests_in_10_minutes(clock: FakeClock) -> None:
    limiter = rate_limiter(clock)
    sent: list[float] = []
    while clock.monotonic() < 1_000 + 3 * 3600:
        call(limiter, clock, DEVICES, takes=0.0)
        sent.append(clock.monotonic())
        clock.advance(limiter.wait(DEVICES) + 1.0)
    assert len(sent) > 70
    # The delay of a request on its way to Tedee may be up to 10 seconds.
    assert min(later - earlier for earlier, later in zip(sent, sent[4:], strict=False)) >= 610.0


def test_short_retry_after_does_not_shorten_the_spacing(clock: FakeClock) -> None:
    limiter = rate_limiter(clock)
    fail(limiter, clock, SYNC, RateLimited, retry_after=1.0)
    assert limiter.wait(SYNC) == 20.0


def test_long_retry_after_is_limited_to_an_hour(clock: FakeClock) -> None:
    limiter = rate_limiter(clock)
    fail(limiter, clock, SYNC, RateLimited, retry_after=1e9)
    assert limiter.wait(SYNC) == 3600.0


def test_hourly_share_is_a_sliding_window_of_all_endpoints(clock: FakeClock) -> None:
    limiter = rate_limiter(clock, requests_per_hour=12)
    start = clock.monotonic()
    for _ in range(9):
        call(limiter, clock)
        clock.advance(20)
    for _ in range(3):
        call(limiter, clock, DEVICES)
    assert limiter.remaining() == 0
    assert clock.monotonic() + limiter.wait(SYNC) == start + 3600.0
    with pytest.raises(NotAllowedYet):
        call(limiter, clock)
    clock.advance(limiter.wait(SYNC))
    assert limiter.remaining() == 1
    call(limiter, clock)


def test_syncs_slow_down_near_the_end_of_the_share(clock: FakeClock) -> None:
    limiter = rate_limiter(clock, requests_per_hour=100)
    start, gaps = clock.monotonic(), []
    while clock.monotonic() < start + 2 * 3600:
        gaps.append(limiter.wait(SYNC))
        clock.advance(gaps[-1])
        call(limiter, clock, takes=0.0)
    assert gaps[1:50] == [20.0] * 49
    assert max(gaps) < 120
    assert len(gaps) >= 180


def test_devices_cannot_exhaust_the_hourly_share(clock: FakeClock) -> None:
    limiter = rate_limiter(clock, requests_per_hour=30)
    for _ in range(10):
        call(limiter, clock, DOOR_SENSORS, takes=0.0)
    assert limiter.wait(DOOR_SENSORS) == 3600.0
    assert limiter.wait(SYNC) == 0.0


def test_recorded_failure_backs_off_without_a_request(clock: FakeClock) -> None:
    limiter = rate_limiter(clock)
    limiter.record_failure(DEVICES)
    limiter.record_failure(DEVICES)
    assert limiter.wait(DEVICES) == 40.0
    assert limiter.remaining() == 350


# Endpoints of the lowest priority


def test_lowest_priority_waits_for_the_hour_without_requests_for_it(clock: FakeClock) -> None:
    limiter = rate_limiter(clock, requests_per_hour=200)  # syncs need 180
    assert limiter.policy.lowest_priority_limit == 0
    assert limiter.wait(ACTIVITIES) == float("inf")
    assert limiter.wait(SYNC) == limiter.wait(DEVICES) == 0.0
    with pytest.raises(NotAllowedYet):
        call(limiter, clock, ACTIVITIES)
    assert limiter.remaining() == 200


def test_lowest_priority_is_spread_over_the_hour(clock: FakeClock) -> None:
    limiter = rate_limiter(clock)
    limit, start = limiter.policy.lowest_priority_limit, clock.monotonic()
    sent = []
    while clock.monotonic() < start + 3 * 3600:
        clock.advance(limiter.wait(ACTIVITIES))
        call(limiter, clock, ACTIVITIES, takes=0.0)
        sent.append(clock.monotonic() - start)
    assert limit == 64
    gaps = [later - earlier for earlier, later in pairwise(sent)]
    # A fifth of the requests at once, the others at the same distance.
    assert {*gaps[:12]} == {0.0}
    assert {round(gap) for gap in gaps[13:63]} == {69}
    assert max(gaps) < 70
    assert len(sent) == pytest.approx(3 * limit, abs=limit * 0.2)


def test_lowest_priority_leaves_what_the_others_use_in_addition(clock: FakeClock) -> None:
    limiter = rate_limiter(clock)
    for number in range(170):
        call(limiter, clock, takes=0.0)
        if number % 2:
            call(limiter, clock, DOOR_SENSORS, takes=0.0)
        clock.advance(20.0)
    # 170 syncs and 85 other calls are 39 more than the 216 that others are expected to make.
    sent = 0
    while limiter.wait(ACTIVITIES) == 0:
        call(limiter, clock, ACTIVITIES, takes=0.0)
        sent += 1
    # A fifth of what is left can be sent at once.
    assert 3 < sent <= 0.2 * (limiter.policy.lowest_priority_limit - 39) + 2


def sync_times(
    requests_per_hour: int, interval: float, *, with_events: bool, revisions_change: bool = False, seed: int = 1
) -> list[float]:
    """Return the times of the syncs in three hours, with all other calls that the limits allow."""
    clock, rng = FakeClock(), random.Random(seed)
    limiter = rate_limiter(clock, interval=interval, requests_per_hour=requests_per_hour)
    end, due, times = clock.monotonic() + 3 * 3600, dict.fromkeys((DEVICES, DOOR_SENSORS), 0.0), []
    sent: list[float] = []

    def reserve(endpoint: Endpoint) -> None:
        sent.append(clock.monotonic())
        call(limiter, clock, endpoint, takes=0.0)

    while clock.monotonic() < end:
        clock.advance(limiter.wait(SYNC))
        times.append(clock.monotonic())
        reserve(SYNC)
        for endpoint, at in due.items():
            if (at <= clock.monotonic() or (revisions_change and endpoint is DEVICES)) and limiter.wait(endpoint) == 0:
                reserve(endpoint)
                due[endpoint] = clock.monotonic() + 600
        clock.advance(rng.uniform(0.0, 1.0))
        while with_events and limiter.wait(ACTIVITIES) == 0:
            reserve(ACTIVITIES)
    assert all(later - earlier >= 3599.999 for earlier, later in zip(sent, sent[requests_per_hour:], strict=False))
    return times


@pytest.mark.parametrize("interval", [20.0, 30.0, 60.0, 600.0])
@pytest.mark.parametrize("requests_per_hour", [10, 60, 200, 260, 300, 350, 400, 700])
def test_events_never_delay_syncs(requests_per_hour: int, interval: float) -> None:
    without, with_events = (sync_times(requests_per_hour, interval, with_events=events) for events in (False, True))
    assert with_events == without


@pytest.mark.parametrize("requests_per_hour", [300, 350, 400, 700])
def test_events_and_changing_revisions_never_delay_syncs(requests_per_hour: int) -> None:
    without, with_events = (
        sync_times(requests_per_hour, 20.0, with_events=events, revisions_change=True) for events in (False, True)
    )
    assert with_events == without


# Users


def test_renamed_account_shares_the_limit_of_its_user(clock: FakeClock) -> None:
    states = StateCache(clock)
    home = rate_limiter(clock, states=states)
    call(home, clock, takes=7.0)
    house = rate_limiter(clock, states=states, account="house")
    house.set_user("user 1")
    assert house.wait(SYNC) == 20.0
    with pytest.raises(NotAllowedYet):
        call(house, clock)
    clock.advance(20.0)
    call(house, clock)
    assert home.wait(SYNC) == 20.0
    assert house.remaining() == home.remaining() == 348


def test_call_in_progress_blocks_other_account_of_user(clock: FakeClock) -> None:
    states = StateCache(clock)
    home = rate_limiter(clock, states=states)
    other = rate_limiter(clock, states=states, account="hotel")
    with home.acquire(SYNC, "user 1"):
        with pytest.raises(NotAllowedYet):
            call(other, clock)
        assert other.wait(SYNC) == 30.0
        clock.advance(9.0)
    assert other.wait(SYNC) == 20.0


def test_accounts_of_different_users_are_independent(clock: FakeClock) -> None:
    states = StateCache(clock)
    call(rate_limiter(clock, states=states), clock)
    call(rate_limiter(clock, states=states, account="hotel"), clock, user="user 2")


def test_unknown_account_waits_for_call_and_spacing(clock: FakeClock) -> None:
    limiter = rate_limiter(clock, is_first_start=False)
    assert limiter.wait(SYNC) == 30.0
    clock.advance(5.0)
    again = rate_limiter(clock, is_first_start=False)
    assert again.wait(SYNC) == 30.0
    assert limiter.wait(SYNC) == 25.0


def test_unknown_user_of_known_account_waits(clock: FakeClock) -> None:
    limiter = rate_limiter(clock)
    call(limiter, clock)
    clock.advance(60.0)
    limiter.set_user("user 2")
    assert limiter.wait(SYNC) == 30.0
    with pytest.raises(NotAllowedYet):
        call(limiter, clock, user="user 2")
    limiter.set_user("user 1")
    assert limiter.wait(SYNC) == 0.0


def test_account_without_calls_waits_only_for_backoff(clock: FakeClock) -> None:
    limiter = rate_limiter(clock)
    clock.advance(3600.0)
    limiter.record_failure(SYNC)
    clock.advance(limiter.wait(SYNC))
    call(limiter, clock)


def test_two_keys_of_an_account_share_its_limit(clock: FakeClock) -> None:
    limiter = rate_limiter(clock)
    call(limiter, clock, user="key 1")
    clock.advance(limiter.wait(SYNC))
    limiter.set_user("key 2")
    clock.advance(limiter.wait(SYNC))
    call(limiter, clock, user="key 2")
    # The first key was not used for long, but its user may be the same.
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


def test_end_of_backoff_covers_recorded_failures(clock: FakeClock) -> None:
    limiter = rate_limiter(clock)
    for _ in range(5):
        limiter.record_failure(SYNC)
    assert limiter.wait(SYNC) == 300.0
    limiter.end_backoff()
    assert limiter.wait(SYNC) == 0.0


def test_backoff_of_a_credential_does_not_delay_another(clock: FakeClock) -> None:
    states = StateCache(clock)
    wrong, right = (rate_limiter(clock, states=states) for _ in range(2))
    right.set_user("right key")
    for _ in range(5):
        clock.advance(wrong.wait(SYNC))
        fail(wrong, clock, error=Unauthorized, user="wrong key")
    assert wrong.wait(SYNC) == 300.0
    assert right.wait(SYNC) == 20.0


@pytest.mark.parametrize("seed", range(20))
def test_random_calls_never_exceed_the_limits(
    seed: int,
) -> None:
    rng = random.Random(seed)
    clock = FakeClock()
    limiter = RateLimiter("home", StateCache(clock), clock, RateLimitPolicy(requests_per_hour=60), is_first_start=True)
    ended: list[float] = []
    sent: list[float] = []
    gaps: list[float] = []

    def steps() -> Iterator[None]:
        """Advance the clock by random steps for three hours."""
        while clock.monotonic() < 1_000 + 3 * 3600:
            yield
            clock.advance(rng.choice([0.0, 0.1, 1.0, 5.0, 19.99, 20.0, 60.0]))

    for _ in steps():
        endpoint = rng.choice([SYNC, SYNC, DEVICES, DOOR_SENSORS, ACTIVITIES])
        with suppress(NotAllowedYet, CallError), limiter.acquire(endpoint, "user 1"):
            sent.append(clock.monotonic())
            if endpoint == SYNC and ended:
                gaps.append(clock.monotonic() - ended[-1])
            clock.advance(rng.choice([0.0, 0.3, 10.0]))
            if endpoint == SYNC:
                ended.append(clock.monotonic())
            if rng.random() < 0.2:
                raise RateLimited("x", account="a", endpoint=endpoint.path, retry_after=rng.choice([None, 0.0, 30.0]))

    assert len(gaps) > 50
    assert min(gaps) >= 20.0
    assert all(later - earlier >= 3600.0 for earlier, later in zip(sent, sent[60:], strict=False))
