"""The simulated activity log: every change of the world has its event, which is delivered late and can be paged."""

import itertools
from collections import Counter
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest

from exporter.simulator import (
    PERSONAL_TEXTS,
    Battery,
    Bridge,
    Gate,
    Keypad,
    Lock,
    Outages,
    User,
    World,
)
from exporter.simulator.activity import KEYPAD_NUMBERS, OPERATIONS
from exporter.simulator.usage_profile import (
    BUSY,
    FAMILY,
    FREQUENT,
    OPEN_BY_DAY,
    SELDOM,
    STAFF,
    STANDING_OPEN,
    LockState,
    LockTimeline,
    UsageProfile,
    Use,
)
from exporter.tedee.events import EventKind
from testing.factories import load_fixture

from .conftest import NOON, Served

HOUR = 3600.0
DAY = 24 * HOUR
BRIDGE = Bridge(7, "Hallway", "100011-00011")

UNLOCKED, PULLED, LOCKED, HALF_WAY = ({numbers[kind] for numbers in OPERATIONS.values()} for kind in range(4))
JAMMED, CHARGING, CHARGED, WRONG_PIN, UNAUTHORIZED_PIN, OPENED, CLOSED, TOO_LONG = 40, 46, 50, 62, 75, 83, 84, 86

JAMS = UsageProfile(FREQUENT.hourly_rates, FREQUENT.unlocked_for, jam_probability=0.3)
PULLS = UsageProfile(STAFF.hourly_rates, STAFF.unlocked_for, pulls_spring=True)


def numbers(lock: Lock, start: float, end: float) -> Counter[int]:
    return Counter(event.number for event in lock.events_between(start, end))


def in_world(lock: Lock, start: float, end: float) -> list[tuple[str, float]]:
    """Return the changes of bolt and door in [start, end), found by asking for the state at each moment it ends."""
    changes: list[tuple[str, float]] = []
    t = end
    while True:
        state = lock.at(t - 0.001)
        if state.since < start:
            return changes[::-1]
        before = lock.at(state.since - 0.001)
        if state.state != before.state:
            name = {2: "unlocked", 3: "half way", 6: "locked", 7: "pulled"}.get(state.state)
            if name and (name, before.state) != ("unlocked", 7):
                changes.append((name, round(state.since, 3)))
        if state.door != before.door:
            changes.append(("opened" if state.door == 2 else "closed", round(state.since, 3)))
        t = state.since


def in_events(lock: Lock, start: float, end: float) -> list[tuple[str, float]]:
    names = {
        **dict.fromkeys(UNLOCKED, "unlocked"),
        **dict.fromkeys(PULLED, "pulled"),
        **dict.fromkeys(LOCKED, "locked"),
        **dict.fromkeys(HALF_WAY, "half way"),
        OPENED: "opened",
        CLOSED: "closed",
    }
    return [(names[event.number], event.date) for event in lock.events_between(start, end) if event.number in names]


@pytest.mark.parametrize("has_door_sensor", [True, False])
@pytest.mark.parametrize("profile", [BUSY, FAMILY, JAMS, PULLS, OPEN_BY_DAY, SELDOM])
def test_every_change_of_a_lock_has_its_event(profile: UsageProfile, has_door_sensor: bool) -> None:
    check_events(Lock(1, "Door", profile=profile, bridge=BRIDGE, has_door_sensor=has_door_sensor), profile is BUSY)


def test_every_change_of_a_door_standing_open_has_its_event() -> None:
    check_events(Lock(1, "Door", profile=STANDING_OPEN, bridge=BRIDGE))


def check_events(lock: Lock, is_busy: bool = False) -> None:
    end = NOON + (6 * HOUR if is_busy else 3 * DAY)
    changes = in_world(lock, NOON, end)
    assert sorted(in_events(lock, NOON, end)) == sorted(changes)
    assert len(changes) > 3


def test_events_of_a_period_are_those_of_its_parts() -> None:
    lock = Lock(1, "Door", profile=PULLS, bridge=BRIDGE, accessories=[Keypad(21, "Keypad", wrong_pins=5)])
    whole = lock.events_between(NOON, NOON + 3 * DAY)
    assert whole == sorted(whole, key=lambda event: event.date)
    times = [event.date for event in whole]
    # Bounds that are dates of events, as of a client that pages.
    bounds = sorted({NOON, *times[::7], NOON + 3 * DAY})
    assert [event for start, end in pairwise(bounds) for event in lock.events_between(start, end)] == whole
    assert lock.events_between(NOON + DAY, NOON + DAY) == []


def test_events_are_the_same_in_every_world_of_a_seed() -> None:
    one, other = (World.demo(seed=3).account("home").lock("Front door") for _ in range(2))
    later = one.events_between(NOON + 10 * DAY, NOON + 11 * DAY)
    earlier = one.events_between(NOON, NOON + DAY)
    assert (other.events_between(NOON, NOON + DAY), other.events_between(NOON + 10 * DAY, NOON + 11 * DAY)) == (
        earlier,
        later,
    )


def test_jam_is_an_event_of_its_own() -> None:
    lock = Lock(1, "Gate", profile=JAMS, bridge=BRIDGE)
    events = lock.events_between(NOON, NOON + DAY)
    half_way = [event.date for event in events if event.number in HALF_WAY]
    assert [event.date for event in events if event.number == JAMMED] == [round(date + 0.02, 3) for date in half_way]
    assert half_way


def test_open_door_causes_an_event() -> None:
    lock = Lock(1, "Cellar", profile=STANDING_OPEN, bridge=BRIDGE)
    events = lock.events_between(NOON, NOON + 7 * DAY)
    opened = [event.date for event in events if event.number == OPENED]
    too_long = [event.date for event in events if event.number == TOO_LONG]
    assert too_long == [pytest.approx(date + 300, abs=0.002) for date in opened]
    assert len(too_long) == 14
    assert numbers(Lock(1, "Door", profile=FAMILY, bridge=BRIDGE), NOON, NOON + 7 * DAY)[TOO_LONG] == 0


def test_charging_has_events() -> None:
    battery = Battery(drain=20 * HOUR, charge=4 * HOUR, phase=2 * HOUR)
    lock = Lock(1, "Door", profile=None, battery=battery, bridge=BRIDGE)
    events = lock.events_between(NOON, NOON + 3 * DAY)
    assert [event.number for event in events] in ([CHARGING, CHARGED] * 3, [CHARGED, CHARGING] * 3)
    for event in events:
        assert battery.at(event.date + 1).charging is (event.number == CHARGING)
        assert battery.at(event.date - 1).charging is (event.number == CHARGED)


def test_lock_without_keypad_has_no_events_of_one() -> None:
    counts = numbers(Lock(1, "Door", profile=BUSY, bridge=BRIDGE), NOON, NOON + 3 * DAY)
    assert not set(counts) & KEYPAD_NUMBERS
    assert set(counts) > {32, 33, 34, 35, 36, 37, 38, 39, 57, 59, 88, 90, 226, 227, 228, 229}


@pytest.mark.parametrize("pro", [False, True])
def test_keypad_is_used_and_wrong_pins_are_typed(pro: bool) -> None:
    lock = Lock(1, "Door", profile=BUSY, bridge=BRIDGE, accessories=[Keypad(21, "Keypad", pro=pro, wrong_pins=3)])
    counts = numbers(lock, NOON, NOON + 10 * DAY)
    assert {61, 65, 66, WRONG_PIN, UNAUTHORIZED_PIN} < set(counts)
    assert (77 in counts) is pro
    wrong = [event.date for event in lock.events_between(NOON, NOON + 10 * DAY) if event.number == WRONG_PIN]
    bursts = [1]
    for a, b in pairwise(wrong):
        if b - a < 15:
            bursts[-1] += 1
        else:
            bursts.append(1)
    assert 15 < len(bursts) < 45
    assert max(bursts) >= 5


@pytest.mark.parametrize("way", OPERATIONS)
def test_numbers_of_operations_are_those_of_tedee(way: str) -> None:
    for number, event in zip(OPERATIONS[way], ("unlocked", "pulled", "locked", "semi_locked"), strict=True):
        # Tedee has one number for a spring that is pulled as part of an unlock.
        sources = {52: "auto", 64: "pin"}
        if number is not None:
            assert EventKind.of(number) == (event, sources.get(number, way))


def test_ids_are_unique_but_not_in_the_order_of_dates() -> None:
    account = World.demo().account("home")
    events = [event for lock in account.locks for event in lock.events_between(NOON, NOON + 14 * DAY)]
    ids = [event.id for event in events]
    assert len(set(ids)) == len(ids) > 50_000
    assert all(0 <= event_id < 2**53 for event_id in ids)
    rising = sum(a < b for a, b in pairwise(ids))
    assert 0.4 < rising / len(ids) < 0.6


def test_dates_of_a_lock_are_unique() -> None:
    # Two events with one date could be on both sides of the end of a page, and the second one would be lost.
    for lock in World.demo().account("home").locks:
        dates = [event.date for event in lock.events_between(NOON, NOON + 7 * DAY)]
        assert len(set(dates)) == len(dates)


def test_event_is_delivered_after_its_date() -> None:
    lock = Lock(1, "Door", profile=BUSY, bridge=BRIDGE)
    events = lock.events_between(NOON, NOON + DAY)
    delays = sorted(lock.delivered_at(event) - event.date for event in events)
    assert delays[0] > 0.9
    assert delays[len(delays) // 2] < 8.1
    assert 60 < delays[-1] < 300
    order = sorted(events, key=lock.delivered_at)
    assert order != events


def test_bridge_delivers_events_of_an_outage_together() -> None:
    bridge = Bridge(7, "Annex", outages=Outages(HOUR, 20 * 60, NOON))
    lock = Lock(1, "Door", profile=BUSY, bridge=bridge)
    during = lock.events_between(NOON, NOON + 20 * 60)
    assert len(during) > 10
    assert {lock.delivered_at(event) for event in during} == {NOON + 20 * 60 + 5}
    for t in (NOON + 20 * 60, NOON + 20 * 60 + 5.5):
        delivered = lock.delivered_events(t)
        assert set(during) & set(delivered) == (set() if t < NOON + 20 * 60 + 5 else set(during))
    assert [event.date for event in lock.delivered_events(NOON + 21 * 60)] == sorted(
        (event.date for event in lock.delivered_events(NOON + 21 * 60)), reverse=True
    )


@pytest.mark.parametrize(
    "lock", [Lock(1, "Door", profile=BUSY), Lock(1, "Door", profile=BUSY, bridge=BRIDGE, in_range=False)]
)
def test_phone_collects_events_of_unconnected_lock(lock: Lock) -> None:
    events = lock.events_between(NOON, NOON + 5 * HOUR)
    delivered = {lock.delivered_at(event) for event in events}
    assert len(delivered) in (5, 6)
    assert all(0 < lock.delivered_at(event) - event.date <= HOUR for event in events)


def test_delivered_events_are_those_that_arrived() -> None:
    lock = World.demo().account("hotel").lock("Annex")
    for minute in range(0, 24 * 60, 47):
        now = NOON + minute * 60
        known = [event for event in lock.events_between(now - DAY, now) if lock.delivered_at(event) <= now]
        newest = lock.delivered_events(now, limit=30)
        assert newest == known[::-1][:30]
        middle = newest[15].date
        assert lock.delivered_events(now, before=middle, limit=5) == [e for e in known[::-1] if e.date < middle][:5]


def test_days_of_events_can_be_read_at_once() -> None:
    lock = Lock(1, "Door", profile=BUSY, bridge=BRIDGE)
    newest = lock.delivered_events(NOON, limit=12_000)
    assert len(newest) == 12_000
    known = [event for event in lock.events_between(newest[-1].date, NOON) if lock.delivered_at(event) <= NOON]
    assert newest == known[::-1]


def test_event_can_be_added() -> None:
    lock = Lock(1, "Door", profile=None, bridge=BRIDGE)
    added = [
        lock.add_event(WRONG_PIN, NOON + 5, delivered_at=NOON + 100),
        lock.add_event(95, NOON + 7, user=User(1, "A person"), pin_alias="Alias"),
    ]
    assert lock.events_between(NOON, NOON + 10) == added
    assert len({event.id for event in added}) == 2
    assert lock.delivered_events(NOON + 60, limit=1) == [added[1]]
    assert lock.delivered_events(NOON + 100, limit=2) == added[::-1]
    lock.clear_events()
    assert lock.events_between(NOON, NOON + 10) == []


def test_no_event_is_older_than_the_lock() -> None:
    lock = Lock(1, "Door", profile=BUSY, bridge=BRIDGE, created="2026-11-23T10:00:00")
    created = NOON - HOUR
    everything = lock.delivered_events(NOON, limit=10_000)
    assert created <= everything[-1].date < created + 300
    assert lock.delivered_events(created) == []


def test_page_of_events_needs_few_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    computed = Counter[str]()
    states = LockTimeline.states

    def count(timeline: LockTimeline, use: Use) -> list[LockState]:
        computed["uses"] += 1
        return states(timeline, use)

    lock = Lock(1, "Door", profile=BUSY, bridge=BRIDGE)
    monkeypatch.setattr(LockTimeline, "states", count)
    for days in (0, 1, 1000):
        computed.clear()
        assert len(lock.delivered_events(NOON, before=NOON - days * DAY, limit=50)) == 50
        # A use has four events or more.
        assert computed["uses"] < 50


@pytest.mark.parametrize("zone", ["Europe/Warsaw", "America/St_Johns", "Pacific/Auckland"])
def test_events_of_a_year_are_those_of_its_days(zone: str) -> None:
    lock = Lock(1, "Door", profile=SELDOM, bridge=BRIDGE, time_zone=zone)
    year = lock.events_between(NOON, NOON + 365 * DAY)
    days = [lock.events_between(NOON + day * DAY, NOON + (day + 1) * DAY) for day in range(364, -1, -1)]
    assert [event for day in reversed(days) for event in day] == year


def activity(served: Served, query: str, **options: Any) -> list[dict[str, Any]]:
    result: list[dict[str, Any]] = served.get(f"my/deviceactivity?{query}", **options).json()["result"]
    return result


def timestamp(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def test_activity_returns_newest_events_first(served: Served) -> None:
    items = activity(served, "deviceId=1")
    events = served.account.lock(1).delivered_events(NOON)
    assert [item["id"] for item in items] == [event.id for event in events]
    assert [timestamp(item["date"]) for item in items] == [pytest.approx(event.date) for event in events]
    assert len(items) == 200
    assert served.cloud.calls[0].endpoint == "activity"
    assert served.cloud.calls[0].ids == (1,)


def test_activity_has_documented_fields(served: Served) -> None:
    documented = load_fixture("deviceactivity.json")
    items = activity(served, "deviceId=1")
    assert all(list(item)[:7] == list(documented["result"][0]) for item in items)
    assert {item["source"] for item in items} == {0, 1}
    assert all(item["deviceId"] == 1 and "Z" not in item["date"] for item in items)
    assert {(item["source"] == 1) <= (item["userId"] is not None) for item in items} == {True}


def test_activity_has_names_of_people(served: Served) -> None:
    served.account.lock(1).pair(Keypad(21, "Keypad"))
    items = list(itertools.chain.from_iterable(walk(served, pages=10)))
    names = {item[field] for item in items for field in ("username", "pinAlias", "accessLinkName") if item.get(field)}
    assert names == set(PERSONAL_TEXTS)
    assert all("pinAlias" not in item for item in items if item["event"] == WRONG_PIN)


def walk(served: Served, *, pages: int, elements: int = 200) -> list[list[dict[str, Any]]]:
    """Return that many pages of events, each with the last date of the previous one."""
    result = [activity(served, f"deviceId=1&elements={elements}")]
    while len(result) < pages:
        result.append(activity(served, f"deviceId=1&elements={elements}&lastElemDate={result[-1][-1]['date']}"))
    return result


def test_pages_of_activity_have_every_event_once(served: Served) -> None:
    pages = walk(served, pages=12, elements=13)
    assert [len(page) for page in pages] == [13] * 12
    events = served.account.lock(1).delivered_events(NOON, limit=12 * 13)
    assert [item["id"] for page in pages for item in page] == [event.id for event in events]


def test_activity_ends_with_an_empty_page(served: Served) -> None:
    assert activity(served, "deviceId=1&lastElemDate=2019-12-31T23:59:59") == []
    assert activity(served, "deviceId=1&lastElemDate=2020-01-01T00:00:00Z") == []


def test_no_more_than_200_events_are_sent(served: Served) -> None:
    assert len(activity(served, "deviceId=1&elements=1000")) == 200
    assert len(activity(served, "DEVICEID=1&Elements=3")) == 3


def test_only_locks_have_events(served: Served) -> None:
    served.account.add(Gate(41, "Gate"))
    assert activity(served, "deviceId=41") == []


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 400),
        ("deviceId=x", 400),
        ("deviceId=1&deviceId=2", 400),
        ("deviceId=1&elements=0", 400),
        ("deviceId=1&elements=many", 400),
        ("deviceId=1&lastElemDate=yesterday", 400),
        ("deviceId=99", 404),
    ],
)
def test_invalid_query_of_activity_is_refused(served: Served, query: str, status: int) -> None:
    response = served.get(f"my/deviceactivity?{query}")
    assert (response.status_code, response.json()["success"]) == (status, False)


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        ("PersonalKey wrong", 401),
        ("PersonalKey only-devices", 403),
        ("PersonalKey cannot-read", 403),
        ("PersonalKey only-events", 200),
        ("PersonalKey right", 200),
        ("Bearer jwt", 200),
    ],
)
def test_activity_needs_its_own_scope(served: Served, authorization: str, status: int) -> None:
    response = served.get("my/deviceactivity?deviceId=1", authorization=authorization)
    assert response.status_code == status
    if status == 403:
        assert response.json()["errorMessages"] == ["Forbidden: scope DeviceActivity.Read is missing"]


def test_key_for_activity_may_not_read_locks(served: Served) -> None:
    assert served.get(authorization="PersonalKey only-events").status_code == 403


def test_one_account_of_demo_may_not_read_activity() -> None:
    scopes = {account.name: account.keys[0].scopes for account in World.demo().accounts}
    assert [name for name, allowed in scopes.items() if "DeviceActivity.Read" not in allowed] == ["cabin"]
    assert all("Device.Read" in allowed for allowed in scopes.values())


def test_demo_has_events_of_every_important_kind() -> None:
    found: Counter[int] = Counter()
    for account in World.demo().accounts:
        for lock in account.locks:
            found += numbers(lock, NOON, NOON + DAY)
    assert set(found) > {JAMMED, CHARGING, CHARGED, WRONG_PIN, UNAUTHORIZED_PIN, OPENED, CLOSED, TOO_LONG, 61, 66, 77}
    staff = World.demo().account("hotel").lock("Staff door")
    for hour in range(0, 24, 4):
        assert numbers(staff, NOON + hour * HOUR, NOON + (hour + 4) * HOUR)[WRONG_PIN] > 0
