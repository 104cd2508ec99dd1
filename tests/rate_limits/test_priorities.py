"""Requests of lower priorities: they stay within the share, starve no endpoint, and delay no sync."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import pairwise

import pytest

from exporter.state.rate_limits import HOUR, LOW_PRIORITY_RESERVE, RateLimitPolicy, RateLimitState
from exporter.tedee.endpoint import ACTIVITIES, DEVICES, DOOR_SENSORS, SYNC, Endpoint

HOURS = 4
DEVICES_INTERVAL = 300.0
BEFORE_SYNC = 11.0
"""Seconds before a sync in which no other request is sent."""


def simulate(
    policy: RateLimitPolicy, *, with_events: bool, changes: tuple[float, float]
) -> Mapping[Endpoint, Sequence[float]]:
    """Return the times of all requests. Between two times, devices are always due, since their revisions change."""
    state, now = RateLimitState(), 0.0
    sent: dict[Endpoint, list[float]] = {SYNC: [], DEVICES: [], DOOR_SENSORS: [], ACTIVITIES: []}
    due_at = {SYNC: 0.0, DEVICES: 0.0, DOOR_SENSORS: 0.0, ACTIVITIES: 0.0 if with_events else HOURS * HOUR}
    while now < HOURS * HOUR:
        if changes[0] <= now < changes[1]:
            due_at[DEVICES] = now
        until_sync = policy.wait(state, SYNC, now)
        waits = {each: max(due_at[each] - now, policy.wait(state, each, now)) for each in sent}
        waits = {
            each: until_sync if each is not SYNC and wait <= 0 and until_sync < BEFORE_SYNC else wait
            for each, wait in waits.items()
        }
        endpoint = min(waits, key=lambda each: (max(0.0, waits[each]), each.priority))
        if waits[endpoint] > 0:
            now += waits[endpoint]
            continue
        sent[endpoint].append(now)
        state = policy.reserve(state, endpoint, now, 1)
        now += 0.3
        state = policy.succeeded(state, endpoint, now)
        if endpoint in (DEVICES, DOOR_SENSORS):
            due_at[endpoint] = now + DEVICES_INTERVAL
    return sent


def most_in_an_hour(times: Sequence[float]) -> int:
    ordered = sorted(times)
    # A request exactly an hour later is not in the same hour.
    return max((number + 1 - bisect_right(ordered, at - HOUR + 0.01) for number, at in enumerate(ordered)), default=0)


@pytest.mark.parametrize("changes", [(0.0, 0.0), (1800.0, 5400.0), (0.0, HOURS * HOUR)])
@pytest.mark.parametrize(
    ("interval", "share"), [(20.0, 350), (20.0, 700), (20.0, 280), (60.0, 350), (60.0, 120), (300.0, 60), (600.0, 350)]
)
def test_events_delay_no_sync_and_starve_no_endpoint(interval: float, share: int, changes: tuple[float, float]) -> None:
    policy = RateLimitPolicy(interval=interval, requests_per_hour=share)
    sent = simulate(policy, with_events=True, changes=changes)
    without = simulate(policy, with_events=False, changes=changes)
    assert most_in_an_hour([at for times in sent.values() for at in times]) <= share
    assert len(sent[SYNC]) >= len(without[SYNC])
    # A call that is in progress can delay a sync by a moment.
    assert max(mine - other for mine, other in zip(sent[SYNC], without[SYNC], strict=False)) < 1.0
    assert len(sent[DOOR_SENSORS]) >= 0.9 * len(without[DOOR_SENSORS])
    assert len(sent[DEVICES]) >= min(len(without[DEVICES]) - 1, HOURS * LOW_PRIORITY_RESERVE // 2)


@pytest.mark.parametrize(
    ("interval", "share", "expected"), [(20.0, 350, 64), (20.0, 271, 0), (20.0, 700, 344), (60.0, 350, 184)]
)
def test_number_of_requests_for_events(interval: float, share: int, expected: int) -> None:
    policy = RateLimitPolicy(interval=interval, requests_per_hour=share)
    assert policy.lowest_priority_limit == expected
    sent = simulate(policy, with_events=True, changes=(0.0, 0.0))
    assert most_in_an_hour(sent[ACTIVITIES]) == expected


def test_events_are_spread_over_the_hour() -> None:
    events = simulate(RateLimitPolicy(), with_events=True, changes=(0.0, 0.0))[ACTIVITIES]
    steady = [at for at in events if at > HOUR]
    gaps = [later - earlier for earlier, later in pairwise(steady)]
    assert max(gaps) < HOUR / 30
