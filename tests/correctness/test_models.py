"""Parsing of locks: valid values are exact, and unusable ones are absent and reported."""

import math
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.tedee import models
from exporter.tedee.models import (
    DeviceState,
    DoorState,
    LockDetails,
    LockModel,
    LockState,
    ParseResult,
    Rejection,
    SyncedLock,
    SyncReader,
    Timestamp,
    write_details,
)
from testing.factories import json_rows, load_fixture
from tests.cloud import detailed, synced


def read_sync(rows: Sequence[Any]) -> ParseResult[SyncedLock]:
    return models.read_sync(json_rows(rows))


def read_details(rows: Sequence[Any]) -> ParseResult[LockDetails]:
    return models.read_details(json_rows(rows))


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
    assert [(each.lock_id, each.field) for each in parsed.rejections] == [(1, field)]


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
    assert [(each.lock_id, each.field) for each in parsed.rejections] == [(None, "id")]


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
    assert [each.lock_id for each in parsed.rejections] == [*range(1_000)]


def test_recorded_rejections_are_limited() -> None:
    parsed = read_details([detailed(1, "x", softwareVersions=[5] * 20, timeZone=[])] * 2_000)
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
    parsed = read_details([detailed(1, "x" * 10_000, **{field: value})])
    assert parsed.rows[1].name == "x" * 10_000
    assert parsed.rejection_counts.keys() <= {"time_zone", "software_versions", "version"}
    assert parsed.rejection_counts.total() == 1  # type: ignore[attr-defined]


def test_details_are_parsed() -> None:
    parsed = read_details(load_fixture("locks-v37.json")["result"])
    assert not parsed.rejections
    room, garage, cellar = parsed.rows.values()
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
    details = read_details([detailed(1, "x", softwareVersions=software)]).rows[1]
    assert details.firmware_version == "2.4"
    assert details.firmware_update_available is True


def test_unusable_software_version_does_not_affect_others() -> None:
    software = ["junk", {"softwareType": 0, "version": 5, "updateAvailable": False}]
    parsed = read_details([detailed(1, "x", softwareVersions=software)])
    assert parsed.rows[1].firmware_version is None
    assert parsed.rows[1].firmware_update_available is False
    assert [each.field for each in parsed.rejections] == ["software_versions", "version"]


def test_half_surrogate_pair_in_name_is_replaced() -> None:
    assert read_details([detailed(1, "Door \ud83d")]).rows[1].name == "Door \ufffd"
    assert read_details([detailed(1, "Door \ud83d\ude00")]).rows[1].name == "Door \U0001f600"


def test_codes_are_described_in_words() -> None:
    assert LockState.describe(6) == "locked"
    assert LockState.describe(3) == "semi locked"
    assert LockState.describe(42) == "code 42"
    assert DoorState.describe(2) == "opened"
    assert LockModel.describe(2) == "Lock PRO"
    assert LockModel.describe(9) == "type 9"


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
FIELDS = ["state", "doorState", "isCharging", "batteryLevel", "stateChangeResult", "lastStateChangedDate"]
LOCK_LIKE = st.fixed_dictionaries(
    {},
    optional={
        "id": st.integers(1, 3) | ANYTHING,
        "isConnected": st.sampled_from([True, False, None]) | ANYTHING,
        "deviceState": st.dictionaries(st.sampled_from(FIELDS), ANYTHING) | ANYTHING,
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
    listed = read_details(rows).rows
    for details in listed.values():
        if details.name is not None:
            details.name.encode("utf-8")
    reparsed = models.read_details([write_details(details) for details in listed.values()])
    assert (reparsed.rows, reparsed.rejections) == (listed, ())


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


def typed(parsed: ParseResult[SyncedLock]) -> str:
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
from exporter.tedee import models

sys.setswitchinterval(1e-6)
synced = b'{"id": 1, "isConnected": true, "deviceState": {"state": 6, "batteryLevel": 50}, "revision": 1}'
detailed = b'{"id": 1, "name": "Room", "softwareVersions": [{"softwareType": 0, "version": "1.0"}]}'
for _ in range(400):
    models = importlib.reload(models)
    barrier = threading.Barrier(8)

    def parse():
        barrier.wait()
        models.read_sync([synced])
        models.read_details([detailed])

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
