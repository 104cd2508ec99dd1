"""Lost if these fail: the user's access to their own locks' API, which Tedee closes to those who call too often."""

import random
from collections.abc import Iterator
from contextlib import suppress

import pytest

from exporter.sync.budget import Budget, Rules
from exporter.sync.ledger import CalledTooEarly, MemoryLedger
from exporter.tedee.client import LOCKS, SYNC
from exporter.tedee.errors import CallError, RateLimited, ServerFailed
from tests.clock import FakeClock


def budget(clock: FakeClock, interval: float = 20.0, requests_per_hour: int = 350) -> Budget:
    rules = Rules(interval=interval, requests_per_hour=requests_per_hour)
    return Budget("home", MemoryLedger(), clock, rules, jitter=lambda: 1.0)


def call(gate: Budget, clock: FakeClock, endpoint: str = SYNC, takes: float = 0.5) -> None:
    with gate.passage(endpoint):
        clock.advance(takes)


def fail(
    gate: Budget, clock: FakeClock, endpoint: str = SYNC, error: type[CallError] = ServerFailed, **facts: float
) -> None:
    with suppress(CallError), gate.passage(endpoint):
        clock.advance(0.5)
        raise error("it failed", account="home", endpoint=endpoint, **facts)  # type: ignore[arg-type]


def test_the_first_sync_may_go_at_once(clock: FakeClock) -> None:
    assert budget(clock).wait(SYNC) == 0


def test_the_spacing_counts_from_the_answer_and_not_from_the_sending(clock: FakeClock) -> None:
    gate = budget(clock)
    call(gate, clock, takes=7.0)
    assert gate.wait(SYNC) == 20.0


def test_a_sync_a_moment_too_early_does_not_leave(clock: FakeClock) -> None:
    gate = budget(clock)
    call(gate, clock)
    clock.advance(19.999)
    with pytest.raises(CalledTooEarly):
        call(gate, clock)
    clock.advance(0.001)
    call(gate, clock)


def test_a_second_sync_does_not_leave_while_the_first_is_under_way(clock: FakeClock) -> None:
    gate = budget(clock)
    with gate.passage(SYNC):
        clock.advance(3600)
        assert gate.wait(SYNC) == float("inf")
        with pytest.raises(CalledTooEarly):
            call(gate, clock)


def test_a_refused_call_is_not_counted_and_leaves_the_gate_as_it_was(clock: FakeClock) -> None:
    gate = budget(clock)
    call(gate, clock)
    with pytest.raises(CalledTooEarly):
        call(gate, clock)
    assert gate.wait(SYNC) == 20.0
    assert gate.remaining() == 349


def test_names_may_be_fetched_right_after_a_sync_and_do_not_delay_the_next(clock: FakeClock) -> None:
    gate = budget(clock)
    call(gate, clock)
    call(gate, clock, LOCKS)
    call(gate, clock, LOCKS)
    assert gate.wait(SYNC) == 19.0


def test_an_interval_longer_than_20_seconds_is_kept(clock: FakeClock) -> None:
    gate = budget(clock, interval=60.0)
    call(gate, clock)
    assert gate.wait(SYNC) == 60.0


def test_an_interval_shorter_than_20_seconds_is_refused(clock: FakeClock) -> None:
    with pytest.raises(ValueError, match="one sync in 20 s"):
        budget(clock, interval=19.9)


def test_failures_double_the_wait_up_to_five_minutes(clock: FakeClock) -> None:
    gate = budget(clock)
    waits = []
    for _ in range(7):
        fail(gate, clock)
        waits.append(gate.wait(SYNC))
        clock.advance(waits[-1])
    assert waits == [20, 40, 80, 160, 300, 300, 300]


def test_a_success_ends_the_backoff(clock: FakeClock) -> None:
    gate = budget(clock)
    for _ in range(3):
        fail(gate, clock)
        clock.advance(gate.wait(SYNC))
    call(gate, clock)
    assert gate.wait(SYNC) == 20.0
    clock.advance(20)
    fail(gate, clock)
    assert gate.wait(SYNC) == 20.0


def test_jitter_makes_a_backoff_longer_and_never_shorter_than_the_spacing(clock: FakeClock) -> None:
    waits = set()
    for _ in range(50):
        gate = Budget("home", MemoryLedger(), clock)
        fail(gate, clock)
        waits.add(gate.wait(SYNC))
    assert min(waits) > 20.0
    assert len(waits) > 10


def test_failing_names_back_off_without_holding_up_the_sync(clock: FakeClock) -> None:
    gate = budget(clock)
    fail(gate, clock, LOCKS)
    assert gate.wait(LOCKS) == 20.0
    assert gate.wait(SYNC) == 0.0


@pytest.mark.parametrize("endpoint", [SYNC, LOCKS])
def test_retry_after_closes_every_endpoint(clock: FakeClock, endpoint: str) -> None:
    gate = budget(clock)
    fail(gate, clock, endpoint, RateLimited, retry_after=1234.0)
    assert gate.wait(SYNC) == 1234.0
    assert gate.wait(LOCKS) == 1234.0


def test_a_retry_after_shorter_than_the_spacing_does_not_shorten_it(clock: FakeClock) -> None:
    gate = budget(clock)
    fail(gate, clock, SYNC, RateLimited, retry_after=1.0)
    assert gate.wait(SYNC) == 20.0


def test_a_retry_after_of_years_waits_for_the_hour_that_tedee_counts_in(clock: FakeClock) -> None:
    gate = budget(clock)
    fail(gate, clock, SYNC, RateLimited, retry_after=1e9)
    assert gate.wait(SYNC) == 3600.0


def test_the_hourly_share_is_a_sliding_hour_over_all_endpoints(clock: FakeClock) -> None:
    gate = budget(clock, requests_per_hour=12)
    start = clock.monotonic()
    for _ in range(9):
        call(gate, clock)
        clock.advance(20)
    for _ in range(3):
        call(gate, clock, LOCKS)
    assert gate.remaining() == 0
    assert clock.monotonic() + gate.wait(SYNC) == start + 3600.0
    with pytest.raises(CalledTooEarly):
        call(gate, clock)
    clock.advance(gate.wait(SYNC))
    assert gate.remaining() == 1
    call(gate, clock)


def test_near_the_end_of_the_share_syncs_slow_down_and_do_not_stop(clock: FakeClock) -> None:
    gate = budget(clock, requests_per_hour=100)
    start, gaps = clock.monotonic(), []
    while clock.monotonic() < start + 2 * 3600:
        gaps.append(gate.wait(SYNC))
        clock.advance(gaps[-1])
        call(gate, clock, takes=0.0)
    assert gaps[1:50] == [20.0] * 49
    assert max(gaps) < 120
    assert len(gaps) >= 180


def test_names_cannot_use_up_the_share_of_the_sync(clock: FakeClock) -> None:
    gate = budget(clock, requests_per_hour=30)
    for _ in range(10):
        call(gate, clock, LOCKS, takes=0.0)
    assert gate.wait(LOCKS) == 3600.0
    assert gate.wait(SYNC) == 0.0


def test_a_postponed_call_waits_like_a_failed_one_and_costs_nothing(clock: FakeClock) -> None:
    gate = budget(clock)
    gate.postpone(LOCKS)
    gate.postpone(LOCKS)
    assert gate.wait(LOCKS) == 40.0
    assert gate.remaining() == 350


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_no_two_syncs_are_closer_than_20_seconds_and_no_hour_holds_more_than_the_share(
    seed: int,
) -> None:
    rng = random.Random(seed)
    clock = FakeClock()
    gate = Budget("home", MemoryLedger(), clock, Rules(requests_per_hour=60))
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
        with suppress(CalledTooEarly, CallError), gate.passage(endpoint):
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
