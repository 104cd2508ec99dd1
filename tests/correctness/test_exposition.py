"""The exposition has exactly the current values, in every format and encoding."""

import gzip
import re
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric as Family
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics import parser as openmetrics_parser
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.registry import Collector
from structlog.testing import capture_logs

from exporter.metrics import devices as module
from exporter.metrics.catalogue import ACCOUNT_METRICS, CATALOGUE, DEVICE_METRICS, LOCK_METRICS
from exporter.metrics.collector import ExporterCollector, build_families
from exporter.metrics.compression import CompressedBlock
from exporter.metrics.exposition import Exposition, Renderer
from exporter.presentation import LockRow
from exporter.state.responses import Failure
from exporter.sync.snapshot import AccountStatus, Connections, Lock, ResourceStatus, StatusRegistry
from exporter.tedee.devices import (
    AccessoryState,
    AnyDevice,
    Bridge,
    DoorSensor,
    DryContact,
    Gate,
    Keypad,
    LockDetails,
    SoftwareVersion,
)
from exporter.tedee.endpoint import ACTIVITIES, DEVICES, DOOR_SENSORS
from exporter.tedee.events import EventKind
from exporter.tedee.models import Code, DeviceState, DoorState, LockState, StateChangeResult, SyncedLock
from testing.clock import FakeClock
from testing.factories import device_statuses, documented_locks, lock_with_state, locks_of, registry, status
from testing.program import TIMEOUT, eventually
from tests.cloud import detailed, synced

OPENMETRICS = "application/openmetrics-text;version=1.0.0"


def parse_openmetrics(text: str) -> Iterator[Family]:
    return openmetrics_parser.text_string_to_metric_families(text)  # type: ignore[no-any-return, no-untyped-call]


def expose(registry: StatusRegistry, clock: FakeClock) -> Exposition:
    exposition = Exposition(registry, ExporterCollector("1.2.3", lambda: (True, 1_700_000_000.0), lambda: True), clock)
    registry.on_change(exposition.render)
    return exposition


def text_of(exposition: Exposition, accept: str = "") -> str:
    return exposition.scrape(accept, "").body.decode()


def samples(exposition: Exposition) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Return (name, labels) to value for all exposed samples."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parse_text(text_of(exposition))
        for sample in family.samples
    }


def series(exposition: Exposition, name: str) -> dict[str, float]:
    """Return the values of a lock metric by lock name."""
    return {dict(labels)["lock_name"]: value for (each, labels), value in samples(exposition).items() if each == name}


EXPECTED = """\
lock_state{account="home",lock_id="123",lock_name="Room 6"} 6.0
lock_state{account="home",lock_id="124",lock_name="Garage \\"north\\""} 2.0
lock_door_state{account="home",lock_id="123",lock_name="Room 6"} 3.0
lock_door_state{account="home",lock_id="124",lock_name="Garage \\"north\\""} 2.0
lock_battery_level{account="home",lock_id="123",lock_name="Room 6"} 54.0
lock_battery_level{account="home",lock_id="124",lock_name="Garage \\"north\\""} 80.0
lock_connected{account="home",lock_id="123",lock_name="Room 6"} 1.0
lock_connected{account="home",lock_id="124",lock_name="Garage \\"north\\""} 1.0
lock_connected{account="home",lock_id="125",lock_name="Cellar"} 0.0
lock_last_state_change_timestamp{account="home",lock_id="123",lock_name="Room 6"} 1.619416924197e+09
lock_last_state_change_timestamp{account="home",lock_id="124",lock_name="Garage \\"north\\""} 1.619416924197e+09
lock_charging{account="home",lock_id="123",lock_name="Room 6"} 0.0
lock_charging{account="home",lock_id="124",lock_name="Garage \\"north\\""} 1.0
lock_state_change_result{account="home",lock_id="123",lock_name="Room 6"} 0.0
lock_state_change_result{account="home",lock_id="124",lock_name="Garage \\"north\\""} 0.0
lock_locked{account="home",lock_id="123",lock_name="Room 6"} 1.0
lock_locked{account="home",lock_id="124",lock_name="Garage \\"north\\""} 0.0
lock_door_open{account="home",lock_id="123",lock_name="Room 6"} 0.0
lock_door_open{account="home",lock_id="124",lock_name="Garage \\"north\\""} 1.0
lock_jammed{account="home",lock_id="123",lock_name="Room 6"} 0.0
lock_jammed{account="home",lock_id="124",lock_name="Garage \\"north\\""} 0.0
lock_state_changes_total{account="home",lock_id="123",lock_name="Room 6"} 0.0
lock_state_changes_total{account="home",lock_id="124",lock_name="Garage \\"north\\""} 0.0
lock_revision{account="home",lock_id="123",lock_name="Room 6"} 1.0
lock_revision{account="home",lock_id="124",lock_name="Garage \\"north\\""} 1.0
lock_revision{account="home",lock_id="125",lock_name="Cellar"} 1.0
lock_info{account="home",bridge_id="2",bridge_name="",door_sensor_id="",firmware_version="2.4.22125",keypad_id="",\
lock_id="123",lock_name="Room 6",model="Lock PRO",\
organization_id="",serial_number="111111-11111",time_zone="Europe/Warsaw"} 1.0
lock_info{account="home",bridge_id="2",bridge_name="",door_sensor_id="",firmware_version="1.2.0",keypad_id="",\
lock_id="124",lock_name="Garage \\"north\\"",\
model="Lock GO",organization_id="883",serial_number="111111-22222",time_zone="Europe/Warsaw"} 1.0
lock_info{account="home",bridge_id="",bridge_name="",door_sensor_id="",firmware_version="",keypad_id="",\
lock_id="125",lock_name="Cellar",model="Lock PRO",\
organization_id="",serial_number="111111-33333",time_zone=""} 1.0
lock_firmware_update_available{account="home",lock_id="123",lock_name="Room 6"} 1.0
lock_firmware_update_available{account="home",lock_id="124",lock_name="Garage \\"north\\""} 0.0
tedee_up{account="home"} 1.0
tedee_locks{account="home"} 3.0
tedee_last_sync_timestamp_seconds{account="home"} 1.8e+09
tedee_next_sync_timestamp_seconds{account="home"} 1.80000002e+09
tedee_sync_duration_seconds_bucket{account="home",le="0.1"} 0.0
tedee_sync_duration_seconds_bucket{account="home",le="0.25"} 0.0
tedee_sync_duration_seconds_bucket{account="home",le="0.5"} 1.0
tedee_sync_duration_seconds_bucket{account="home",le="1.0"} 1.0
tedee_sync_duration_seconds_bucket{account="home",le="2.5"} 1.0
tedee_sync_duration_seconds_bucket{account="home",le="5.0"} 1.0
tedee_sync_duration_seconds_bucket{account="home",le="10.0"} 1.0
tedee_sync_duration_seconds_bucket{account="home",le="30.0"} 1.0
tedee_sync_duration_seconds_bucket{account="home",le="+Inf"} 1.0
tedee_sync_duration_seconds_count{account="home"} 1.0
tedee_sync_duration_seconds_sum{account="home"} 0.3
tedee_sync_failures_total{account="home",reason="auth"} 0.0
tedee_sync_failures_total{account="home",reason="forbidden"} 0.0
tedee_sync_failures_total{account="home",reason="not_found"} 0.0
tedee_sync_failures_total{account="home",reason="rate_limited"} 0.0
tedee_sync_failures_total{account="home",reason="server"} 0.0
tedee_sync_failures_total{account="home",reason="timeout"} 0.0
tedee_sync_failures_total{account="home",reason="connection"} 0.0
tedee_sync_failures_total{account="home",reason="tls"} 0.0
tedee_sync_failures_total{account="home",reason="invalid_response"} 0.0
tedee_api_requests_total{account="home",code="200",endpoint="my/lock/sync"} 1.0
tedee_api_requests_total{account="home",code="200",endpoint="my/device/details"} 2.0
tedee_api_requests_remaining{account="home"} 347.0
tedee_rejected_values_total{account="home",field="battery_level"} 2.0
tedee_api_version_supported{account="home",version="v37"} 1.0
tedee_credentials_expiry_timestamp_seconds{account="home"} 1.8000864e+09
tedee_refresh_token_stored{account="home"} 1.0
"""


EXPECTED_DEVICES = """\
tedee_bridge_connected{account="home",bridge_id="70011",bridge_name="Hallway bridge"} 1.0
tedee_bridge_connected{account="home",bridge_id="70012",bridge_name="Workshop bridge"} 0.0
tedee_bridge_updating{account="home",bridge_id="70011",bridge_name="Hallway bridge"} 0.0
tedee_bridge_updating{account="home",bridge_id="70012",bridge_name="Workshop bridge"} 0.0
tedee_bridge_firmware_update_available{account="home",bridge_id="70011",bridge_name="Hallway bridge"} 1.0
tedee_bridge_firmware_update_available{account="home",bridge_id="70012",bridge_name="Workshop bridge"} 1.0
tedee_bridge_info{account="home",bridge_id="70011",bridge_name="Hallway bridge",firmware_version="2.2.47682",\
serial_number="99240301-000017",wifi_firmware_version="1.1.20"} 1.0
tedee_bridge_info{account="home",bridge_id="70012",bridge_name="Workshop bridge",firmware_version="2.2.37625",\
serial_number="99240301-000018",wifi_firmware_version="1.1.18"} 1.0
tedee_keypad_battery_percent{account="home",keypad_id="72001",keypad_name="Front keypad"} 46.0
tedee_keypad_battery_timestamp_seconds{account="home",keypad_id="72001",keypad_name="Front keypad"} 1.7950698129e+09
tedee_keypad_info{account="home",firmware_version="1.0.38810",keypad_id="72001",keypad_name="Front keypad",\
lock_id="71001",model="Keypad PRO",serial_number="99240303-000201"} 1.0
tedee_keypad_info{account="home",firmware_version="1.3.21744",keypad_id="72002",keypad_name="Workshop keypad",\
lock_id="71002",model="Keypad",serial_number="99240303-000202"} 1.0
tedee_keypad_info{account="home",firmware_version="1.3.21744",keypad_id="72003",keypad_name="Spare keypad",\
lock_id="",model="Keypad",serial_number="99240303-000203"} 1.0
tedee_door_sensor_battery_percent{account="home",door_sensor_id="73001",door_sensor_name="Front door sensor"} 88.0
tedee_door_sensor_battery_timestamp_seconds{account="home",door_sensor_id="73001",\
door_sensor_name="Front door sensor"} 1.794107575e+09
tedee_door_sensor_info{account="home",door_sensor_id="73001",door_sensor_name="Front door sensor",\
firmware_version="1.0.45281",lock_id="71001",model="Door sensor",serial_number="99240305-000401"} 1.0
tedee_door_sensor_info{account="home",door_sensor_id="73002",door_sensor_name="Shed sensor (stale level)",\
firmware_version="1.0.42645",lock_id="71003",model="Door sensor",serial_number="99240305-000402"} 1.0
tedee_door_sensor_info{account="home",door_sensor_id="73003",door_sensor_name="Unpaired sensor",firmware_version="",\
lock_id="",model="Door sensor",serial_number="99240305-000403"} 1.0
tedee_gate_connected{account="home",gate_id="74001",gate_name="Drive gate"} 1.0
tedee_gate_connected{account="home",gate_id="74002",gate_name="Garage"} 0.0
tedee_gate_info{account="home",firmware_version="",gate_id="74001",gate_name="Drive gate",model="Gate",\
serial_number="99240304-000301"} 1.0
tedee_gate_info{account="home",firmware_version="",gate_id="74002",gate_name="Garage",model="Gate",\
serial_number="99240304-000302"} 1.0
tedee_last_response_timestamp_seconds{account="home",endpoint="my/device/details"} 1.8e+09
tedee_last_response_timestamp_seconds{account="home",endpoint="my/doorsensor"} 1.8e+09
"""


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
@pytest.mark.parametrize("with_devices", [False, True])
def test_documented_responses_become_expected_samples(clock: FakeClock, accept: str, with_devices: bool) -> None:
    devices = device_statuses(clock) if with_devices else ()
    text = text_of(expose(registry(status(clock, other_resources=devices)), clock), accept)
    process_part = ("process_", "python_", "tedee_exporter_")
    lines = [line for line in text.splitlines(keepends=True) if not line.startswith(("#", *process_part))]
    of_devices = [line for line in lines if line.startswith(DEVICE_PREFIXES)]
    assert "".join(line for line in lines if line not in of_devices) == EXPECTED
    assert "".join(of_devices) == (EXPECTED_DEVICES if with_devices else "")


def test_exposition_matches_the_catalogue(clock: FakeClock) -> None:
    exposed: dict[str, set[str]] = {}
    types: dict[str, str] = {}
    helps: dict[str, str] = {}
    failing = status(
        clock,
        tuple(replace(lock, events=EVENTS) for lock in documented_locks()),
        failure=Failure("timeout", "no complete response within 10 s", clock.wall()),
        other_resources=(
            *device_statuses(clock),
            ResourceStatus("", "my/x", devices=(DryContact(5),)),
            ResourceStatus("fetch of events", ACTIVITIES.path, is_permitted=True),
        ),
    )
    for family in parse_openmetrics(text_of(expose(registry(failing), clock), OPENMETRICS)):
        name = family.name + {"info": "_info", "counter": "_total"}.get(family.type, "")
        if not name.startswith(("process_", "python_")):
            exposed[name] = set().union(*(sample.labels for sample in family.samples)) - {"le"}
            types[name], helps[name] = family.type, family.documentation
    assert exposed == {metric.name: set(metric.labels) for metric in CATALOGUE}
    assert types == {metric.name: metric.type for metric in CATALOGUE}
    assert helps == {metric.name: metric.help for metric in CATALOGUE}


def test_process_and_platform_metrics_are_exposed(clock: FakeClock) -> None:
    names = {name for name, _ in samples(expose(registry(status(clock)), clock))}
    assert {"process_resident_memory_bytes", "process_open_fds", "python_info"} <= names


def test_samples_have_no_timestamps(clock: FakeClock) -> None:
    text = text_of(expose(registry(status(clock)), clock), OPENMETRICS)
    assert all(sample.timestamp is None for family in parse_openmetrics(text) for sample in family.samples)


@pytest.mark.parametrize("failure", [None, "auth", "timeout"])
def test_only_last_failure_reason_is_exposed(clock: FakeClock, failure: str | None) -> None:
    last = Failure(failure, "a message", clock.wall()) if failure else None
    exposed = samples(expose(registry(status(clock, failure=last)), clock))
    failing = [dict(labels)["reason"] for name, labels in exposed if name == "tedee_sync_failing"]
    assert failing == ([failure] if failure else [])


# Stale, removed and missing values


def test_snapshot_is_served_until_it_is_stale(clock: FakeClock) -> None:
    exposition = expose(registry(status(clock)), clock)
    clock.advance(299.999)
    assert len(series(exposition, "lock_state")) == 2
    clock.advance(0.001)
    exposed = samples(exposition)
    assert not [name for name, _ in exposed if name.startswith("lock_") or name == "tedee_locks"]
    assert exposed["tedee_last_sync_timestamp_seconds", (("account", "home"),)] == 1_800_000_000
    assert exposed["tedee_up", (("account", "home"),)] == 0.0


def test_stale_account_is_logged_once(clock: FakeClock) -> None:
    with capture_logs() as logs:
        statuses = registry(status(clock))
        exposition = expose(statuses, clock)
        clock.advance(299)
        assert len(series(exposition, "lock_state")) == 2
        assert logs == []
        clock.advance(1)
        for _ in range(3):
            assert not series(exposition, "lock_state")
            clock.advance(20)
            exposition.render()
    (line,) = logs
    assert (line["log_level"], line["account"]) == ("error", "home")
    assert line["last_success"] == "2027-01-15T08:00:00+00:00"


def test_account_that_is_stale_again_is_logged_again(clock: FakeClock) -> None:
    statuses = registry(status(clock))
    exposition = expose(statuses, clock)
    with capture_logs() as logs:
        for _ in range(2):
            clock.advance(300)
            exposition.render()
            statuses.publish(status(clock))
            exposition.render()
    assert [line["account"] for line in logs] == ["home", "home"]


def test_stale_account_does_not_affect_others(clock: FakeClock) -> None:
    old = status(clock, account="old")
    clock.advance(200)
    exposition = expose(registry(old, status(clock, account="new")), clock)
    clock.advance(100)
    accounts = {dict(labels)["account"] for name, labels in samples(exposition) if name == "lock_state"}
    assert accounts == {"new"}


def test_devices_of_other_resources_become_stale(clock: FakeClock) -> None:
    bridges = ResourceStatus("fetch", "my/bridge", devices=(Bridge(5),), fresh_until=clock.monotonic() + 60)
    gates = ResourceStatus("fetch", "my/gate", devices=(Gate(5),), fresh_until=clock.monotonic() + 400)
    shown = status(clock, other_resources=(bridges, gates))
    assert shown.fresh_until == clock.monotonic() + 60
    assert shown.as_of(clock.monotonic() + 59) is shown
    assert (shown.devices(Bridge), shown.devices(Gate)) == ((Bridge(5),), (Gate(5),))
    stale = shown.as_of(clock.monotonic() + 60)
    assert (stale.devices(Bridge), stale.devices(Gate)) == ((), (Gate(5),))
    assert stale.snapshot == shown.snapshot
    assert stale.fresh_until == clock.monotonic() + 300
    without_snapshot = stale.as_of(clock.monotonic() + 300)
    assert without_snapshot.is_stale
    assert without_snapshot.devices(Gate) == (Gate(5),)
    assert without_snapshot.as_of(clock.monotonic() + 400).devices(Gate) == ()


def test_only_failure_counters_exist_before_first_sync(clock: FakeClock) -> None:
    waiting = status(clock, up=None, snapshot=None, next_sync=None, version_supported=None)
    names = {name for name, _ in samples(expose(registry(waiting), clock))}
    assert "tedee_sync_failures_total" in names
    assert not names & {"tedee_up", "tedee_locks", "tedee_last_sync_timestamp_seconds", "lock_connected"}


def test_fresh_snapshot_is_served_after_failed_sync(clock: FakeClock) -> None:
    good = status(clock)
    status_registry = registry(good)
    exposition = expose(status_registry, clock)
    clock.advance(60)
    status_registry.publish(status(clock, up=False, snapshot=good.snapshot))
    assert samples(exposition)["tedee_up", (("account", "home"),)] == 0.0
    assert len(series(exposition, "lock_state")) == 2


def test_removed_lock_disappears_with_next_sync(clock: FakeClock) -> None:
    status_registry = registry(status(clock, locks_of([synced(1), synced(2)], [])))
    exposition = expose(status_registry, clock)
    status_registry.publish(status(clock, locks_of([synced(2)], [])))
    assert series(exposition, "lock_state") == {"2": 6.0}


def test_renamed_lock_has_one_name(clock: FakeClock) -> None:
    status_registry = registry(status(clock, locks_of([synced(1)], [detailed(1, "Old")])))
    exposition = expose(status_registry, clock)
    status_registry.publish(status(clock, locks_of([synced(1)], [detailed(1, "New")])))
    assert series(exposition, "lock_state") == {"New": 6.0}


@pytest.mark.parametrize("connected", [True, False, None])
def test_connected_is_1_0_or_absent(clock: FakeClock, connected: bool | None) -> None:
    exposition = expose(registry(status(clock, (Lock(SyncedLock(1, connected)),))), clock)
    assert series(exposition, "lock_connected") == {True: {"1": 1.0}, False: {"1": 0.0}, None: {}}[connected]


UNUSUAL_CODES: dict[int | None, float | None] = {None: None, -1: None, 42: None, 256: None}
"""No code, and codes without a documented meaning."""
LOCKED = UNUSUAL_CODES | {
    LockState.UNCALIBRATED: None,
    LockState.CALIBRATING: None,
    LockState.UNLOCKED: 0.0,
    LockState.SEMI_LOCKED: 0.0,
    LockState.UNLOCKING: 0.0,
    LockState.LOCKING: 0.0,
    LockState.LOCKED: 1.0,
    LockState.PULLED: 0.0,
    LockState.PULLING: 0.0,
    LockState.UNKNOWN: None,
    LockState.UPDATING: None,
    LockState.UNPULLING: 0.0,
}
OPEN = UNUSUAL_CODES | {
    DoorState.NOT_PAIRED: None,
    DoorState.DISCONNECTED: None,
    DoorState.OPENED: 1.0,
    DoorState.CLOSED: 0.0,
    DoorState.UNCALIBRATED: None,
}
JAMMED = UNUSUAL_CODES | {StateChangeResult.SUCCESS: 0.0, StateChangeResult.JAMMED: 1.0, 2: None, 255: None}


@pytest.mark.parametrize(
    ("metric", "field", "values"),
    [
        ("lock_locked", "state", LOCKED),
        ("lock_door_open", "door_state", OPEN),
        ("lock_jammed", "state_change_result", JAMMED),
    ],
)
def test_each_code_is_1_0_or_absent(
    clock: FakeClock, metric: str, field: str, values: Mapping[int | None, float | None]
) -> None:
    locks = {code: lock_with_state(number, **{field: code}) for number, code in enumerate(values)}
    exposed = series(expose(registry(status(clock, (*locks.values(),))), clock), metric)
    assert {code: exposed.get(lock.label) for code, lock in locks.items()} == values


@pytest.mark.parametrize(("codes", "values"), [(LockState, LOCKED), (DoorState, OPEN), (StateChangeResult, JAMMED)])
def test_each_known_code_has_an_expected_value(codes: type[Code], values: Mapping[int | None, float | None]) -> None:
    assert {*codes} <= values.keys()


def test_status_page_shows_locked_and_closed_as_good() -> None:
    def rows(field: str, codes: type[Code]) -> dict[Code, LockRow]:
        return {code: LockRow.of(lock_with_state(**{field: code})) for code in codes}

    states = {code: row.state.severity for code, row in rows("state", LockState).items()}
    doors = {code: row.door.severity for code, row in rows("door_state", DoorState).items()}
    assert [code for code, severity in states.items() if severity == "good"] == [c for c in LockState if LOCKED[c]]
    assert [code for code, severity in doors.items() if severity == "good"] == [c for c in DoorState if OPEN[c] == 0]
    assert [code for code, severity in doors.items() if severity == "warn"] == [c for c in DoorState if OPEN[c]]


@pytest.mark.parametrize("lock", [SyncedLock(1), SyncedLock(1, False), SyncedLock(1, True, DeviceState())])
def test_lock_without_codes_has_no_value_of_them(clock: FakeClock, lock: SyncedLock) -> None:
    exposition = expose(registry(status(clock, (Lock(lock),))), clock)
    for name in ("lock_locked", "lock_door_open", "lock_jammed", "lock_state_changes_total"):
        assert series(exposition, name) == {}


@pytest.mark.parametrize(("accept", "family"), [("", "lock_state_changes_total"), (OPENMETRICS, "lock_state_changes")])
def test_state_changes_are_a_counter_without_created_time(clock: FakeClock, accept: str, family: str) -> None:
    lines = text_of(expose(registry(status(clock)), clock), accept).splitlines()
    (start,) = [number for number, line in enumerate(lines) if line == f"# TYPE {family} counter"]
    assert [line.partition("{")[0] for line in lines[start + 1 : start + 3]] == ["lock_state_changes_total"] * 2
    assert lines[start - 1].startswith(f"# HELP {family} ")
    assert not [line for line in lines if line.startswith("lock_") and "_created" in line]


def test_count_of_a_disconnected_lock_is_served(clock: FakeClock) -> None:
    exposition = expose(registry(status(clock, (Lock(SyncedLock(1, False), None, 3),))), clock)
    assert series(exposition, "lock_state_changes_total") == {"1": 3.0}


ODD_NAMES = [
    'quotes " and \\ backslashes \\n',
    "two\nlines",
    "carriage\rreturn and tab\t",
    "emoji 🏰 and Łódź",
    "line\u2028separator \x0b \x1c \x85",
    "{}=,#",
    "# EOF",
    "",
    " \u2003",
    "\\",
]


@pytest.mark.parametrize("name", ODD_NAMES)
@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_name_with_any_characters_is_intact(clock: FakeClock, name: str, accept: str) -> None:
    exposition = expose(registry(status(clock, locks_of([synced(1), synced(2)], [detailed(1, name)]))), clock)
    parse = parse_openmetrics if accept else parse_text
    names = [
        sample.labels["lock_name"]
        for family in parse(text_of(exposition, accept))
        for sample in family.samples
        if sample.name == "lock_state"
    ]
    assert names == [name if name.strip() else "1", "2"]


# Devices and events


EVENTS: dict[tuple[str, ...], int] = {EventKind.of(33): 2, EventKind.of(62): 5, EventKind.of(95): 1}
DEVICE_PREFIXES = (
    "tedee_bridge_", "tedee_keypad_", "tedee_door_sensor_", "tedee_gate_", "tedee_dry_contact_", "tedee_last_response_",
)  # fmt: skip


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_lock_has_a_sample_for_each_kind_of_event(clock: FakeClock, accept: str) -> None:
    first, *others = documented_locks()
    exposition = expose(registry(status(clock, (replace(first, events=EVENTS), *others))), clock)
    lines = [line for line in text_of(exposition, accept).splitlines() if line.startswith("lock_events_total{")]
    labels = 'lock_events_total{{account="home",event="{}",lock_id="123",lock_name="Room 6",source="{}"}} {}'
    assert lines == [
        labels.format("unlocked", "app", 2.0),
        labels.format("wrong_pin", "pin", 5.0),
        labels.format("code_95", "unknown", 1.0),
    ]


@pytest.mark.parametrize("permitted", [None, True, False])
def test_permission_for_events_is_1_0_or_absent(clock: FakeClock, permitted: bool | None) -> None:
    events = ResourceStatus("fetch of events", ACTIVITIES.path, is_permitted=permitted)
    devices = ResourceStatus("fetch of devices", DEVICES.path, is_permitted=True)
    exposed = samples(expose(registry(status(clock, other_resources=(devices, events))), clock))
    value = exposed.get(("tedee_events_permitted", (("account", "home"),)))
    assert value == (None if permitted is None else float(permitted))


def test_time_of_last_response_is_that_of_each_endpoint(clock: FakeClock) -> None:
    others = (ResourceStatus("", "my/a", 5.5), ResourceStatus("", "my/b"), ResourceStatus("", "my/c", 7.0))
    exposed = samples(expose(registry(status(clock, other_resources=others)), clock))
    times = {
        dict(labels)["endpoint"]: value
        for (name, labels), value in exposed.items()
        if name == "tedee_last_response_timestamp_seconds"
    }
    assert times == {"my/a": 5.5, "my/c": 7.0}


@pytest.mark.parametrize("name", ODD_NAMES)
@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_name_of_device_with_any_characters_is_intact(clock: FakeClock, name: str, accept: str) -> None:
    devices = (Bridge(1, name), Keypad(1, name, "s" + name), DoorSensor(1, name), Gate(1, name), DryContact(1, name))
    others = (ResourceStatus("", "my/x", devices=devices),)
    parse = parse_openmetrics if accept else parse_text
    names = {
        value
        for family in parse(text_of(expose(registry(status(clock, other_resources=others)), clock), accept))
        for sample in family.samples
        if sample.name.endswith("_info") and sample.name.startswith(DEVICE_PREFIXES)
        for label, value in sample.labels.items()
        if label.endswith("_name")
    }
    assert names == {name if name.strip() else "1"}


# The bytes are equal to those of prometheus_client


class ReferenceCollector(Collector):
    """A usual collector for prometheus_client: it creates all families at each collection."""

    def __init__(self, statuses: Iterable[AccountStatus]) -> None:
        self._statuses = statuses

    def collect(self) -> Iterator[Family]:
        locks = [
            ((status.account, str(lock.id), lock.label), lock)
            for status in self._statuses
            if status.snapshot
            for lock in status.snapshot.locks
        ]
        yield from build_families(LOCK_METRICS, locks)
        for metric in DEVICE_METRICS:
            devices = [
                ((status.account, str(each.id), each.label), each)
                for status in self._statuses
                for each in status.devices(metric.KIND)
            ]
            yield from build_families([metric], devices)
        yield from build_families(ACCOUNT_METRICS, [((status.account,), status) for status in self._statuses])


NAMES = st.none() | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
STATES = st.builds(
    DeviceState,
    state=st.none() | st.integers(-1, 300),
    door_state=st.none() | st.integers(0, 9),
    is_charging=st.none() | st.booleans(),
    battery_level=st.none() | st.integers(0, 100),
    state_change_result=st.none() | st.integers(0, 5),
    last_state_changed_date=st.none() | st.floats(0, 4e9),
)
LOCKS = st.builds(
    Lock,
    st.builds(
        SyncedLock,
        id=st.integers(0, 2**53 - 1),
        is_connected=st.none() | st.booleans(),
        device_state=st.none() | STATES,
        revision=st.none() | st.integers(0, 1_000),
    ),
    st.none() | st.builds(LockDetails, id=st.just(1), name=NAMES, serial_number=NAMES, type=st.integers(0, 9)),
    st.none() | st.integers(0, 10**9),
    st.builds(
        Connections,
        NAMES,
        st.lists(st.integers(0, 99), max_size=3).map(tuple),
        st.lists(st.integers(0, 99), max_size=3).map(tuple),
    ),
    st.dictionaries(st.builds(EventKind.of, st.integers(30, 100) | st.sampled_from([227, 10_000])), st.integers(0, 9)),
)
COMMON: dict[str, st.SearchStrategy[Any]] = {
    "id": st.integers(0, 4),
    "name": NAMES,
    "serial_number": NAMES,
    "type": st.none() | st.integers(0, 12),
    "software_versions": st.none()
    | st.lists(
        st.none() | st.builds(SoftwareVersion, st.none() | st.integers(0, 2), NAMES, st.none() | st.booleans()),
        max_size=3,
    ).map(tuple),
}
ACCESSORY: dict[str, st.SearchStrategy[Any]] = {
    "connected_to_lock_id": st.none() | st.integers(0, 4),
    "device_state": st.none()
    | st.builds(AccessoryState, st.none() | st.integers(0, 100), st.none() | st.floats(0, 4e9)),
}
CONNECTED: dict[str, st.SearchStrategy[Any]] = {"is_connected": st.none() | st.booleans()}
DEVICES_OF_AN_ACCOUNT = st.lists(
    st.builds(Bridge, **COMMON, **CONNECTED, is_updating=st.none() | st.booleans())
    | st.builds(Keypad, **COMMON, **ACCESSORY)
    | st.builds(DoorSensor, **COMMON, **ACCESSORY)
    | st.builds(Gate, **COMMON, **CONNECTED)
    | st.builds(DryContact, **COMMON),
    max_size=6,
).map(tuple)
ACCOUNT = st.tuples(
    st.lists(LOCKS, max_size=4, unique_by=lambda lock: lock.id), DEVICES_OF_AN_ACCOUNT, DEVICES_OF_AN_ACCOUNT
)
ACCOUNTS = st.lists(ACCOUNT, min_size=1, max_size=3)
Content = tuple[list[Lock], tuple[AnyDevice, ...], tuple[AnyDevice, ...]]
"""Locks and devices of an account."""


@pytest.fixture(scope="module")
def small_blocks() -> Iterator[None]:
    """Divide a few locks into several blocks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK_SIZE", 2)
        yield


@pytest.mark.usefixtures("small_blocks")
@settings(max_examples=150)
@given(ACCOUNTS, ACCOUNTS, st.data())
def test_account_part_equals_prometheus_client_output(
    before: list[Content], after: list[Content], data: st.DataObject
) -> None:
    clock = FakeClock()
    status_registry = StatusRegistry()
    exposition = expose(status_registry, clock)
    changes: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
        [{}, {"details": None}, {"state_changes": 7}, {"events": EVENTS}, {"connections": Connections("Hall")}]
    )
    some_changed: list[Content] = [
        ([replace(lock, **data.draw(changes)) for lock in locks], devices, data.draw(DEVICES_OF_AN_ACCOUNT))
        for locks, devices, _ in after
    ]
    for accounts in (before, after, some_changed):
        status_registry.set_accounts([f"account-{number}" for number in range(len(accounts))])
        for number, (locks, *devices) in enumerate(accounts):
            others = tuple(
                ResourceStatus("", endpoint.path, clock.wall(), data.draw(st.none() | st.booleans()), each)
                for endpoint, each in zip((DEVICES, DOOR_SENSORS), devices, strict=True)
            )
            account = f"account-{number}"
            status_registry.publish(status(clock, tuple(locks), account=account, other_resources=others))
        registry = CollectorRegistry()
        registry.register(ReferenceCollector(status_registry.statuses()))
        plain = generate_latest(registry)
        assert exposition.scrape("", "").body.startswith(plain)
        assert gzip.decompress(exposition.scrape("", "gzip").body) == exposition.scrape("", "").body
        parts = openmetrics.generate_latest(registry).removesuffix(b"# EOF\n")  # type: ignore[no-untyped-call]
        assert exposition.scrape(OPENMETRICS, "").body.startswith(parts)
        assert gzip.decompress(exposition.scrape(OPENMETRICS, "gzip").body).startswith(parts)


# Negotiation and encoding


TEXT = "text/plain; version=0.0.4; charset=utf-8"
TEXT_1 = "text/plain; version=1.0.0; charset=utf-8; escaping={}"
OM = "application/openmetrics-text; version=1.0.0; charset=utf-8"
OM_ESCAPED = f"{OM}; escaping={{}}"
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
PROMETHEUS_3_PROTOBUF = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;"
    f"escaping=allow-utf-8;q=0.7,{PROMETHEUS_3}"
)
PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_2_TEXT_FIRST = "text/plain;version=0.0.4;q=0.6,application/openmetrics-text;version=1.0.0;q=0.4,*/*;q=0.2"
OLD_OPENMETRICS = "application/openmetrics-text;version=0.0.1,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
TELEGRAF = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.7,"
    "text/plain;version=0.0.4;q=0.3"
)
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        # What scrapers send.
        ("", TEXT),
        ("*/*", TEXT),
        (BROWSER, TEXT),
        (PROMETHEUS_3, OM_ESCAPED.format("allow-utf-8")),
        (PROMETHEUS_3_PROTOBUF, OM_ESCAPED.format("allow-utf-8")),
        (PROMETHEUS_2, OM_ESCAPED.format("underscores")),
        (PROMETHEUS_2_TEXT_FIRST, TEXT),
        (OLD_OPENMETRICS, TEXT),
        (TELEGRAF, TEXT),
        ("application/openmetrics-text; version=0.0.1", TEXT),
        ("application/openmetrics-text", OM),
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", OM_ESCAPED.format("underscores")),
        ("text/plain", TEXT),
        ("text/plain;version=0.0.4", TEXT),
        ("text/plain;version=1.0.0;escaping=allow-utf-8", TEXT_1.format("allow-utf-8")),
        ("text/plain;version=1.0.0", TEXT_1.format("underscores")),
        # The response has the requested escaping if the names are the same in it.
        ("application/openmetrics-text;version=1.0.0;escaping=values", OM_ESCAPED.format("values")),
        ("application/openmetrics-text;version=1.0.0;escaping=dots", OM_ESCAPED.format("underscores")),
        ("application/openmetrics-text;version=1.0.0;escaping=junk", OM_ESCAPED.format("underscores")),
        # A version that is not offered is never used.
        ("application/openmetrics-text;version=2.0.0", TEXT),
        ("application/openmetrics-text;version=9.9.9", TEXT),
        ("application/openmetrics-text;version=1.5", TEXT),
        ("application/openmetrics-text;version=junk", TEXT),
        ("application/openmetrics-text;version=", OM),
        ("text/plain;version=2.0.0", TEXT),
        (
            "application/openmetrics-text;version=2.0.0,application/openmetrics-text;version=1.0.0;q=0.5",
            OM_ESCAPED.format("underscores"),
        ),
        ("application/openmetrics-text;version=2.0.0,text/plain;version=0.0.4;q=0.5", TEXT),
        # Weights.
        ("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5", OM_ESCAPED.format("underscores")),
        ("text/plain;version=0.0.4;q=0.6,application/openmetrics-text;version=1.0.0;q=0.2,*/*;q=0.1", TEXT),
        ("application/openmetrics-text;version=1.0.0;q=0,text/plain;version=0.0.4", TEXT),
        ("application/openmetrics-text;version=1.0.0;q=0, application/openmetrics-text", TEXT),
        ("application/openmetrics-text;q=0.000", TEXT),
        ("text/plain;q=0, */*;q=0.1", OM),
        ("text/plain;q=0.5, */*;q=0.8", OM),
        ("*/*;q=0.9, application/openmetrics-text;q=0.2", TEXT),
        ("application/*", OM),
        ("text/*", TEXT),
        ("*/*;q=0", TEXT),
        ("application/openmetrics-text; Q=0.1, text/plain; q=0.2", TEXT),
        ("application/openmetrics-text;q=junk, text/plain;q=0.9", OM),
        # The first format of equal weight, but named formats before wildcards.
        ("application/openmetrics-text, text/plain;version=0.0.4", OM),
        ("text/plain, application/openmetrics-text;version=1.0.0", TEXT),
        ("*/*, application/openmetrics-text", OM),
        # Spelling.
        ('APPLICATION/OpenMetrics-Text; VERSION="1.0.0"', OM_ESCAPED.format("underscores")),
        ('text/html; a="b, application/openmetrics-text"', TEXT),
        (";;;,,,===", TEXT),
        ("image/png", TEXT),
        ("a/b;q=0.1," * 100 + "application/openmetrics-text", TEXT),
    ],
)
def test_format_is_the_preferred_one(clock: FakeClock, accept: str, content_type: str) -> None:
    scrape = expose(registry(status(clock)), clock).scrape(accept, "")
    assert scrape.content_type == content_type
    assert scrape.body.endswith(b"# EOF\n") == content_type.startswith("application/openmetrics-text")


@pytest.mark.parametrize(
    ("accept_encoding", "gzipped"),
    [
        ("", False),
        ("gzip", True),
        ("GZIP", True),
        ("gzip, deflate, br", True),
        ("gzip;q=0", False),
        ("gzip;q=0.000", False),
        ("gzip; q=0.001", True),
        ("identity, gzip;q=0", False),
        ("*;q=0, gzip;q=0", False),
        ("deflate, gzip;q=0, *", False),
        ("identity", False),
        ("identity;q=0.5, gzip;q=0.4", False),
        ("identity;q=0.4, gzip;q=0.5", True),
        ("gzip, identity", True),
        ("identity;q=0", True),
        ("identity;q=0, gzip;q=0", False),
        ("*", True),
        ("*;q=0", False),
        ("deflate", False),
        ("br;q=1.0, gzip;q=0.8, *;q=0.1", True),
        ("gzip;q=junk", True),
    ],
)
def test_gzip_is_used_if_it_is_preferred(clock: FakeClock, accept_encoding: str, gzipped: bool) -> None:
    assert expose(registry(status(clock)), clock).scrape("", accept_encoding).gzipped == gzipped


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_gzip_is_one_member_with_the_same_bytes(clock: FakeClock, accept: str) -> None:
    exposition = expose(registry(status(clock)), clock)
    plain = exposition.scrape(accept, "")
    for _ in range(3):
        packed = exposition.scrape(accept, "gzip")
        unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
        assert unpacker.decompress(packed.body) == plain.body
        assert unpacker.eof
        assert unpacker.unused_data == b""
        assert gzip.decompress(packed.body) == plain.body
        assert packed.gzipped
        assert not plain.gzipped


# Selection of metrics by name


def families_of(text: str) -> dict[str, str]:
    """Return the lines of each family by the name in its HELP line."""
    blocks = re.split(r"(?m)^(?=# HELP )", text.removesuffix("# EOF\n"))[1:]
    return {block.split(" ", 3)[2]: block for block in blocks}


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
@pytest.mark.parametrize("accept_encoding", ["", "gzip"])
def test_name_restricts_the_exposition_to_its_family(clock: FakeClock, accept: str, accept_encoding: str) -> None:
    statuses = registry(status(clock, other_resources=device_statuses(clock)), status(clock, account="hotel"))
    exposition = expose(statuses, clock)
    complete = families_of(exposition.scrape(accept, "").body.decode())
    assert len(complete) > 40
    for name, lines in complete.items():
        if name.startswith("process_"):
            continue  # its values change
        scrape = exposition.scrape(accept, accept_encoding, [name])
        assert scrape.gzipped == bool(accept_encoding)
        text = (gzip.decompress(scrape.body) if scrape.gzipped else scrape.body).decode()
        assert text == lines + ("# EOF\n" if accept else "")


def test_several_names_keep_the_order_of_the_exposition(clock: FakeClock) -> None:
    exposition = expose(registry(status(clock)), clock)
    text = exposition.scrape("", "", ["python_info", "tedee_up", "lock_state", "no_such_metric", "lock_info"]).body
    assert [*families_of(text.decode())] == ["lock_state", "lock_info", "tedee_up", "python_info"]


@pytest.mark.parametrize(
    "name",
    [
        *("tedee_sync_duration_seconds", "tedee_sync_duration_seconds_bucket", "tedee_sync_duration_seconds_sum"),
        *("lock_info", "tedee_sync_failures", "tedee_sync_failures_total", "process_cpu_seconds_total"),
    ],
)
@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_name_may_be_that_of_family_or_sample(clock: FakeClock, accept: str, name: str) -> None:
    text = expose(registry(status(clock)), clock).scrape(accept, "", [name]).body.decode()
    (family,) = families_of(text)
    assert name.startswith(family.removesuffix("_total"))


@pytest.mark.parametrize(("accept", "text"), [("", b""), (OPENMETRICS, b"# EOF\n")])
def test_unknown_name_has_no_metrics(clock: FakeClock, accept: str, text: bytes) -> None:
    exposition = expose(registry(status(clock)), clock)
    assert exposition.scrape(accept, "", ["lock_"]).body == text
    assert gzip.decompress(exposition.scrape(accept, "gzip", ["lock_"]).body) == text


def test_stale_locks_are_absent_with_a_name(clock: FakeClock) -> None:
    exposition = expose(registry(status(clock)), clock)
    assert exposition.scrape("", "", ["lock_state"]).body
    clock.advance(300)
    assert not exposition.scrape("", "", ["lock_state"]).body


def test_name_does_not_change_the_next_scrape(clock: FakeClock) -> None:
    exposition = expose(registry(status(clock)), clock)
    before = exposition.scrape("", "gzip")
    exposition.scrape("", "gzip", ["lock_state"])
    after = exposition.scrape("", "gzip")
    assert after.parts[0] is before.parts[0]
    assert after.parts[1] is before.parts[1] or after.parts == before.parts


# Costs


def test_process_part_is_rendered_once_a_second(clock: FakeClock) -> None:
    moments: list[float] = []

    def reloaded() -> tuple[bool, float]:
        moments.append(clock.monotonic())
        return True, 0.0

    exposition = Exposition(registry(status(clock)), ExporterCollector("1", reloaded, lambda: True), clock)
    moments.clear()
    for _ in range(40):
        clock.advance(0.125)
        exposition.scrape("", "")
        exposition.scrape(OPENMETRICS, "gzip")
    assert len(set(moments)) == 5


@pytest.fixture
def rendered(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Ids of the locks and other devices that are rendered, in the order of rendering."""
    ids: list[int] = []

    render = module.render

    def recording(metrics: Any, devices: Sequence[module.AccountDevice[Any]]) -> Iterator[module.DeviceLines]:
        ids.extend(each.id for _, each in devices)
        return render(metrics, devices)

    monkeypatch.setattr(module, "render", recording)
    return ids


def test_unchanged_lock_is_not_rendered_again(clock: FakeClock, rendered: list[int]) -> None:
    status_registry = registry(status(clock, locks_of([synced(1), synced(2), synced(3)], [])))
    exposition = expose(status_registry, clock)
    rendered.clear()
    status_registry.publish(status(clock, locks_of([synced(1), synced(2, state=2), synced(3)], [])))
    assert rendered == [2]
    assert series(exposition, "lock_state") == {"1": 6.0, "2": 2.0, "3": 6.0}


@pytest.mark.usefixtures("small_blocks")
def test_unchanged_lines_are_not_compressed_again(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [synced(lock_id) for lock_id in range(5)]
    status_registry = registry(status(clock, locks_of(rows, [])))
    exposition = expose(status_registry, clock)
    compressed: list[bytes] = []

    def record(plain: bytes) -> CompressedBlock:
        compressed.append(plain)
        return CompressedBlock.of(plain)

    monkeypatch.setattr(module, "CompressedBlock", SimpleNamespace(of=record))
    rows[3] = synced(3, batteryLevel=53)
    status_registry.publish(status(clock, locks_of(rows, [])))
    line = 'lock_battery_level{{account="home",lock_id="{0}",lock_name="{0}"}} {1}\n'
    assert compressed == [(line.format(2, 54.0) + line.format(3, 53.0)).encode()]
    status_registry.publish(status(clock, locks_of(rows[:4], [])))
    assert len(compressed) == 1
    assert series(exposition, "lock_battery_level") == {"0": 54.0, "1": 54.0, "2": 54.0, "3": 53.0}


def test_unchanged_devices_are_not_rendered_again(clock: FakeClock, rendered: list[int]) -> None:
    status_registry = registry(status(clock, other_resources=device_statuses(clock)))
    exposition = expose(status_registry, clock)
    before = text_of(exposition)
    rendered.clear()
    clock.advance(20)
    # Another sync, in whose status are equal devices.
    status_registry.publish(status(clock, other_resources=device_statuses(clock)))
    assert rendered == []
    assert [line for line in text_of(exposition).splitlines() if line.startswith("tedee_bridge_")] == [
        line for line in before.splitlines() if line.startswith("tedee_bridge_")
    ]
    details, sensors = device_statuses(clock)
    changed = replace(sensors, devices=(DoorSensor(73001, "Another name"),))
    status_registry.publish(status(clock, other_resources=(details, changed)))
    assert rendered == [73001]
    assert 'door_sensor_name="Another name"' in text_of(exposition)


def test_new_account_does_not_rerender_others(clock: FakeClock, rendered: list[int]) -> None:
    status_registry = StatusRegistry()
    status_registry.set_accounts(["first", "second"])
    exposition = expose(status_registry, clock)
    status_registry.publish(status(clock, locks_of([synced(1), synced(2)], []), account="second"))
    rendered.clear()
    status_registry.publish(status(clock, locks_of([synced(3)], []), account="first"))
    assert rendered == [3]
    assert list(series(exposition, "lock_state")) == ["3", "1", "2"]


def test_concurrently_published_statuses_are_served(clock: FakeClock) -> None:
    status_registry = registry()
    status_registry.set_accounts([f"account-{number}" for number in range(8)])
    exposition = expose(status_registry, clock)
    renderer = Renderer(exposition)
    status_registry.on_change(renderer.wake)
    renderer.start()

    def publish(number: int) -> None:
        for state in range(20):
            rows = [synced(number, state=state)]
            status_registry.publish(status(clock, locks_of(rows, []), account=f"account-{number}"))

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = {str(number): 19.0 for number in range(8)}
    eventually(lambda: series(exposition, "lock_state") == expected, "the last states")


def test_publishing_does_not_wait_for_rendering(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    status_registry = registry(status(clock))
    exposition = expose(status_registry, clock)
    started, done = threading.Event(), threading.Event()

    def blocked() -> None:
        started.set()
        done.wait(TIMEOUT)

    monkeypatch.setattr(exposition, "render", blocked)
    renderer = Renderer(exposition)
    status_registry.on_change(renderer.wake)
    renderer.start()
    status_registry.publish(status(clock))
    assert started.wait(TIMEOUT)
    for _ in range(100):
        status_registry.publish(status(clock))
    done.set()
