"""The simulated devices beyond locks: their formats, their batteries, and the ways in which Tedee's responses vary."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from exporter.simulator import (
    MISSING,
    Account,
    Battery,
    Bridge,
    Device,
    DoorSensor,
    DryContact,
    Firmware,
    Gate,
    Keypad,
    Lock,
    Outages,
    Variants,
    World,
)
from exporter.simulator.activity import KEYPAD_NUMBERS, WRONG_PIN
from exporter.simulator.usage_profile import BUSY
from exporter.simulator.wire import bridge_entry, keypad_entry
from testing.factories import load_fixture

from .conftest import NOON, Served

DAY = 86_400.0
NEVER_CHANGES = Battery(drain=100_000 * DAY, charge=0, low=0, full=80, phase=50 * DAY)

COMMON = {
    *("id", "organizationId", "serialNumber", "name", "userIdentity", "type", "created", "revision", "deviceRevision"),
    *("targetDeviceRevision", "timeZone", "isConnected", "accessLevel", "accessDetails", "softwareVersions"),
}
"""Fields of every device (docs: datastructures/bridge, door-sensor, gate)."""


def furnish(account: Account) -> None:
    """Add one device of each kind to the account."""
    door = account.lock(1)
    door.pair(Keypad(21, "Keypad", pro=True))
    door.pair(DoorSensor(31, "Sensor"))
    for device in (
        Gate(41, "Gate"),
        DryContact(51, "Bell"),
        Keypad(22, "Spare keypad"),
        DoorSensor(32, "Spare sensor"),
    ):
        account.add(device)


@pytest.fixture
def furnished(served: Served) -> Served:
    furnish(served.account)
    return served


def details(served: Served, query: str = "") -> dict[str, Any]:
    result: dict[str, Any] = served.get(f"my/device/details{query}").json()["result"]
    return result


def test_details_have_devices_of_every_kind(furnished: Served) -> None:
    result = details(furnished)
    assert list(result) == ["bridges", "locks", "keypads", "gates", "dryContacts"]
    assert {kind: [(device["id"], device["type"]) for device in devices] for kind, devices in result.items()} == {
        "bridges": [(7, 1)],
        "locks": [(1, 2), (2, 2), (3, 2)],
        "keypads": [(21, 10), (22, 3)],
        "gates": [(41, 5)],
        "dryContacts": [(51, 6)],
    }
    assert all(set(device) >= COMMON for devices in result.values() for device in devices)


def test_bridge_has_its_fields(furnished: Served) -> None:
    (bridge,) = furnished.get("my/bridge").json()["result"]
    assert bridge == details(furnished)["bridges"][0]
    assert set(bridge) - COMMON == {"isUpdating", "wasConfigured", "localApiEnabled", "beaconMajor", "beaconMinor"}
    assert [(version["softwareType"], version["updateAvailable"]) for version in bridge["softwareVersions"]] == [
        (0, False),
        (1, False),
    ]


def test_keypad_has_its_fields(furnished: Served) -> None:
    paired, spare = furnished.get("my/keypad").json()["result"]
    assert [paired, spare] == details(furnished)["keypads"]
    assert set(paired) - COMMON == {"connectedToId", "connectedToLockId", "deviceSettings", "deviceState"}
    assert (paired["connectedToId"], paired["connectedToLockId"], paired["isConnected"]) == (7, 1, None)
    assert (spare["connectedToId"], spare["connectedToLockId"]) == (None, None)
    assert "deviceState" not in spare


def test_gate_has_its_fields(furnished: Served) -> None:
    result = furnished.get("my/gate").json()["result"]
    assert (result["page"], result["itemsPerPage"]) == (1, 2147483647)
    assert result["gates"] == details(furnished)["gates"]
    assert set(result["gates"][0]) - COMMON == {
        *("externalId", "externalName", "externalType", "impulseLength", "icon", "isPresentInExternal"),
        *("userSettings", "location"),
    }


def test_door_sensors_have_pages_of_any_size(furnished: Served) -> None:
    everything = furnished.get("my/doorsensor").json()["result"]
    assert (everything["page"], everything["itemsPerPage"]) == (1, 2147483647)
    assert [sensor["id"] for sensor in everything["doorSensors"]] == [31, 32]
    assert set(everything["doorSensors"][0]) - COMMON == {"connectedToLockId", "deviceState", "userSettings"}
    second = furnished.get("my/doorsensor?Page=2&ItemsPerPage=1").json()["result"]
    assert (second["page"], second["itemsPerPage"]) == (2, 1)
    assert [sensor["id"] for sensor in second["doorSensors"]] == [32]


@pytest.mark.parametrize("query", ["page=0", "itemsPerPage=0", "page=x"])
@pytest.mark.parametrize("path", ["my/doorsensor", "my/gate"])
def test_invalid_page_is_a_bad_request(served: Served, path: str, query: str) -> None:
    assert served.get(f"{path}?{query}").status_code == 400


def test_accessories_are_in_locks_if_requested(furnished: Served) -> None:
    assert [lock["accessories"] for lock in details(furnished)["locks"]] == [None, None, None]
    expected = [{"id": 21, "deviceType": 10}, {"id": 31, "deviceType": 8}]
    for path in ("my/device/details?IncludeAccessories=true", "my/lock?includeaccessories=True"):
        result = furnished.get(path).json()["result"]
        locks = result["locks"] if isinstance(result, dict) else result
        assert [lock["accessories"] for lock in locks] == [expected, [], []]


@pytest.mark.parametrize("name", ["IncludeUserSettings", "IncludeUserSetting"])
def test_position_of_home_is_sent_only_if_requested(furnished: Served, name: str) -> None:
    for path in ("my/device/details", "my/lock", "my/gate"):
        assert "latitude" not in furnished.get(path).text
        assert "latitude" not in furnished.get(f"{path}?{name}=false").text
        assert "latitude" in furnished.get(f"{path}?{name}=true").text
    lock = details(furnished, f"?{name}=true")["locks"][0]
    assert set(lock["userSettings"]["location"]) == {"latitude", "longitude", "accuracy"}
    assert furnished.get(f"my/doorsensor?{name}=true").json()["result"]["doorSensors"][0]["userSettings"]


@pytest.mark.parametrize("path", ["my/lock", "my/lock/sync", "my/bridge", "my/device/details", "MY/DoorSensor"])
def test_path_may_end_with_a_slash(furnished: Served, path: str) -> None:
    assert furnished.get(f"{path}/").json() == furnished.get(path).json()


def test_path_with_two_slashes_at_the_end_is_not_found(served: Served) -> None:
    assert served.get("my/lock//").status_code == 404


@pytest.mark.parametrize("path", ["my/device", "my/bridge", "my/keypad", "my/doorsensor", "my/gate"])
@pytest.mark.parametrize(
    ("key", "status"), [("wrong", 401), ("cannot-read", 403), ("only-events", 403), ("right", 200)]
)
def test_devices_need_the_device_scope(served: Served, path: str, key: str, status: int) -> None:
    assert served.get(path, authorization=f"PersonalKey {key}").status_code == status


def test_list_of_all_devices_has_each_once(furnished: Served) -> None:
    ids = [device["id"] for device in furnished.get("my/device").json()["result"]]
    assert sorted(ids) == [1, 2, 3, 7, 21, 22, 31, 32, 41, 51]


@pytest.mark.parametrize("kind", ["bridge", "keypad", "doorsensor", "gate"])
def test_devices_have_fields_of_documented_response(furnished: Served, kind: str) -> None:
    documented = load_fixture(f"{kind}.json")["result"]
    served = furnished.get(f"my/{kind}").json()["result"]
    wrapper = {"doorsensor": "doorSensors", "gate": "gates"}.get(kind)
    if wrapper:
        assert list(served) == list(documented)
        documented, served = documented[wrapper], served[wrapper]
    assert set(served[0]) == set(documented[0])


def test_details_have_fields_of_documented_response(furnished: Served) -> None:
    documented = load_fixture("device-details.json")["result"]
    served = details(furnished)
    assert list(served) == list(documented)
    for kind in ("bridges", "keypads", "gates"):
        assert set(served[kind][0]) == set(documented[kind][0])
    # Names of beacons are of no use to any client.
    assert set(documented["locks"][0]) - set(served["locks"][0]) == {"beaconMajor", "beaconMinor"}
    assert set(documented["locks"][0]["deviceSettings"]) == set(served["locks"][0]["deviceSettings"])


def test_bridge_is_connected_except_in_outages() -> None:
    bridge = Bridge(7, "Hallway", outages=Outages(100, 20, NOON), updates=Outages(100, 30, NOON + 50))
    states = [
        (bridge_entry(bridge, NOON + t)["isConnected"], bridge_entry(bridge, NOON + t)["isUpdating"])
        for t in (10, 30, 60, 110)
    ]
    assert states == [(False, False), (True, False), (True, True), (False, False)]


def test_end_of_an_outage_is_known() -> None:
    outages = Outages(period=100.0, length=20.0, start=1_030.0)
    assert [outages.end(t) for t in (1_030.0, 1_049.0, 230.0)] == [1_050.0, 1_050.0, 250.0]


def test_variant_changes_name_of_dry_contacts(furnished: Served) -> None:
    furnished.cloud.variants = Variants(dry_contacts="drycontacts")
    assert list(details(furnished)) == ["bridges", "locks", "keypads", "gates", "drycontacts"]


def test_variant_adds_door_sensors_to_details(furnished: Served) -> None:
    furnished.cloud.variants = Variants(door_sensors_in_details=True)
    assert details(furnished)["doorSensors"] == furnished.get("my/doorsensor").json()["result"]["doorSensors"]


def test_variant_changes_name_of_battery_time(furnished: Served) -> None:
    default = details(furnished)["keypads"][0]["deviceState"]
    assert list(default) == ["batteryLevel", "batteryLevelModifiedTime"]
    furnished.cloud.variants = Variants(battery_time="batteryLevelModifiedDateTime")
    assert details(furnished)["keypads"][0]["deviceState"] == {
        "batteryLevel": default["batteryLevel"],
        "batteryLevelModifiedDateTime": default["batteryLevelModifiedTime"],
    }


def test_variant_changes_form_of_missing_level(furnished: Served) -> None:
    def spare(form: Any) -> Any:
        furnished.cloud.variants = Variants(missing_level=form)
        keypad = details(furnished)["keypads"][1]
        sensor = furnished.get("my/doorsensor").json()["result"]["doorSensors"][1]
        assert keypad.get("deviceState", "missing") == sensor.get("deviceState", "missing")
        return keypad.get("deviceState", "missing")

    assert [spare(form) for form in ("missing", "null", "empty", "nulls")] == [
        "missing",
        None,
        {},
        {"batteryLevel": None, "batteryLevelModifiedTime": None},
    ]


def test_variant_adds_unknown_devices(furnished: Served) -> None:
    furnished.cloud.variants = Variants(unknown_devices=True)
    result = details(furnished)
    types = {device["type"] for devices in result.values() for device in devices}
    assert types == {1, 2, 3, 5, 6, 10, 11, 12}
    assert [keypad["type"] for keypad in result["keypads"]] == [10, 3, 11]
    assert [device["type"] for device in result["sirens"]] == [12]


def test_fields_of_devices_can_be_overridden(furnished: Served) -> None:
    account = furnished.account
    account.device(7).override(isConnected=None, softwareVersions=MISSING)
    account.device(21).override(batteryLevel=255, name="Changed")
    account.device(22).override(batteryLevel=40)
    account.device(31).override(deviceState="junk")
    account.device(41).override(isConnected=False)
    result = details(furnished)
    assert result["bridges"][0]["isConnected"] is None
    assert "softwareVersions" not in result["bridges"][0]
    assert [keypad["deviceState"]["batteryLevel"] for keypad in result["keypads"]] == [255, 40]
    assert result["keypads"][0]["name"] == "Changed"
    assert furnished.get("my/doorsensor").json()["result"]["doorSensors"][0]["deviceState"] == "junk"
    assert result["gates"][0]["isConnected"] is False
    account.device(7).clear_overrides()
    assert details(furnished)["bridges"][0]["isConnected"] is True


def test_rename_of_a_device_increases_revision(furnished: Served) -> None:
    furnished.account.device("Keypad").rename("Entrance keypad")
    assert [(each["name"], each["revision"]) for each in details(furnished)["keypads"]] == [
        ("Entrance keypad", 2),
        ("Spare keypad", 1),
    ]


def test_devices_can_be_removed(furnished: Served) -> None:
    account = furnished.account
    for device_id in (7, 21, 41):
        account.remove_device(device_id)
    result = details(furnished)
    assert [result[kind] for kind in ("bridges", "gates")] == [[], []]
    assert [keypad["id"] for keypad in result["keypads"]] == [22]
    assert [lock["connectedToId"] for lock in result["locks"]] == [None, None, None]
    for unknown in (1, 7, 99):
        with pytest.raises(KeyError):
            account.remove_device(unknown)


def test_removed_lock_takes_its_accessories_along(furnished: Served) -> None:
    furnished.account.remove(1)
    assert [keypad["id"] for keypad in details(furnished)["keypads"]] == [22]


def test_reading_has_time_of_last_change() -> None:
    battery = Battery(drain=100 * DAY, charge=0, low=0, phase=30 * DAY)
    for step in range(1, 500):
        t = NOON + step * 0.61 * DAY
        level, changed_at = battery.reading(t)
        assert level == battery.at(t).level
        assert t - 1.01 * DAY < changed_at <= t
        assert battery.at(changed_at + 1).level == level
        assert battery.at(changed_at - 1).level != level


def test_battery_charges_from_low_to_full() -> None:
    battery = Battery(drain=10, charge=5, phase=3)
    assert list(battery.charges(0, 30)) == [(7, True), (12, False), (22, True), (27, False)]
    assert list(battery.charges(7, 12)) == [(7, True)]
    assert [list(other.charges(0, 100)) for other in (Battery(10, 0), Battery(0, 10))] == [[], []]


def test_door_sensor_reports_level_for_30_days() -> None:
    sensor = DoorSensor(31, "Sensor", battery=Battery(drain=4000 * DAY, charge=0, low=0, full=100))
    Lock(1, "Door", accessories=[sensor])
    readings = [sensor.reading(NOON + hour * 3600) for hour in range(0, 24 * 80, 6)]
    known = [reading for reading in readings if reading]
    # The level falls every 40 days.
    assert len(known) / len(readings) == pytest.approx(0.75, abs=0.02)
    assert {reading.level for reading in known} < set(range(101))


def test_unpaired_accessory_has_no_level() -> None:
    assert Keypad(21, "Keypad").reading(NOON) is None
    assert DoorSensor(31, "Sensor").reading(NOON) is None


def keypad_uses(lock: Lock, start: float, end: float) -> list[float]:
    return [event.date for event in lock.events_between(start, end) if event.number in KEYPAD_NUMBERS]


def test_keypad_level_is_that_of_the_last_use() -> None:
    keypad = Keypad(21, "Keypad", battery=Battery(drain=20 * DAY, charge=0, low=0, phase=3 * DAY))
    lock = Lock(1, "Door", bridge=Bridge(7, "Hallway"), accessories=[keypad])
    for hour in range(0, 24 * 10, 3):
        t = NOON + hour * 3600
        uses = [
            event.date
            for event in lock.events_between(t - 2 * DAY, t)
            if event.number in KEYPAD_NUMBERS and lock.delivered_at(event) <= t
        ]
        reading = keypad.reading(t)
        assert reading is not None
        assert reading.level == keypad.battery.at(uses[-1]).level
        assert reading.changed_at in keypad_uses(lock, t - 3 * DAY, t)
        assert keypad.battery.at(reading.changed_at).level == reading.level
        earlier = keypad_uses(lock, t - 3 * DAY, reading.changed_at)
        assert keypad.battery.at(earlier[-1]).level != reading.level


def test_level_of_unused_keypad_is_unknown() -> None:
    keypad = Keypad(21, "Keypad", wrong_pins=0, unauthorized_pins=0)
    lock = Lock(1, "Door", profile=None, bridge=Bridge(7, "Hallway"), accessories=[keypad])
    assert keypad.reading(NOON) is None
    lock.add_event(WRONG_PIN, NOON)
    assert keypad.reading(NOON) is None
    reading = keypad.reading(NOON + 3600)
    assert reading is not None
    assert (reading.level, reading.changed_at) == (keypad.battery.at(NOON).level, NOON)


def test_level_of_keypad_waits_for_the_bridge() -> None:
    keypad = Keypad(21, "Keypad", wrong_pins=0, unauthorized_pins=0)
    bridge = Bridge(7, "Hallway", outages=Outages(DAY, 600, NOON))
    lock = Lock(1, "Door", profile=None, bridge=bridge, accessories=[keypad])
    lock.add_event(WRONG_PIN, NOON + 60)
    assert [keypad.reading(NOON + t) is None for t in (590, 610)] == [True, False]


def test_level_that_did_not_change_is_omitted() -> None:
    keypad = Keypad(21, "Keypad", battery=NEVER_CHANGES)
    Lock(1, "Door", profile=BUSY, bridge=Bridge(7, "Hallway"), accessories=[keypad])
    assert keypad.reading(NOON) is None
    assert "deviceState" not in keypad_entry(keypad, NOON)


def test_devices_of_demo_have_unique_ids() -> None:
    for world in (World.demo(), World.of_size(2, 50)):
        devices = [device for account in world.accounts for device in account.devices]
        assert len({device.id for device in devices}) == len(devices)
        assert len({device.serial_number for device in devices}) == len(devices)


@pytest.mark.parametrize("day", range(0, 60, 7))
def test_demo_has_low_batteries_at_any_time(day: int) -> None:
    world = World.demo()
    t = NOON + day * DAY
    keypad, sensor = world.account("home").device("Garden keypad"), world.account("hotel").device("Pool gate sensor")
    assert isinstance(keypad, Keypad)
    assert isinstance(sensor, DoorSensor)
    readings = [keypad.reading(t), sensor.reading(t)]
    assert [reading and reading.level for reading in readings] == [12, 14]
    assert all(reading and t - 30 * DAY <= reading.changed_at <= t for reading in readings)


def test_doors_of_demo_with_states_have_sensors() -> None:
    for account in World.demo().accounts:
        for lock in account.locks:
            door = lock.at(NOON).door
            sensors = [each for each in lock.accessories if isinstance(each, DoorSensor)]
            assert bool(sensors) == (door != 0) or not lock.in_range


def test_demo_has_devices_of_every_kind() -> None:
    devices: list[Device] = [device for account in World.demo().accounts for device in account.devices]
    assert {device.device_type for device in devices} == {1, 2, 3, 4, 5, 6, 8, 10}
    corridor = next(device for device in devices if device.name == "Corridor")
    assert [(firmware.software_type, firmware.update_available) for firmware in corridor.firmware] == [
        (0, True),
        (1, True),
    ]


def test_generated_world_has_accessories_of_a_part() -> None:
    account = World.of_size(1, 40).accounts[0]
    assert (len(account.bridges), len(account.keypads), len(account.door_sensors)) == (4, 4, 20)
    assert {keypad.pro for keypad in account.keypads} == {True, False}


def test_firmware_of_accessories_can_be_given() -> None:
    firmware = Firmware("9.9.9", update_available=True)
    assert [
        device.firmware for device in (Keypad(1, "K", firmware=firmware), DoorSensor(2, "S", firmware=firmware))
    ] == [
        (firmware,),
        (firmware,),
    ]


def test_datetime_of_battery_is_in_utc() -> None:
    keypad = Keypad(21, "Keypad", battery=replace(NEVER_CHANGES, drain=20 * DAY, low=80))
    Lock(1, "Door", profile=BUSY, bridge=Bridge(7, "Hallway"), accessories=[keypad])
    state = keypad_entry(keypad, NOON)["deviceState"]
    reading = keypad.reading(NOON)
    assert isinstance(state, dict)
    assert reading is not None
    text = state["batteryLevelModifiedTime"]
    assert datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() == pytest.approx(reading.changed_at, abs=0.001)
