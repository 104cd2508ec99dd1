"""Fetches of devices: when, which devices are served and for how long, and that no sync is late because of them."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import responses

from exporter.secrets import Secret
from exporter.state.stores import OpenStore
from exporter.sync.lock_filter import LockFilter
from exporter.sync.snapshot import Connections, ResourceStatus, StatusRegistry
from exporter.tedee.devices import Bridge, DoorSensor, Keypad
from exporter.tedee.endpoint import DEVICES, DOOR_SENSORS
from testing.clock import FakeClock
from testing.stores import memory_store, open_store
from tests.cloud import Tedee, accessory, account_sync, bridge, detailed, run_for, synced
from tests.correctness.test_exposition import expose, samples

INTERVAL = 600.0


@pytest.fixture
def tedee(clock: FakeClock) -> Iterator[Tedee]:
    """Return a house with two locks and their devices."""
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        tedee = Tedee(mock)
        tedee.clock = clock
        tedee.has(synced(1), synced(2))
        tedee.details = [detailed(1, "Front door", connectedToId=11), detailed(2, "Cellar", connectedToId=12)]
        tedee.devices = {
            "bridges": [bridge(11, "Hall"), bridge(12, "Stairs", isConnected=False)],
            "keypads": [accessory(21, 1, 46), accessory(22, None, None)],
            "gates": [{"id": 41, "name": "Drive", "isConnected": True}],
            "dryContacts": [{"id": 51, "name": "Bell"}],
        }
        tedee.door_sensors = [accessory(31, 1, 88), accessory(32, 2, 12)]
        yield tedee


class Served:
    """An exporter with one account, and what it serves."""

    def __init__(self, clock: FakeClock, store: OpenStore | None = None, **options: object) -> None:
        self.clock = clock
        self.registry = StatusRegistry()
        self.registry.set_accounts(["home"])
        self.store = store or memory_store(clock)
        self.account = account_sync(clock, self.registry.publish, store=self.store, **options)  # type: ignore[arg-type]
        self.registry.publish(self.account.status())
        self.exposition = expose(self.registry, clock)

    def run(self, seconds: float) -> "Served":
        run_for(self.account, self.clock, seconds)
        return self

    def names(self, prefix: str) -> set[str]:
        """Return the names of the devices with metrics that have this prefix."""
        label = f"{prefix}_name"
        return {dict(labels)[label] for name, labels in samples(self.exposition) if name.startswith(f"tedee_{prefix}_")}

    def value(self, metric: str, **labels: str) -> float | None:
        found = [
            value
            for (name, given), value in samples(self.exposition).items()
            if name == metric and labels.items() <= dict(given).items()
        ]
        assert len(found) <= 1
        return found[0] if found else None

    def devices(self) -> dict[str, set[str]]:
        """Return the names of all devices by kind."""
        kinds = ("bridge", "keypad", "door_sensor", "gate", "dry_contact")
        return {kind: names for kind in kinds if (names := self.names(kind))}

    def resource(self, path: str) -> ResourceStatus:
        (status,) = self.registry.statuses()
        return next(each for each in status.other_resources if each.endpoint == path)


ALL = {
    "bridge": {"Hall", "Stairs"},
    "keypad": {"Device 21", "Device 22"},
    "door_sensor": {"Device 31", "Device 32"},
    "gate": {"Drive"},
    "dry_contact": {"Bell"},
}


def test_devices_have_metrics_after_the_first_sync(tedee: Tedee, clock: FakeClock) -> None:
    served = Served(clock).run(1)
    assert tedee.endpoints() == ["sync", "details", "door_sensors"]
    assert served.devices() == ALL
    assert served.value("tedee_bridge_connected", bridge_name="Hall") == 1
    assert served.value("tedee_bridge_connected", bridge_name="Stairs") == 0
    assert served.value("tedee_keypad_battery_percent", keypad_id="21") == 46
    assert served.value("tedee_keypad_battery_percent", keypad_id="22") is None
    assert served.value("tedee_keypad_info", keypad_id="22", lock_id="") == 1
    assert served.value("tedee_door_sensor_battery_percent", door_sensor_id="32") == 12
    assert served.value("tedee_door_sensor_info", door_sensor_id="32", lock_id="2") == 1
    assert served.value("tedee_gate_connected", gate_name="Drive") == 1
    assert served.value("tedee_dry_contact_info", dry_contact_id="51") == 1


def test_lock_has_the_devices_that_belong_to_it(tedee: Tedee, clock: FakeClock) -> None:
    tedee.devices["keypads"] += [accessory(20, 1)]
    served = Served(clock).run(1)
    (status,) = served.registry.statuses()
    assert status.snapshot
    assert [lock.connections for lock in status.snapshot.locks] == [
        Connections("Hall", (20, 21), (31,)),
        Connections("Stairs", (), (32,)),
    ]
    assert served.value("lock_info", lock_id="1", bridge_name="Hall", keypad_id="20, 21", door_sensor_id="31") == 1
    assert served.value("lock_info", lock_id="2", bridge_name="Stairs", keypad_id="", door_sensor_id="32") == 1


def test_lock_of_unknown_bridge_has_only_its_id(tedee: Tedee, clock: FakeClock) -> None:
    tedee.devices["bridges"] = [bridge(12, None)]  # type: ignore[arg-type]
    served = Served(clock).run(1)
    assert served.value("lock_info", lock_id="1", bridge_id="11", bridge_name="") == 1
    assert served.value("lock_info", lock_id="2", bridge_id="12", bridge_name="12") == 1


@pytest.mark.parametrize("interval", [300.0, 600.0, 3600.0])
def test_devices_are_fetched_once_in_the_interval(tedee: Tedee, clock: FakeClock, interval: float) -> None:
    Served(clock, devices_interval=interval).run(4 * interval - 1)
    assert tedee.endpoints().count("details") == tedee.endpoints().count("door_sensors") == 4


def test_changed_interval_counts_from_the_last_fetch(tedee: Tedee, clock: FakeClock) -> None:
    served = Served(clock).run(100)
    account = served.account
    account.configure(replace(account._options, resources=replace(account._options.resources, devices_interval=300.0)))
    served.run(199)
    assert tedee.endpoints().count("details") == 1
    served.run(20)
    assert tedee.endpoints().count("details") == tedee.endpoints().count("door_sensors") == 2


def test_changed_values_are_served_after_the_next_fetch(tedee: Tedee, clock: FakeClock) -> None:
    served = Served(clock).run(1)
    tedee.devices["bridges"][0]["isConnected"] = False
    tedee.devices["keypads"] = [accessory(21, 2, None)]
    tedee.door_sensors[0]["deviceState"] = None
    served.run(INTERVAL - 2)
    assert served.value("tedee_bridge_connected", bridge_name="Hall") == 1
    served.run(20)
    assert served.value("tedee_bridge_connected", bridge_name="Hall") == 0
    assert served.value("tedee_keypad_battery_percent", keypad_id="21") is None
    assert served.value("tedee_keypad_info", keypad_id="21", lock_id="2") == 1
    assert served.value("tedee_door_sensor_battery_percent", door_sensor_id="31") is None
    assert served.names("keypad") == {"Device 21"}


@pytest.mark.parametrize("kind", ["bridges", "keypads", "gates", "dryContacts"])
def test_device_that_leaves_the_account_leaves_the_metrics(tedee: Tedee, clock: FakeClock, kind: str) -> None:
    served = Served(clock).run(1)
    tedee.devices[kind] = tedee.devices[kind][1:]
    served.run(INTERVAL)
    removed = {"bridges": "Hall", "keypads": "Device 21", "gates": "Drive", "dryContacts": "Bell"}[kind]
    found = served.devices()
    assert set().union(*found.values()) == set().union(*ALL.values()) - {removed}


def test_door_sensor_that_leaves_the_account_leaves_the_metrics(tedee: Tedee, clock: FakeClock) -> None:
    served = Served(clock).run(1)
    tedee.door_sensors = []
    served.run(INTERVAL)
    assert served.devices() == {kind: names for kind, names in ALL.items() if kind != "door_sensor"}
    assert served.value("lock_info", lock_id="1", door_sensor_id="") == 1


def test_door_sensor_in_both_responses_has_one_sample(tedee: Tedee, clock: FakeClock) -> None:
    tedee.devices["doorSensors"] = [accessory(31, 1, 87), accessory(33, 2, 50)]
    served = Served(clock).run(1)
    assert served.names("door_sensor") == {"Device 31", "Device 32", "Device 33"}
    assert served.value("tedee_door_sensor_battery_percent", door_sensor_id="31") == 88
    assert served.value("lock_info", lock_id="2", door_sensor_id="32, 33") == 1


# Selected locks


@pytest.mark.parametrize(
    "lock_filter", [LockFilter(ids=(1,)), LockFilter(serial_numbers=("111111-00001",))], ids=["ids", "serial numbers"]
)
def test_only_devices_of_selected_locks_have_metrics(tedee: Tedee, clock: FakeClock, lock_filter: LockFilter) -> None:
    tedee.has(synced(1))
    served = Served(clock, lock_filter=lock_filter).run(1)
    assert served.devices() == {"bridge": {"Hall"}, "keypad": {"Device 21"}, "door_sensor": {"Device 31"}}
    assert served.value("lock_info", lock_id="1", bridge_name="Hall", keypad_id="21", door_sensor_id="31") == 1


def test_changed_selection_applies_to_devices_without_a_fetch(tedee: Tedee, clock: FakeClock) -> None:
    served = Served(clock).run(1)
    account = served.account
    for lock_filter, devices in [
        (LockFilter(ids=(2,)), {"bridge": {"Stairs"}, "door_sensor": {"Device 32"}}),
        (LockFilter(ids=(9,)), {}),
        (LockFilter(), ALL),
    ]:
        changed = replace(account._options.resources, lock_filter=lock_filter)
        account.configure(replace(account._options, resources=changed))
        account.run()
        assert served.devices() == devices
    assert tedee.endpoints() == ["sync", "details", "door_sensors"]


# Age


def test_lock_that_a_response_lacks_keeps_its_name(tedee: Tedee, clock: FakeClock) -> None:
    served = Served(clock).run(60)
    tedee.details = tedee.details[1:]
    served.run(2 * INTERVAL)
    assert served.value("lock_state", lock_id="1", lock_name="Front door") is not None
    tedee.has(synced(2))
    served.run(2 * INTERVAL)
    tedee.has(synced(1), synced(2))
    served.run(60)
    assert served.value("lock_state", lock_id="1", lock_name="1") is not None


def test_old_devices_leave_the_metrics_but_the_names_of_locks_stay(tedee: Tedee, clock: FakeClock) -> None:
    served = Served(clock).run(1)
    fetched_at = clock.wall() - 1
    tedee.details_status, tedee.door_sensors_status = 500, 503
    served.run(3 * INTERVAL - 2)
    assert served.devices() == ALL
    served.run(1)
    assert served.devices() == {}
    assert {dict(labels)["lock_name"] for name, labels in samples(served.exposition) if name == "lock_state"} == {
        "Front door",
        "Cellar",
    }
    for path in (DEVICES.path, DOOR_SENSORS.path):
        age = served.value("tedee_last_response_timestamp_seconds", account="home", endpoint=path)
        assert age == pytest.approx(fetched_at)
    assert served.value("tedee_up") == 1
    tedee.details_status = tedee.door_sensors_status = 200
    served.run(320)
    assert served.devices() == ALL


def test_old_devices_leave_a_scrape_without_a_sync(tedee: Tedee, clock: FakeClock) -> None:
    served = Served(clock, stale_after=10_000.0).run(0)
    clock.advance(3 * INTERVAL - 0.001)
    assert served.devices() == ALL
    clock.advance(0.001)
    assert served.devices() == {}
    assert served.value("lock_state", lock_name="Cellar") == 6


def test_old_door_sensors_do_not_affect_other_devices(tedee: Tedee, clock: FakeClock) -> None:
    tedee.door_sensors_status = 404
    served = Served(clock).run(5 * INTERVAL)
    assert served.devices() == {kind: names for kind, names in ALL.items() if kind != "door_sensor"}
    assert served.value("tedee_last_response_timestamp_seconds", endpoint=DOOR_SENSORS.path) is None


def test_old_details_do_not_affect_door_sensors(tedee: Tedee, clock: FakeClock) -> None:
    served = Served(clock).run(1)
    tedee.details_status = 500
    served.run(5 * INTERVAL)
    assert served.devices() == {"door_sensor": {"Device 31", "Device 32"}}


# Failures and slow responses


def late(tedee: Tedee, takes: float) -> None:
    """Let each call of devices take that many seconds, and each sync 0.1."""
    assert tedee.clock
    clock = tedee.clock
    tedee.on_call = lambda endpoint: clock.advance(0.1 if endpoint == "sync" else takes)


@pytest.mark.parametrize("takes", [0.0, 9.0, 10.0])
@pytest.mark.parametrize("status", [200, 401, 429, 500])
@pytest.mark.parametrize("events_interval", [None, 60.0])
def test_slow_or_failing_devices_never_delay_syncs(
    tedee: Tedee, clock: FakeClock, takes: float, status: int, events_interval: float | None
) -> None:
    late(tedee, takes)
    tedee.details_status = tedee.door_sensors_status = tedee.activities_status = status
    served = Served(clock, events_interval=events_interval).run(2_000)
    assert tedee.endpoints().count("details") >= 3
    assert tedee.endpoints().count("door_sensors") >= 3
    assert {round(later - earlier, 6) for earlier, later in pairwise(tedee.times)} == {20.1}
    assert served.value("tedee_up") == 1


def test_slow_devices_of_an_account_with_often_changing_revisions_never_delay_syncs(
    tedee: Tedee, clock: FakeClock
) -> None:
    late(tedee, 10.0)
    served = Served(clock)
    for revision in range(2, 100):
        tedee.has(synced(1, revision=revision), synced(2))
        served.run(20)
    assert tedee.endpoints().count("details") > 12
    assert {round(later - earlier, 6) for earlier, later in pairwise(tedee.times)} == {20.1}


def test_calls_begin_only_if_no_sync_is_due_soon(tedee: Tedee, clock: FakeClock) -> None:
    until_sync: list[float] = []

    def on_call(endpoint: str) -> None:
        if endpoint != "sync":
            until_sync.append(tedee.times[-1] + 20.0 - clock.monotonic())
            clock.advance(4.0)

    tedee.on_call = on_call
    served = Served(clock, events_interval=60.0)
    for revision in range(2, 100):
        tedee.has(*(synced(number, revision=revision) for number in range(1, 20)))
        served.run(17)
    assert len(until_sync) > 40
    assert min(until_sync) >= 11.0


@pytest.mark.parametrize("retry_after", ["1000", "2000"])
def test_limit_of_an_endpoint_delays_only_its_calls(tedee: Tedee, clock: FakeClock, retry_after: str) -> None:
    tedee.details_status, tedee.details_headers = 429, {"Retry-After": retry_after}
    served = Served(clock).run(int(retry_after) - 1)
    assert tedee.endpoints().count("details") == 1
    assert tedee.endpoints().count("door_sensors") == 1 + int(retry_after) // 600
    assert {later - earlier for earlier, later in pairwise(tedee.times)} == {20.0}
    failure = served.resource(DEVICES.path).failure
    assert failure
    assert failure.reason == "rate_limited"
    assert served.resource(DOOR_SENSORS.path).failure is None
    tedee.details_status = 200
    served.run(20)
    assert served.devices() == ALL
    assert served.resource(DEVICES.path).failure is None


def test_failing_syncs_fetch_no_devices(tedee: Tedee, clock: FakeClock) -> None:
    served = Served(clock).run(1)
    tedee.sync_status = 503
    served.run(2 * INTERVAL)
    assert tedee.endpoints().count("details") == tedee.endpoints().count("door_sensors") == 1
    tedee.sync_status = 200
    served.run(320)
    assert tedee.endpoints().count("details") == tedee.endpoints().count("door_sensors") == 2


@pytest.mark.parametrize("takes", [0.0, 10.0])
def test_response_without_the_list_of_locks_fails(tedee: Tedee, clock: FakeClock, takes: float) -> None:
    served = Served(clock).run(1)
    late(tedee, takes)
    del tedee.devices["bridges"]
    tedee.devices["locks"] = None
    served.run(INTERVAL + 20)
    failure = served.resource(DEVICES.path).failure
    assert failure
    assert "has no list named locks" in failure.message
    assert served.devices() == ALL
    assert {dict(labels)["lock_name"] for name, labels in samples(served.exposition) if name == "lock_state"} == {
        "Front door",
        "Cellar",
    }


# Restarts and several processes


Start = Callable[..., Served]


@pytest.fixture
def start(tmp_path: Path, clock: FakeClock) -> Start:
    return lambda **options: Served(clock, open_store(tmp_path / "state.db", clock), **options)


@pytest.mark.parametrize("end", ["close", "kill"])
def test_restart_serves_devices_with_their_age(tedee: Tedee, start: Start, clock: FakeClock, end: str) -> None:
    first = start().run(1)
    before = first.resource(DEVICES.path)
    if end == "close":
        first.store.close()
    clock.advance(100)
    second = start()
    assert second.devices() == ALL
    after = second.resource(DEVICES.path)
    assert (after.at, after.fresh_until) == (before.at, before.fresh_until)
    second.run(INTERVAL - 102)
    assert tedee.endpoints().count("details") == tedee.endpoints().count("door_sensors") == 1
    second.run(20)
    assert tedee.endpoints().count("details") == tedee.endpoints().count("door_sensors") == 2


def test_restart_does_not_serve_old_devices_but_names_of_locks(tedee: Tedee, start: Start, clock: FakeClock) -> None:
    start().run(1)
    clock.advance(3 * INTERVAL)
    tedee.details_status = tedee.door_sensors_status = 500
    served = start()
    assert served.devices() == {}
    served.run(60)
    assert served.devices() == {}
    assert served.value("lock_state", lock_name="Front door") == 6


@pytest.mark.parametrize(
    "row",
    [
        b'{"id":1,"name":"Front door"}',
        b'{"kind":"siren","id":1,"name":"Front door"}',
        b'{"kind":"lock","id":"1"}',
        b'{"kind":"keypad","id":1,"deviceState":{"batteryLevelModifiedTime":"2026-11-19"}}',
        b"[1]",
        b"",
        b"\xff",
    ],
)
@pytest.mark.parametrize("endpoint", [DEVICES.path, DOOR_SENSORS.path])
def test_devices_of_another_version_are_fetched_again(
    tedee: Tedee, start: Start, clock: FakeClock, row: bytes, endpoint: str
) -> None:
    first = start().run(1)
    fingerprint = first.account._fingerprint
    stored = first.store.responses.cached_response("home", endpoint, fingerprint)
    assert stored
    assert stored.rows
    changed = replace(stored, rows=[*stored.rows, row])
    first.store.responses.store_response("home", endpoint, fingerprint, changed)
    clock.advance(5)
    second = start()
    kinds = {"door_sensor"} if endpoint == DOOR_SENSORS.path else ALL.keys() - {"door_sensor"}
    assert second.devices() == {kind: names for kind, names in ALL.items() if kind not in kinds}
    second.run(20)
    assert second.devices() == ALL
    assert tedee.endpoints().count("details") == 1 + (endpoint == DEVICES.path)
    assert tedee.endpoints().count("door_sensors") == 1 + (endpoint == DOOR_SENSORS.path)


def test_devices_of_previous_user_are_not_served(tedee: Tedee, start: Start, clock: FakeClock) -> None:
    start().run(1)
    clock.advance(5)
    other = start(key=Secret("key-of-another-user"))
    assert other.devices() == {}
    tedee.devices, tedee.door_sensors = {"bridges": [bridge(99, "Elsewhere")]}, []
    other.run(60)
    assert other.devices() == {"bridge": {"Elsewhere"}}


def test_devices_are_fetched_again_if_a_key_file_has_another_key(
    tedee: Tedee, clock: FakeClock, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_text("key-of-the-owner")
    served = Served(clock, key=key).run(30.0)
    assert served.names("door_sensor") == {"Device 31", "Device 32"}
    key.write_text("key-of-a-guest")
    tedee.has(synced(2))
    tedee.details = [detailed(2, "Cellar", connectedToId=12)]
    tedee.devices, tedee.door_sensors = {"bridges": [bridge(12, "Stairs")]}, [accessory(32, 2, 12)]
    seen = []
    tedee.on_call = lambda endpoint: seen.append((endpoint, served.devices()))
    # The first call for an unknown user waits, since another process may just have called.
    served.run(70.0)
    after_sync = [devices for endpoint, devices in seen if endpoint in {"details", "door_sensors"}]
    assert after_sync == [{}, {"bridge": {"Stairs"}}]
    assert served.devices() == {"bridge": {"Stairs"}, "door_sensor": {"Device 32"}}


def test_followers_serve_the_devices_of_the_leader(tedee: Tedee, start: Start, clock: FakeClock) -> None:
    leader, follower = start(), start()
    clock.advance(20)
    leader.run(0)
    follower.account.run()
    clock.advance(20)
    leader.run(0)
    follower.account.run()
    assert follower.devices() == leader.devices() == ALL
    tedee.devices["bridges"] = [bridge(11, "Hall", isConnected=False)]
    for _ in range(40):
        clock.advance(20)
        leader.run(0)
        follower.account.run()
    assert follower.value("tedee_bridge_connected", bridge_name="Hall") == 0
    assert tedee.endpoints().count("details") == tedee.endpoints().count("door_sensors") == 2


def test_removed_account_has_no_devices(tedee: Tedee, clock: FakeClock) -> None:
    served = Served(clock).run(1)
    served.registry.remove_devices("home")
    assert served.devices() == {}
    assert served.value("tedee_bridge_info") is None


def test_stored_devices_have_their_kind(tedee: Tedee, start: Start, clock: FakeClock) -> None:
    """A bridge and a keypad may have one id."""
    tedee.devices |= {"bridges": [bridge(11, "Hall")], "keypads": [accessory(11, 1, 46)]}
    tedee.door_sensors = [accessory(11, 1, 88)]
    start().run(1).store.close()
    served = start()
    (status,) = served.registry.statuses()
    assert [each.id for kind in (Bridge, Keypad, DoorSensor) for each in status.devices(kind)] == [11, 11, 11]
    assert served.value("tedee_keypad_battery_percent", keypad_id="11") == 46
    assert served.value("tedee_door_sensor_battery_percent", door_sensor_id="11") == 88
