"""The simulated world: behaviour of locks and batteries, and the state that each API version reports."""

from itertools import pairwise

import pytest

from exporter.simulator import MISSING, Battery, Bridge, Lock, Outages, World
from exporter.simulator.usage_profile import BUSY, FREQUENT, JAMMING, OPEN_BY_DAY, STANDING_OPEN, UsageProfile
from exporter.simulator.wire import Version, datetime_text, lock_entry, sync_entry

from .conftest import NOON

V37 = Version("v37")
HOUR = 3600.0
DAY = 24 * HOUR
BRIDGE = Bridge(7, "Hallway", "100011-00011")


def state_of(lock: Lock, t: float = NOON) -> dict[str, object]:
    state = sync_entry(lock, t, V37)["deviceState"]
    assert isinstance(state, dict)
    return state


def test_worlds_with_the_same_seed_are_equal() -> None:
    times = [NOON + 997 * step for step in range(200)]
    one, other = World.demo(seed=5), World.demo(seed=5)
    for name in ("home", "hotel"):
        for lock, twin in zip(one.account(name).locks, other.account(name).locks, strict=True):
            forwards = [lock_entry(lock, t, V37) for t in times]
            backwards = [lock_entry(twin, t, V37) for t in reversed(times)]
            assert forwards == backwards[::-1]


def test_worlds_with_different_seeds_differ() -> None:
    one, other = (World.demo(seed).account("home").lock("Garden door") for seed in (1, 2))
    times = [NOON + 10 * step for step in range(100)]
    assert [one.at(t).state for t in times] != [other.at(t).state for t in times]


def test_lock_open_by_day_is_locked_at_night() -> None:
    lock = World.demo().account("home").lock("Garage")
    for day in range(14):
        assert lock.at(NOON + day * DAY).state == 2
        assert lock.at(NOON + day * DAY + 15 * HOUR).state == 6


def test_family_home_is_locked_at_night() -> None:
    lock = World.demo().account("home").lock("Front door")
    for day in range(14):
        night = NOON + day * DAY + 15 * HOUR
        assert lock.at(night).state == 6


def test_main_entrance_has_rush_hours() -> None:
    lock = World.demo().account("hotel").lock("Main entrance")

    def changes(hour: int) -> int:
        """Return the number of state changes from that hour of the day to the next one, in a week."""
        times = (NOON + day * DAY + (hour - 12) * HOUR + second for day in range(7) for second in range(0, 3600, 10))
        return len({lock.at(t).changed_at for t in times})

    night, morning, noon, evening = (changes(hour) for hour in (3, 9, 12, 18))
    assert 0 < night < noon / 4
    assert noon < morning / 2
    assert noon < evening / 2


@pytest.mark.parametrize("hour", [0, 5.5, 12, 21])
def test_world_with_start_hour_begins_at_that_hour(hour: float) -> None:
    started = NOON + 1.25 + hour * HOUR
    world = World.demo(clock=lambda: started, start_hour=14)
    garage, cabin = world.account("home").lock("Garage"), world.account("cabin")
    for day in range(5):
        assert [garage.at(started + day * DAY + at * HOUR).state for at in (0, 4, 11, 13, 20)] == [2, 2, 6, 6, 2]
    assert [cabin.has_outage(started + minute * 60) for minute in (0, 4, 6, 14, 16, 34, 36)] == [
        *(False, False, True, True),
        *(False, False, True),
    ]
    assert garage.time_zone == "Europe/Warsaw"
    assert garage.at(started).changed_at < started


def test_busy_lock_changes_every_three_minutes() -> None:
    lock = World.demo().account("home").lock("Garden door")
    for minute in range(0, 24 * 60, 7):
        t = NOON + minute * 60
        assert t - lock.at(t).changed_at < 180


def test_changed_at_is_the_time_of_the_last_change() -> None:
    lock = Lock(1, "Door", profile=BUSY, bridge=BRIDGE)
    t = NOON
    for _ in range(200):
        state = lock.at(t)
        assert lock.at(state.changed_at).state == state.state
        before = lock.at(state.changed_at - 0.001)
        assert before.state != state.state
        assert before.changed_at < state.changed_at
        t = before.since


def test_change_has_a_transitional_state() -> None:
    lock = Lock(1, "Door", profile=BUSY, bridge=BRIDGE)
    seen = [lock.at(NOON + step * 0.2).state for step in range(2000)]
    steps = {(a, b) for a, b in pairwise(seen) if a != b}
    assert steps == {(6, 4), (4, 2), (2, 5), (5, 6)}


def test_spring_pull_has_its_states() -> None:
    lock = Lock(1, "Door", profile=UsageProfile(BUSY.hourly_rates, BUSY.unlocked_for, pulls_spring=True), bridge=BRIDGE)
    seen = [lock.at(NOON + step * 0.2).state for step in range(2000)]
    steps = {(a, b) for a, b in pairwise(seen) if a != b}
    assert steps == {(6, 4), (4, 2), (2, 8), (8, 7), (7, 2), (2, 5), (5, 6)}


def test_door_is_open_only_while_unlocked() -> None:
    for profile in (BUSY, OPEN_BY_DAY):
        lock = Lock(1, "Door", profile=profile, bridge=BRIDGE)
        states = [lock.at(NOON + step) for step in range(4 * 3600)]
        assert {state.door for state in states} == {2, 3}
        assert {state.state for state in states if state.door == 2} == {2}


def test_lock_without_door_sensor_reports_not_paired() -> None:
    assert state_of(World.demo().account("home").lock("Cellar"))["doorState"] == 0


def test_jammed_lock_is_semi_locked_until_next_use() -> None:
    lock = Lock(
        1,
        "Gate",
        profile=UsageProfile(FREQUENT.hourly_rates, FREQUENT.unlocked_for, jam_probability=0.3),
        bridge=BRIDGE,
    )
    states = [lock.at(NOON + step) for step in range(20 * 3600)]
    assert {state.state for state in states if state.result == 1} == {3, 4}
    after_jam = {b.state for a, b in pairwise(states) if a.state == 3 and b.state != 3}
    assert after_jam == {4}


def test_pool_gate_of_demo_jams_every_day() -> None:
    lock = World.demo().account("hotel").lock("Pool gate")
    for day in range(5):
        assert 3 in {lock.at(NOON + day * DAY + minute * 60).state for minute in range(24 * 60)}


def test_jamming_lock_is_jammed_most_of_the_time() -> None:
    lock = Lock(1, "Gate", profile=JAMMING, bridge=BRIDGE)
    states = [lock.at(NOON + 30 * step) for step in range(3 * 24 * 120)]
    assert sum(state.state == 3 for state in states) > 0.95 * len(states)
    assert {state.state for state in states if state.result == 0} <= {2, 4, 5}
    assert 6 not in {state.state for state in states}


def test_lock_standing_open_is_closed_for_a_minute() -> None:
    lock = Lock(1, "Cellar", profile=STANDING_OPEN, bridge=BRIDGE)
    states = [lock.at(NOON + 5 * step) for step in range(3 * 24 * 720)]
    assert sum((state.state, state.door) == (2, 2) for state in states) > 0.99 * len(states)
    assert {state.door for state in states if state.state == 6} == {3}


def test_lock_without_profile_is_not_calibrated() -> None:
    lock = Lock(4, "Door", profile=None, bridge=BRIDGE, created="2026-02-03T10:20:30")
    state = state_of(lock)
    assert (state["state"], state["doorState"], state["lastStateChangedDate"]) == (0, 0, "2026-02-03T10:20:30.000Z")
    assert lock.at(NOON + DAY) == lock.at(NOON)


def test_lock_out_of_range_is_not_connected() -> None:
    lock = Lock(1, "Door", bridge=BRIDGE, in_range=False)
    assert sync_entry(lock, NOON, V37) == {"id": 1, "isConnected": False, "deviceState": None, "revision": 1}


def test_battery_drains_then_charges() -> None:
    battery = Battery(drain=90 * HOUR, charge=10 * HOUR, low=10)
    assert battery.at(0) == (100, False)
    assert battery.at(45 * HOUR) == (55, False)
    assert battery.at(90 * HOUR) == (10, True)
    assert battery.at(95 * HOUR) == (55, True)
    assert battery.at(100 * HOUR) == (100, False)


def test_battery_without_charge_time_is_replaced() -> None:
    battery = Battery(drain=10 * HOUR, charge=0, low=10, full=20)
    assert [battery.at(hour * HOUR) for hour in (0, 5, 10)] == [(20, False), (15, False), (20, False)]


def test_battery_without_drain_time_is_charging() -> None:
    battery = Battery(drain=0, charge=10 * HOUR, low=100)
    assert [battery.at(hour * HOUR) for hour in (0, 5, 10)] == [(100, True)] * 3


def test_default_battery_lasts_weeks() -> None:
    lock = Lock(1, "Door")
    charging = sum(lock.battery.at(NOON + hour * HOUR).charging for hour in range(24 * 7 * 24))
    assert 3 <= charging <= 6 * 7


def test_outages_repeat() -> None:
    outages = Outages(period=100.0, length=20.0, start=1_030.0)
    assert [t for t in range(0, 250, 10) if outages.active(t)] == [30, 40, 130, 140, 230, 240]


def test_annex_of_demo_is_away_a_third_of_each_hour() -> None:
    bridge = next(bridge for bridge in World.demo().account("hotel").bridges if bridge.name == "Annex")
    for hour in range(24):
        assert sum(not bridge.connected(NOON + hour * HOUR + minute * 60) for minute in range(60)) == 20


def test_lock_has_no_state_during_bridge_outage() -> None:
    lock = World.demo().account("hotel").lock("Annex")
    entries = [sync_entry(lock, NOON + minute * 60, V37) for minute in range(24 * 60)]
    assert {(entry["isConnected"], entry["deviceState"] is None) for entry in entries} == {
        (True, False),
        (False, True),
    }


def test_unpaired_lock_has_no_connection_state() -> None:
    entry = lock_entry(World.demo().account("hotel").lock("Linen room"), NOON, V37)
    assert entry["isConnected"] is None
    assert entry["deviceState"] is None
    assert entry["connectedToId"] is None


def test_state_is_lock_properties_up_to_version_1_34() -> None:
    lock = Lock(1, "Door", bridge=BRIDGE)
    for version in ("v1.33", "v1.34"):
        assert set(sync_entry(lock, NOON, Version(version))) == {"id", "isConnected", "lockProperties", "revision"}
    for version in ("v1.35", "v1.36", "v37"):
        assert set(sync_entry(lock, NOON, Version(version))) == {"id", "isConnected", "deviceState", "revision"}


def test_datetimes_have_both_formats_of_tedee() -> None:
    assert datetime_text(1619416924.197) == "2021-04-26T06:02:04.197Z"
    assert datetime_text(1619416924.197, seven_digits=True) == "2021-04-26T06:02:04.1970000"
    assert str(state_of(Lock(4, "Door", bridge=BRIDGE))["lastStateChangedDate"]).endswith("Z")
    assert str(state_of(Lock(3, "Door", bridge=BRIDGE))["lastStateChangedDate"]).endswith("0000")


def test_override_replaces_fields_of_state() -> None:
    lock = Lock(1, "Door", bridge=BRIDGE)
    default = state_of(lock)
    lock.override(batteryLevel=255, state="junk")
    assert state_of(lock) == default | {"batteryLevel": 255, "state": "junk"}
    lock.clear_overrides()
    assert state_of(lock) == default


def test_lock_overridden_as_disconnected_has_no_state() -> None:
    lock = Lock(1, "Door", bridge=BRIDGE)
    lock.override(isConnected=False)
    assert sync_entry(lock, NOON, V37) == {"id": 1, "isConnected": False, "deviceState": None, "revision": 1}


def test_disconnected_lock_can_report_255() -> None:
    lock = Lock(1, "Door", bridge=BRIDGE)
    lock.override(isConnected=False, batteryLevel=255)
    assert state_of(lock)["batteryLevel"] == 255


def test_override_of_state_uses_name_of_version() -> None:
    lock = Lock(1, "Door", bridge=BRIDGE)
    lock.override(deviceState={"state": 1000})
    assert sync_entry(lock, NOON, Version("v1.34"))["lockProperties"] == {"state": 1000}
    assert "deviceState" not in sync_entry(lock, NOON, Version("v1.34"))
    lock.override(deviceState=None)
    assert sync_entry(lock, NOON, V37)["deviceState"] is None


def test_override_can_remove_a_field() -> None:
    lock = Lock(1, "Door", bridge=BRIDGE)
    lock.override(revision=MISSING, doorState=MISSING)
    assert set(sync_entry(lock, NOON, V37)) == {"id", "isConnected", "deviceState"}
    assert "doorState" not in state_of(lock)
    lock.override(deviceState=MISSING)
    assert set(sync_entry(lock, NOON, V37)) == {"id", "isConnected"}


def test_override_of_detail_is_not_in_sync() -> None:
    lock = Lock(1, "Door", bridge=BRIDGE)
    lock.override(serialNumber=None, somethingNew=[1])
    assert lock_entry(lock, NOON, V37)["serialNumber"] is None
    assert "serialNumber" not in sync_entry(lock, NOON, V37)
    assert sync_entry(lock, NOON, V37)["somethingNew"] == [1]


def test_rename_increases_revision() -> None:
    lock = Lock(1, "Door", bridge=BRIDGE)
    lock.rename("Gate")
    assert (lock_entry(lock, NOON, V37)["name"], sync_entry(lock, NOON, V37)["revision"]) == ("Gate", 2)


def test_lock_added_again_has_same_serial_number() -> None:
    account = World.demo().account("home")
    lock = account.remove(1002)
    lock.id = 1999
    account.add(lock)
    assert account.lock(1999).serial_number == lock.serial_number
    with pytest.raises(KeyError):
        account.lock(1002)


def test_ids_and_serial_numbers_are_unique() -> None:
    for world in (World.demo(), World.of_size(3, 500)):
        locks = [lock for account in world.accounts for lock in account.locks]
        assert len({lock.id for lock in locks}) == len({lock.serial_number for lock in locks}) == len(locks)


def test_generated_world_has_requested_size() -> None:
    world = World.of_size(2, 25)
    assert [account.name for account in world.accounts] == ["account-0001", "account-0002"]
    assert [len(account.locks) for account in world.accounts] == [25, 25]
    assert world.account("account-0002").keys[0].value == "key-account-0002"


def test_credentials_are_not_in_repr() -> None:
    account = World.demo().account("home")
    assert "simulated-key" not in repr([account, account.keys, account.tokens])


@pytest.mark.parametrize("zone", [None, "Europe/Warsaw", "America/St_Johns", "Pacific/Auckland", "Nowhere/Land"])
def test_every_hour_has_a_state_in_every_time_zone(zone: str | None) -> None:
    lock = Lock(1, "Door", bridge=BRIDGE, time_zone=zone)
    for hour in range(0, 365 * 24, 5):
        t = NOON + hour * HOUR
        state = lock.at(t)
        assert state.changed_at <= state.since <= t
        assert t - state.changed_at < 2 * DAY
