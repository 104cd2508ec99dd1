"""Model check: the exporter serves the values of the last successful responses, or none if they are stale."""

import copy
import re
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import responses
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from exporter.metrics.collector import ExporterCollector
from exporter.metrics.exposition import Exposition
from exporter.sync.snapshot import StatusRegistry
from testing.clock import FakeClock
from testing.stores import open_store
from tests.cloud import Tedee, account_sync, detailed, envelope, run_for

STALE_AFTER = 300.0
DEVICES_INTERVAL = 300.0
GAUGES = {
    "lock_state": "state",
    "lock_door_state": "doorState",
    "lock_battery_level": "batteryLevel",
    "lock_charging": "isCharging",
    "lock_state_change_result": "stateChangeResult",
}
DERIVED = {
    "lock_locked": ("lock_state", {6: 1.0} | dict.fromkeys((2, 3, 4, 5, 7, 8, 255), 0.0)),
    "lock_door_open": ("lock_door_state", {2: 1.0, 3: 0.0}),
    "lock_jammed": ("lock_state_change_result", {0: 0.0, 1: 1.0}),
}
"""For each metric, the one with the code that it is derived from, and its values."""
COUNTER = "lock_state_changes_total"
SAMPLE = re.compile(r'^(lock_\w+)\{account="home",.*?lock_id="(\d+)",lock_name="([^"]*)".*\} (\S+)$', re.MULTILINE)

DEVICE_SAMPLE = re.compile(
    r'^(tedee_(bridge|keypad|door_sensor|gate|dry_contact)_\w+)\{account="home",.*?\2_id="(\d+)".*\} (\S+)$',
    re.MULTILINE,
)

CODES = st.integers(0, 9) | st.sampled_from([18, 42, 255])
JUNK: st.SearchStrategy[Any] = st.sampled_from([None, "junk", 1.5, [], {}, -(2**40)])
DATES = ["2021-04-26T06:02:04.197Z", "2021-04-26T06:02:04.198Z", "2026-11-27T08:00:00"]
"""In the order of time."""
STATES = st.fixed_dictionaries(
    {},
    optional={
        "state": CODES | JUNK,
        "doorState": CODES | JUNK,
        "batteryLevel": st.integers(-5, 255) | JUNK,
        "isCharging": st.booleans() | JUNK,
        "stateChangeResult": CODES | JUNK,
        "lastStateChangedDate": st.sampled_from([*DATES, "junk"]),
    },
)
FLAGS = st.booleans() | JUNK
LEVELS = st.fixed_dictionaries(
    {},
    optional={
        "batteryLevel": st.integers(-1, 102) | JUNK,
        "batteryLevelModifiedTime": st.sampled_from([*DATES, "junk", None]),
    },
)
DEVICES = {
    "bridges": st.fixed_dictionaries({}, optional={"isConnected": FLAGS, "isUpdating": FLAGS, "name": JUNK}),
    "keypads": st.fixed_dictionaries({}, optional={"deviceState": LEVELS | JUNK, "isConnected": st.none()}),
    "doorSensors": st.fixed_dictionaries({}, optional={"deviceState": LEVELS | JUNK, "isConnected": st.none()}),
    "gates": st.fixed_dictionaries({}, optional={"isConnected": FLAGS}),
    "dryContacts": st.fixed_dictionaries({}, optional={"deviceSettings": JUNK, "type": JUNK}),
}
"""Rows without their ids, by the name of the list."""
PREFIXES = {
    "bridges": "tedee_bridge",
    "keypads": "tedee_keypad",
    "doorSensors": "tedee_door_sensor",
    "gates": "tedee_gate",
    "dryContacts": "tedee_dry_contact",
}
INVALID_BODIES = [b"", b"<html>", b"[]", b"5", b'{"result": [{"id"', b'{"result": [], "success": false}']
CONNECTED = st.sampled_from([True, True, True, False, None])


def expected(rows: list[dict[str, Any]]) -> dict[tuple[str, int], float]:
    """Return (metric, lock id) to value, read from a response in the simplest way."""
    samples: dict[tuple[str, int], float] = {}
    for row in rows:
        if isinstance(row["isConnected"], bool):
            samples["lock_connected", row["id"]] = float(row["isConnected"])
        state = row["deviceState"] if row["isConnected"] is not False else None
        for metric, field in GAUGES.items():
            value = (state or {}).get(field)
            if field == "isCharging":
                usable = isinstance(value, bool)
            else:
                usable = type(value) is int and (0 <= value <= 100 if field == "batteryLevel" else abs(value) < 2**31)
            if usable:
                assert value is not None
                samples[metric, row["id"]] = float(value)
        for metric, (source, values) in DERIVED.items():
            code = samples.get((source, row["id"]), -1.0)
            if code in values:
                samples[metric, row["id"]] = values[int(code)]
    return samples


def expected_devices(lists: dict[str, list[Any]]) -> dict[tuple[str, int], float]:
    """Return (metric, device id) to value, read from a response in the simplest way."""
    samples: dict[tuple[str, int], float] = {}
    for kind, rows in lists.items():
        for row in rows:
            if kind not in PREFIXES or not isinstance(row, dict) or type(row.get("id")) is not int:
                continue
            found: dict[str, float] = {"info": 1.0}
            for name, field in (("connected", "isConnected"), ("updating", "isUpdating")):
                if isinstance(row.get(field), bool):
                    found[name] = float(row[field])
            state = row.get("deviceState")
            state = state if isinstance(state, dict) else {}
            if type(state.get("batteryLevel")) is int and 0 <= state["batteryLevel"] <= 100:
                found["battery_percent"] = float(state["batteryLevel"])
            if state.get("batteryLevelModifiedTime") in DATES:
                date = datetime.fromisoformat(state["batteryLevelModifiedTime"])
                found["battery_timestamp_seconds"] = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
            for name, value in found.items():
                samples[f"{PREFIXES[kind]}_{name}", row["id"]] = value
    return samples


def dates(rows: list[dict[str, Any]]) -> dict[int, int]:
    """Return the positions in DATES of the dates in a response, by lock id."""
    states = {row["id"]: row["deviceState"] for row in rows if row["isConnected"] is not False}
    found = {lock_id: state.get("lastStateChangedDate") for lock_id, state in states.items()}
    return {lock_id: DATES.index(date) for lock_id, date in found.items() if date in DATES}


class ExporterHistory(RuleBasedStateMachine):
    """An exporter with one account, and a simple model of the samples that it must serve."""

    def __init__(self) -> None:
        super().__init__()
        self.mock = responses.RequestsMock(assert_all_requests_are_fired=False)
        self.mock.start()
        self.tedee = Tedee(self.mock)
        self.folder = tempfile.TemporaryDirectory()
        self.clock = FakeClock()
        self.rows: dict[int, dict[str, Any]] = {}
        self.expected: dict[tuple[str, int], float] = {}
        self.synced_at = -STALE_AFTER
        self.names: dict[int, set[str]] = {}
        self.last_dates: dict[int, int] = {}
        self.last_response: list[dict[str, Any]] = []
        self.changes: dict[int, int] = {}
        self.devices: dict[tuple[str, int], dict[str, Any]] = {}
        self.extra_lists: dict[str, list[Any]] = {}
        self.fetched: dict[str, tuple[float, dict[tuple[str, int], float]]] = {}
        """Time of the last successful response of each endpoint of devices, and the samples in it."""
        self.fetches: dict[str, list[float]] = {"details": [], "door_sensors": []}
        self.failed_since: set[str] = set()
        """Endpoints of devices that failed since their last success."""
        self.tedee.on_call = self.record_fetch

    def teardown(self) -> None:
        self.store.close()
        self.mock.stop(allow_assert=False)
        self.folder.cleanup()

    @initialize()
    def start(self) -> None:
        self.registry = StatusRegistry()
        self.registry.set_accounts(["home"])
        self.exposition = Exposition(
            self.registry, ExporterCollector("1", lambda: (True, 0.0), lambda: True), self.clock
        )
        self.registry.on_change(self.exposition.render)
        self.store = open_store(Path(self.folder.name, "state.db"), self.clock)
        self.account = account_sync(
            self.clock,
            self.registry.publish,
            store=self.store,
            stale_after=STALE_AFTER,
            devices_interval=DEVICES_INTERVAL,
        )
        self.registry.publish(self.account.status())

    @rule(lock_id=st.integers(1, 4), connected=CONNECTED, state=STATES)
    def change_lock(self, lock_id: int, connected: bool | None, state: dict[str, Any]) -> None:
        revision = self.rows.get(lock_id, {}).get("revision", 1)
        self.rows[lock_id] = {"id": lock_id, "isConnected": connected, "deviceState": state, "revision": revision}
        self.names.setdefault(lock_id, {str(lock_id)})

    @rule(lock_id=st.integers(1, 4))
    def remove_lock(self, lock_id: int) -> None:
        self.rows.pop(lock_id, None)

    @rule(lock_id=st.integers(1, 4), name=st.sampled_from(["Front door", "Cellar", "Garage"]))
    def rename_lock(self, lock_id: int, name: str) -> None:
        if lock_id in self.rows:
            self.rows[lock_id]["revision"] += 1
            self.names[lock_id].add(name)
            others = [row for row in self.tedee.details if row["id"] != lock_id]
            self.tedee.details = [*others, detailed(lock_id, name)]

    def record_fetch(self, endpoint: str) -> None:
        if endpoint not in self.fetches:
            return
        status = self.tedee.details_status if endpoint == "details" else self.tedee.door_sensors_status
        self.fetches[endpoint].append(self.clock.monotonic())
        if status != 200:
            self.failed_since.add(endpoint)
            return
        self.failed_since.discard(endpoint)
        lists = self.tedee.devices if endpoint == "details" else {"doorSensors": self.tedee.door_sensors}
        self.fetched[endpoint] = self.clock.monotonic(), expected_devices(copy.deepcopy(lists))

    @rule(
        device=st.sampled_from([*DEVICES]).flatmap(lambda kind: st.tuples(st.just(kind), DEVICES[kind])),
        device_id=st.integers(1, 3),
    )
    def change_device(self, device: tuple[str, dict[str, Any]], device_id: int) -> None:
        kind, row = device
        self.devices[kind, device_id] = row | {"id": device_id}
        self.set_devices()

    @rule(kind=st.sampled_from([*DEVICES]), device_id=st.integers(1, 3))
    def remove_device(self, kind: str, device_id: int) -> None:
        self.devices.pop((kind, device_id), None)
        self.set_devices()

    @rule(kind=st.sampled_from([*DEVICES, "sirens"]), extra=st.sampled_from([5, None, "x", [], {}, {"id": "7"}]))
    def add_malformed_device(self, kind: str, extra: object) -> None:
        self.extra_lists = {kind: [extra] if extra else []}
        self.set_devices()

    def set_devices(self) -> None:
        lists: dict[str, list[Any]] = {name: [*rows] for name, rows in self.extra_lists.items()}
        for (kind, _), row in self.devices.items():
            lists.setdefault(kind, []).append(row)
        self.tedee.door_sensors = lists.pop("doorSensors", [])
        self.tedee.devices = lists

    @rule(status=st.sampled_from([200, 200, 200, 404, 429, 500]))
    def set_status_of_devices(self, status: int) -> None:
        self.tedee.details_status = status

    @rule(status=st.sampled_from([200, 200, 200, 401, 429, 503]))
    def set_status_of_door_sensors(self, status: int) -> None:
        self.tedee.door_sensors_status = status

    def check_that_devices_were_fetched(self) -> None:
        """Check that no response is older than the interval, unless the last fetch failed or the limits forbid one."""
        now = self.clock.monotonic()
        for endpoint, times in self.fetches.items():
            recent = [at for at in times if at > now - 700]
            if endpoint not in self.failed_since and len(recent) < 4:
                assert endpoint in self.fetched
                assert now - self.fetched[endpoint][0] <= DEVICES_INTERVAL

    def sync(self, *, succeeds: bool) -> None:
        """Advance the clock to the next sync, and run the account for it and for other due calls."""
        calls = self.tedee.endpoints().count("sync")
        while self.tedee.endpoints().count("sync") == calls:
            self.clock.advance(self.account.wait())
            self.account.run()
        if succeeds:
            self.last_response, self.synced_at = list(self.rows.values()), self.clock.monotonic()
            self.count_changes()
        run_for(self.account, self.clock, 0)

    def count_changes(self) -> None:
        """Count the changes in the last response."""
        for lock_id, date in dates(self.last_response).items():
            self.changes[lock_id] = self.changes.get(lock_id, 0) + (date > self.last_dates.get(lock_id, date))
            self.last_dates[lock_id] = date
        counted = {(COUNTER, row["id"]): row["id"] for row in self.last_response if row["id"] in self.changes}
        counters = {key: float(self.changes[lock_id]) for key, lock_id in counted.items()}
        self.expected = expected(self.last_response) | counters

    @rule()
    def sync_successfully(self) -> None:
        self.tedee.sync_status = 200
        self.tedee.has(*self.rows.values())
        self.sync(succeeds=True)
        self.check_that_devices_were_fetched()

    @rule(extra=st.sampled_from([5, None, "x", {"id": "7"}, {}]))
    def sync_with_malformed_lock(self, extra: object) -> None:
        self.tedee.sync_status = 200
        self.tedee.sync = envelope([extra, *self.rows.values()])
        self.sync(succeeds=True)

    @rule(status=st.sampled_from([401, 403, 404, 429, 500, 503]))
    def sync_with_error_status(self, status: int) -> None:
        self.tedee.sync_status = status
        self.sync(succeeds=False)

    @rule(body=st.sampled_from(INVALID_BODIES))
    def sync_with_invalid_body(self, body: bytes) -> None:
        self.tedee.sync_status = 200
        self.tedee.sync = body
        self.sync(succeeds=False)

    @rule(seconds=st.floats(0, 400))
    def advance_time(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(jump=st.sampled_from([-3600.0, 86_400.0]))
    def set_wall_time(self, jump: float) -> None:
        self.clock.set_wall(self.clock.wall() + jump)

    @rule(killed=st.booleans())
    def restart_exporter(self, killed: bool) -> None:
        if not killed:
            self.store.close()
        self.start()
        # The exporter compares with the response that it restored.
        self.last_dates, self.changes = {}, {}
        if self.is_fresh():
            self.count_changes()

    def is_fresh(self) -> bool:
        return self.clock.monotonic() - self.synced_at < STALE_AFTER

    @rule()
    def reload_configuration(self) -> None:
        self.registry.set_accounts(["home"])
        self.account.configure(replace(self.account._options))

    @invariant()
    def served_samples_are_of_the_last_sync(self) -> None:
        served: dict[tuple[str, int], float] = {}
        for name, lock_id, lock_name, value in SAMPLE.findall(self.exposition.scrape("", "").body.decode()):
            assert lock_name in self.names[int(lock_id)]
            if name in GAUGES or name in DERIVED or name in {"lock_connected", COUNTER}:
                served[name, int(lock_id)] = float(value)
        assert served == (self.expected if self.is_fresh() else {})

    @invariant()
    def served_devices_are_of_the_last_fetches(self) -> None:
        now = self.clock.monotonic()
        fresh = [samples for at, samples in self.fetched.values() if now - at < 3 * DEVICES_INTERVAL]
        text = self.exposition.scrape("", "").body.decode()
        served = {(name, int(number)): float(value) for name, _, number, value in DEVICE_SAMPLE.findall(text)}
        assert served == {key: value for samples in fresh for key, value in samples.items()}


TestHistory = ExporterHistory.TestCase
TestHistory.settings = settings(max_examples=100, stateful_step_count=50, suppress_health_check=list(HealthCheck))
