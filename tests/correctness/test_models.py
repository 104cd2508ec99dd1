"""Parsing of locks and devices: valid values are exact, and unusable ones are absent and reported."""

import math
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.tedee import devices, models
from exporter.tedee.devices import (
    Accessory,
    AnyDevice,
    Bridge,
    DeviceKey,
    DeviceType,
    DoorSensor,
    DryContact,
    Gate,
    Keypad,
    LockDetails,
    restore_devices,
)
from exporter.tedee.models import DeviceState, DoorState, LockState, SyncedLock, SyncReader
from exporter.tedee.rows import ParseResult, Rejection, Timestamp
from testing.factories import json_rows, load_fixture
from tests.cloud import accessory, bridge, detailed, synced


def read_sync(rows: Sequence[Any]) -> ParseResult[int, SyncedLock]:
    return models.read_sync(json_rows(rows))


def read_devices(**lists: Sequence[Any]) -> ParseResult[DeviceKey, AnyDevice]:
    return devices.read_devices({name: json_rows(rows) for name, rows in lists.items()})


def read_details(rows: Sequence[Any]) -> dict[int, LockDetails]:
    """Return the locks in a list by id."""
    return {each.id: each for each in read_devices(locks=rows).rows.values() if isinstance(each, LockDetails)}


def read_fixture(name: str) -> ParseResult[DeviceKey, AnyDevice]:
    result = load_fixture(name)["result"]
    return read_devices(**{key: rows for key, rows in result.items() if isinstance(rows, list)})


def one(**lists: Sequence[Any]) -> AnyDevice:
    (device,) = read_devices(**lists).rows.values()
    return device


def state_of(lock: dict[str, Any]) -> DeviceState | None:
    return read_sync([lock]).rows[lock["id"]].device_state


def test_all_state_field_names_give_same_values() -> None:
    old = read_sync(load_fixture("sync-v1.33.json")["result"])
    new = read_sync(load_fixture("sync-v37.json")["result"])
    assert old.rows[123] == new.rows[123]
    assert old.rows[123] == SyncedLock(
        id=123,
        is_connected=True,
        device_state=DeviceState(
            state=6,
            door_state=3,
            is_charging=False,
            battery_level=54,
            state_change_result=0,
            last_state_changed_date=Timestamp(1619416924.197),
        ),
        revision=1,
    )
    assert not old.rejections
    assert not new.rejections


def test_disconnected_lock_has_no_state() -> None:
    assert read_sync(load_fixture("sync-v37.json")["result"]).rows[125] == SyncedLock(125, False, None, 1)


def test_state_of_disconnected_lock_is_dropped() -> None:
    parsed = read_sync([synced(1, connected=False)])
    assert parsed.rows[1].device_state is None
    assert not parsed.rejections


@pytest.mark.parametrize("connected", ["false", "true", 0, 1, 1.0, "", [], {}])
def test_lock_without_usable_connection_has_no_state(connected: object) -> None:
    for name in ("deviceState", "lockProperties"):
        parsed = read_sync([{"id": 1, "isConnected": connected, name: {"state": 6}, "revision": 3}, synced(2)])
        assert parsed.rows[1] == SyncedLock(1, None, None, 3)
        assert parsed.rows[2].device_state
        assert parsed.rejection_counts == {"is_connected": 1}


def test_connection_of_unpaired_lock_is_unknown() -> None:
    lock = {"id": 1, "isConnected": None, "deviceState": None, "revision": 1}
    assert read_sync([lock]).rows[1].is_connected is None


def test_missing_fields_are_none_and_not_rejected() -> None:
    parsed = read_sync([{"id": 1, "deviceState": {"state": 6}}])
    assert parsed.rows[1] == SyncedLock(1, None, DeviceState(state=6), None)
    assert not parsed.rejections


@pytest.mark.parametrize("code", [0, 9, 18, 255, 10, 77, -1])
def test_unknown_codes_are_passed_on(code: int) -> None:
    state = state_of(synced(1, state=code, doorState=code, stateChangeResult=code))
    assert state
    assert (state.state, state.door_state, state.state_change_result) == (code, code, code)


@pytest.mark.parametrize("level", [0, 1, 54, 100])
def test_battery_level_from_0_to_100_is_valid(level: int) -> None:
    state = state_of(synced(1, batteryLevel=level))
    assert state
    assert state.battery_level == level


UNUSABLE = [
    ("state", "state", ["6", 6.0, True, math.nan, math.inf, [], {}, 2**31, 10**400]),
    ("doorState", "door_state", ["closed", 3.5, False, -math.inf, 2**63]),
    ("isCharging", "is_charging", [0, 1, "true", "", []]),
    ("batteryLevel", "battery_level", [255, -5, 101, 54.0, "54", True, math.nan, 10**30]),
    ("stateChangeResult", "state_change_result", ["0", 0.5, math.nan]),
    (
        "lastStateChangedDate",
        "last_state_changed_date",
        [
            "yesterday",
            "",
            "2021-13-01T00:00:00",
            "2021-04-26T25:00:00Z",
            1619416924,
            True,
            [],
            "0001-01-01T00:00:00",
            "9999-12-31T23:59:59.9999999Z",
            "0001-01-01T00:00:00+23:59",
            "9999-12-31T23:59:59-23:59",
            "2021-04-26T06:02:04.197Z junk",
        ],
    ),
]


@pytest.mark.parametrize(
    ("wire_name", "field", "value"),
    [(wire_name, field, value) for wire_name, field, values in UNUSABLE for value in values],
)
def test_unusable_value_does_not_affect_others(wire_name: str, field: str, value: Any) -> None:
    expected = state_of(synced(1))
    parsed = read_sync([synced(1, **{wire_name: value}), synced(2)])
    state = parsed.rows[1].device_state
    assert expected
    assert state
    assert getattr(state, field) is None
    assert all(
        getattr(state, other) == getattr(expected, other) for other in DeviceState.__struct_fields__ if other != field
    )
    assert parsed.rows[2] == read_sync([synced(2)]).rows[2]
    assert [(each.device_id, each.field) for each in parsed.rejections] == [(1, field)]


@pytest.mark.parametrize(
    ("json_rows", "seconds"),
    [
        ("2021-04-26T06:02:04.197Z", 1619416924.197),
        ("2020-01-01T00:00:00", 1577836800.0),
        ("2023-06-12T12:36:53.4496653", 1686573413.449665),
        ("2023-06-12T12:36:53.4496653Z", 1686573413.449665),
        ("2021-04-26T08:02:04+02:00", 1619416924.0),
        ("1970-01-01T00:00:00Z", 0.0),
    ],
)
def test_dates_in_all_formats_are_utc(json_rows: str, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    state = state_of(synced(1, lastStateChangedDate=json_rows))
    assert state
    assert state.last_state_changed_date == seconds


@pytest.mark.parametrize(
    "broken", [5, "x", None, [], {}, {"id": None}, {"id": "7"}, {"id": True}, {"id": -1}, {"id": 2**53}]
)
def test_row_without_usable_id_is_rejected(broken: object) -> None:
    parsed = read_sync([broken, synced(2)])
    assert list(parsed.rows) == [2]
    assert [(each.device_id, each.field) for each in parsed.rejections] == [(None, "id")]


@pytest.mark.parametrize("state", ["locked", 6, True, []])
def test_state_that_is_not_object_is_rejected(state: object) -> None:
    parsed = read_sync([{"id": 1, "isConnected": True, "deviceState": state, "revision": 3}])
    assert parsed.rows[1] == SyncedLock(1, True, None, 3)
    assert [each.field for each in parsed.rejections] == ["device_state"]


def test_repeated_row_is_one_lock() -> None:
    parsed = read_sync([synced(1), synced(1)])
    assert list(parsed.rows) == [1]
    assert not parsed.rejections


def test_lock_with_contradictory_rows_is_left_out() -> None:
    parsed = read_sync([synced(1, state=6), synced(2), synced(1, state=2)])
    assert list(parsed.rows) == [2]
    assert parsed.rejections == (Rejection(1, "id", "twice, with different values"),)


def test_rejected_value_is_short_and_printable() -> None:
    parsed = read_sync([synced(1, state="\x1b[31m" + "x" * 5_000)])
    assert len(parsed.rejections[0].value) <= 60
    assert parsed.rejections[0].value.isprintable()


def test_first_rejected_values_are_recorded() -> None:
    parsed = read_sync([synced(number, batteryLevel=255) for number in range(2_000)])
    assert parsed.rejection_counts == {"battery_level": 2_000}
    assert [each.device_id for each in parsed.rejections] == [*range(1_000)]


def test_recorded_rejections_are_limited() -> None:
    parsed = read_devices(locks=[detailed(1, "x", softwareVersions=[5] * 20, timeZone=[])] * 2_000)
    assert parsed.rejection_counts == {"software_versions": 40_000, "time_zone": 2_000}
    assert len(parsed.rejections) == 1_000


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("timeZone", "x" * 201),
        ("softwareVersions", [{"version": "1"}] * 21),
        ("softwareVersions", [{"version": "1" * 201}]),
    ],
)
def test_length_of_interned_values_is_limited(field: str, value: object) -> None:
    parsed = read_devices(locks=[detailed(1, "x" * 10_000, **{field: value})])
    assert parsed.rows[LockDetails, 1].name == "x" * 10_000
    assert parsed.rejection_counts.keys() <= {"time_zone", "software_versions", "version"}
    assert parsed.rejection_counts.total() == 1  # type: ignore[attr-defined]


def test_details_are_parsed() -> None:
    room, garage, cellar = read_details(load_fixture("locks-v37.json")["result"]).values()
    assert (room.name, garage.name, cellar.name) == ("Room 6", 'Garage "north"', "Cellar")
    assert (room.serial_number, room.connected_to_id, room.time_zone) == ("111111-11111", 2, "Europe/Warsaw")
    assert (room.organization_id, garage.organization_id) == (None, 883)
    assert (room.firmware_version, room.firmware_update_available) == ("2.4.22125", True)
    assert (cellar.firmware_version, cellar.firmware_update_available) == (None, None)
    assert cellar.connected_to_id is None


def test_firmware_update_includes_wifi() -> None:
    software = [
        {"softwareType": 1, "version": "9.9", "updateAvailable": True},
        {"softwareType": 0, "version": "2.4", "updateAvailable": False},
    ]
    details = read_details([detailed(1, "x", softwareVersions=software)])[1]
    assert details.firmware_version == "2.4"
    assert details.firmware_update_available is True


def test_unusable_software_version_does_not_affect_others() -> None:
    software = ["junk", {"softwareType": 0, "version": 5, "updateAvailable": False}]
    parsed = read_devices(locks=[detailed(1, "x", softwareVersions=software)])
    assert parsed.rows[LockDetails, 1].firmware_version is None
    assert parsed.rows[LockDetails, 1].firmware_update_available is False
    assert [each.field for each in parsed.rejections] == ["software_versions", "version"]


def test_half_surrogate_pair_in_name_is_replaced() -> None:
    assert read_details([detailed(1, "Door \ud83d")])[1].name == "Door \ufffd"
    assert read_details([detailed(1, "Door \ud83d\ude00")])[1].name == "Door \U0001f600"


def test_codes_are_described_in_words() -> None:
    assert LockState.describe(6) == "locked"
    assert LockState.describe(3) == "semi locked"
    assert LockState.describe(42) == "code 42"
    assert DoorState.describe(2) == "opened"
    models_of_types = ["Bridge", "Lock PRO", "Keypad", "Lock GO", "Gate", "Dry contact", "Door sensor", "Keypad PRO"]
    assert [DeviceType.describe(each) for each in DeviceType] == models_of_types
    assert DeviceType.describe(9) == "type 9"


# Devices


def test_documented_details_are_parsed() -> None:
    parsed = read_fixture("device-details.json")
    assert not parsed.rejections
    found = parsed.rows
    assert [*found] == [
        *((Bridge, number) for number in (70011, 70012)),
        *((LockDetails, number) for number in (71001, 71002, 71003)),
        *((Keypad, number) for number in (72001, 72002, 72003)),
        *((Gate, number) for number in (74001, 74002)),
    ]
    hall, workshop = found[Bridge, 70011], found[Bridge, 70012]
    assert isinstance(hall, Bridge)
    assert isinstance(workshop, Bridge)
    assert (hall.is_connected, hall.is_updating, hall.model) == (True, False, "Bridge")
    assert None not in (hall.firmware_version, hall.wifi_firmware_version)
    assert hall.firmware_version != hall.wifi_firmware_version
    shed = found[LockDetails, 71003]
    assert isinstance(shed, LockDetails)
    assert (shed.name, shed.connected_to_id, shed.model) == ("Shed (no bridge)", None, "Lock PRO")
    used, unused, spare = (found[Keypad, number] for number in (72001, 72002, 72003))
    assert isinstance(used, Keypad)
    assert (used.name, used.model, used.serial_number) == ("Front keypad", "Keypad PRO", "99240303-000201")
    assert (used.connected_to_lock_id, used.battery_level) == (71001, 46)
    assert used.battery_changed_at == 1795069812.9
    for keypad in (unused, spare):
        assert isinstance(keypad, Keypad)
        assert (keypad.battery_level, keypad.battery_changed_at) == (None, None)
    gates = [each for each in found.values() if isinstance(each, Gate)]
    assert [(each.name, each.is_connected, each.firmware_version) for each in gates] == [
        ("Drive gate", True, None),
        ("Garage", False, None),
    ]


def test_documented_door_sensors_are_parsed() -> None:
    parsed = read_fixture("doorsensor.json")
    assert not parsed.rejections
    facts = [
        (each.id, each.connected_to_lock_id, each.battery_level, each.battery_changed_at)
        for each in parsed.rows.values()
        if isinstance(each, DoorSensor)
    ]
    assert facts == [
        (73001, 71001, 88, 1794107575.0),
        (73002, 71003, None, None),
        (73003, None, None, None),
    ]


@pytest.mark.parametrize("name", ["dryContacts", "drycontacts", "DryContacts"])
def test_list_of_dry_contacts_has_several_names(name: str) -> None:
    assert one(**{name: [{"id": 5, "name": "Gong", "type": 6}]}) == DryContact(5, "Gong", None, 6)


def test_door_sensors_may_be_in_the_details() -> None:
    assert isinstance(one(doorSensors=[accessory(5, 1)]), DoorSensor)


@pytest.mark.parametrize("name", ["batteryLevelModifiedTime", "batteryLevelModifiedDateTime"])
@pytest.mark.parametrize("kind", ["keypads", "doorSensors"])
def test_time_of_battery_level_has_two_names(kind: str, name: str) -> None:
    row = {"id": 5, "deviceState": {"batteryLevel": 15, name: "2026-11-19T06:30:12.9"}}
    device = one(**{kind: [row]})
    assert isinstance(device, Accessory)
    assert (device.battery_level, device.battery_changed_at) == (15, 1795069812.9)


NO_LEVEL: list[dict[str, Any]] = [
    {},
    {"deviceState": None},
    {"deviceState": {}},
    {"deviceState": {"batteryLevel": None, "batteryLevelModifiedTime": None}},
    {"deviceState": {"batteryLevel": None, "batteryLevelModifiedDateTime": None}},
]


@pytest.mark.parametrize("state", NO_LEVEL)
@pytest.mark.parametrize("kind", ["keypads", "doorSensors"])
def test_missing_battery_level_is_none_and_not_rejected(kind: str, state: dict[str, Any]) -> None:
    parsed = read_devices(**{kind: [{"id": 5, "isConnected": None, "connectedToLockId": 1} | state]})
    (device,) = parsed.rows.values()
    assert isinstance(device, Accessory)
    assert (device.battery_level, device.battery_changed_at) == (None, None)
    assert device.connected_to_lock_id == 1
    assert not parsed.rejections


@pytest.mark.parametrize("kind", ["bridges", "gates", "keypads", "doorSensors", "dryContacts", "locks"])
def test_unknown_connection_is_not_rejected(kind: str) -> None:
    parsed = read_devices(**{kind: [{"id": 5, "isConnected": None}]})
    assert [getattr(each, "is_connected", None) for each in parsed.rows.values()] == [None]
    assert not parsed.rejections


@pytest.mark.parametrize(
    ("kind", "changes", "field"),
    [
        ("bridges", {"isConnected": "true"}, "is_connected"),
        ("bridges", {"isUpdating": 1}, "is_updating"),
        ("bridges", {"name": 5}, "name"),
        ("bridges", {"type": "1"}, "type"),
        ("bridges", {"serialNumber": []}, "serial_number"),
        ("gates", {"isConnected": 0}, "is_connected"),
        ("keypads", {"deviceState": "low"}, "device_state"),
        ("keypads", {"deviceState": []}, "device_state"),
        ("keypads", {"deviceState": {"batteryLevel": 101}}, "battery_level"),
        ("keypads", {"deviceState": {"batteryLevel": "54"}}, "battery_level"),
        (
            "keypads",
            {"deviceState": {"batteryLevelModifiedTime": "9999-12-31T23:59:59"}},
            "battery_level_modified_time",
        ),
        ("doorSensors", {"deviceState": {"batteryLevel": 255}}, "battery_level"),
        ("doorSensors", {"deviceState": {"batteryLevelModifiedDateTime": 5}}, "battery_level_modified_time"),
        ("doorSensors", {"connectedToLockId": "1"}, "connected_to_lock_id"),
        ("locks", {"connectedToId": True}, "connected_to_id"),
        ("dryContacts", {"softwareVersions": {}}, "software_versions"),
    ],
)
def test_unusable_value_of_device_does_not_affect_others(kind: str, changes: dict[str, Any], field: str) -> None:
    good = accessory(5, 1, isConnected=True, isUpdating=False, type=1, connectedToId=2)
    parsed = read_devices(
        **{kind: [good | changes, good | {"id": 6}], "keypads" if kind != "keypads" else "gates": [good]}
    )
    broken, other, _ = parsed.rows.values()
    assert [(each.device_id, each.field) for each in parsed.rejections] == [(5, field)]
    leaf = field if field in broken.__struct_fields__ else "device_state"
    for name in broken.__struct_fields__:
        if name not in {"id", leaf}:
            assert getattr(broken, name) == getattr(other, name)
    assert getattr(broken, field, None) is None


@pytest.mark.parametrize(
    "broken", [5, "x", None, [], {}, {"id": None}, {"id": "7"}, {"id": True}, {"id": -1}, {"id": 2**53}]
)
def test_row_of_device_without_usable_id_does_not_affect_others(broken: object) -> None:
    parsed = read_devices(bridges=[broken, bridge(2)], locks=[detailed(1, "One"), broken])
    assert [*parsed.rows] == [(Bridge, 2), (LockDetails, 1)]
    assert [(each.device_id, each.field) for each in parsed.rejections] == [(None, "id")] * 2


def test_unknown_lists_are_ignored() -> None:
    parsed = read_devices(sirens=[{"id": 1}, "junk"], locks=[detailed(1, "One")])
    assert [*parsed.rows] == [(LockDetails, 1)]
    assert not parsed.rejections


def test_device_of_unknown_type_has_its_number_as_model() -> None:
    assert one(keypads=[{"id": 5, "type": 11}]).model == "type 11"
    assert one(keypads=[{"id": 5}]).model is None


@pytest.mark.parametrize("value", ["bridge", "lock", "x", 5, None, [], {}, True])
def test_fields_that_tedee_may_add_have_no_effect(value: object) -> None:
    parsed = read_devices(bridges=[bridge(5, kind=value, extra=value)], locks=[detailed(5, "x", kind=value)])
    assert [*parsed.rows] == [(Bridge, 5), (LockDetails, 5)]
    assert not parsed.rejections


def test_devices_of_several_kinds_may_have_one_id() -> None:
    parsed = read_devices(bridges=[bridge(5)], locks=[detailed(5, "x")], gates=[{"id": 5}])
    assert [*parsed.rows] == [(Bridge, 5), (LockDetails, 5), (Gate, 5)]


def test_last_row_of_a_repeated_device_is_used() -> None:
    assert one(bridges=[bridge(5, "Old"), bridge(5, "New")]).name == "New"


def test_equal_values_of_many_devices_are_in_memory_once() -> None:
    parsed = read_devices(locks=[detailed(number, "x") for number in range(5_000)])
    assert len(parsed.rows) == 5_000
    restored = restore_devices(parsed.raw_rows)
    for found in (parsed.rows, restored):
        assert len({id(each.software_versions) for each in found.values()}) == 1
        assert len({id(each.time_zone) for each in found.values() if isinstance(each, LockDetails)}) == 1


def test_stored_devices_have_only_fields_in_use() -> None:
    private = {"userIdentity": "7d0f2c7e", "userSettings": {"location": "home"}, "accessDetails": {"weekDays": 1}}
    (row,) = read_devices(locks=[detailed(1, "x", **private)]).raw_rows
    assert not any(word in row for word in (b"7d0f2c7e", b"home", b"weekDays"))


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
FIELDS = [
    "state",
    "doorState",
    "isCharging",
    "batteryLevel",
    "batteryLevelModifiedTime",
    "batteryLevelModifiedDateTime",
    "stateChangeResult",
    "lastStateChangedDate",
]
KINDS = ["bridges", "locks", "keypads", "gates", "dryContacts", "doorSensors"]
LOCK_LIKE = st.fixed_dictionaries(
    {},
    optional={
        "id": st.integers(1, 3) | ANYTHING,
        "isConnected": st.sampled_from([True, False, None]) | ANYTHING,
        "deviceState": st.dictionaries(st.sampled_from(FIELDS), ANYTHING) | ANYTHING,
        "connectedToId": ANYTHING,
        "connectedToLockId": ANYTHING,
        "isUpdating": ANYTHING,
        "type": st.integers(0, 12) | ANYTHING,
        "kind": ANYTHING,
        "lockProperties": ANYTHING,
        "revision": st.integers(0, 9) | ANYTHING,
        "name": ANYTHING,
        "softwareVersions": ANYTHING,
    },
)


@given(st.lists(LOCK_LIKE | ANYTHING, max_size=6))
def test_arbitrary_rows_give_only_valid_values(rows: list[Any]) -> None:
    for lock in read_sync(rows).rows.values():
        if lock.device_state:
            assert lock.is_connected is not False
            assert lock.device_state.battery_level in {None, *range(101)}
            assert lock.device_state.is_charging in {None, True, False}
            changed = lock.device_state.last_state_changed_date
            assert changed is None or 0 <= changed < 253_370_764_800
    parsed = read_devices(**dict.fromkeys(KINDS, rows))
    for device in parsed.rows.values():
        device.label.encode("utf-8")
        assert "\0" not in device.label
        assert getattr(device, "is_connected", None) in {None, True, False}
        if isinstance(device, Accessory):
            assert device.battery_level in {None, *range(101)}
            assert device.battery_changed_at is None or 0 <= device.battery_changed_at < 253_370_764_800
    assert {type(key) for key, _ in parsed.rows} <= {type(Bridge)}
    assert restore_devices(parsed.raw_rows) == parsed.rows


VALUES = st.none() | st.booleans() | st.sampled_from([0, 1, 0.0, 1.0, 6, 255, "", "1"])
ROWS = st.fixed_dictionaries(
    {"id": st.integers(1, 3)},
    optional={
        "isConnected": VALUES,
        "revision": VALUES,
        "deviceState": VALUES | st.fixed_dictionaries({}, optional={"state": VALUES, "isCharging": VALUES}),
    },
)
RESPONSES = st.lists(ROWS | VALUES, max_size=5)


@settings(max_examples=300)
@given(st.lists(RESPONSES, min_size=2, max_size=4))
def test_result_does_not_depend_on_previous_syncs(responses: list[list[Any]]) -> None:
    reader = SyncReader()
    for rows in responses:
        assert typed(reader.read(json_rows(rows))) == typed(read_sync(rows))


def typed(parsed: ParseResult[int, SyncedLock]) -> str:
    """Return the result as text, in which 1 and True differ."""
    return repr((parsed.rows, parsed.rejections))


def test_unchanged_row_is_not_parsed_again() -> None:
    reader = SyncReader()
    first = reader.read(json_rows([synced(1), synced(2)])).rows
    second = reader.read(json_rows([synced(1), synced(2, state=2)])).rows
    assert second[1] is first[1]
    assert second[2] is not first[2]


@pytest.mark.parametrize("row", [b"", b"{", b'{"id": 1', b'{"id": 1, "name": "\xff"}', b"9" * 5_000, b"[" * 100_000])
def test_row_that_is_not_json_does_not_affect_others(row: bytes) -> None:
    parsed = models.read_sync([row, *json_rows([synced(2)])])
    assert list(parsed.rows) == [2]
    assert [each.field for each in parsed.rejections] == ["id"]


FIRST_USE = """
import importlib, sys, threading
from exporter.tedee import devices, events, models

sys.setswitchinterval(1e-6)
synced = b'{"id": 1, "isConnected": true, "deviceState": {"state": 6, "batteryLevel": 50}, "revision": 1}'
detailed = b'{"id": 1, "name": "Room", "softwareVersions": [{"softwareType": 0, "version": "1.0"}], "deviceState": {}}'
stored = b'{"kind":"keypad","id":1,"deviceState":{"batteryLevel":5}}'
activity = b'{"id": 1, "event": 62, "date": "2026-11-25T21:12:49.05"}'
for _ in range(200):
    models, devices, events = map(importlib.reload, (models, devices, events))
    barrier = threading.Barrier(8)

    def parse():
        barrier.wait()
        models.read_sync([synced])
        devices.read_devices({name: [detailed] for name in ("locks", "bridges", "keypads", "gates", "doorSensors")})
        devices.restore_devices([stored])
        events.read_activities([activity])

    threads = [threading.Thread(target=parse) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
"""


def test_first_use_by_several_threads_does_not_crash() -> None:
    """msgspec crashes the process if several threads are the first to use a type."""
    ended = subprocess.run([sys.executable, "-c", FIRST_USE], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
