"""Recording of a scripted day: the real exporter against the simulated cloud, with a fake clock.

Three ordinary days precede it, so that batteries have a trend.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from exporter.accounts import Accounts
from exporter.config.settings import Settings
from exporter.config.source import Source
from exporter.metrics.collector import ExporterCollector
from exporter.metrics.exposition import Exposition
from exporter.simulator import TOKEN_PATH, Account, Battery, Gate, Lock, World, serve
from exporter.simulator.activity import DOOR_OPEN_TOO_LONG, WRONG_PIN
from exporter.simulator.wire import (
    Version,
    bridge_entry,
    door_sensor_entry,
    dry_contact_entry,
    gate_entry,
    keypad_entry,
    lock_entry,
    sync_entry,
)
from exporter.sync.scheduler import Scheduler
from exporter.sync.snapshot import AccountStatus, ResourceStatus, StatusRegistry
from exporter.tedee.devices import LockDetails, read_devices
from exporter.tedee.endpoint import ACTIVITIES, DEVICES, DOOR_SENSORS, Endpoint
from exporter.tedee.oauth import SCOPE
from testing.clock import FakeClock
from testing.factories import json_rows, locks_of, registry, status
from testing.faults import Fault, FaultyCloud
from testing.stores import memory_store
from tests.cloud import detailed, synced

HOUR, DAY = 3600.0, 86_400.0
INTERVAL = 240.0
"""Seconds between two syncs, and between two scrapes, during the day."""
END = 1_789_999_200.0
"""End of the day in Unix seconds, at a full hour."""
DAY_START = END - 26 * HOUR
START = END - 4 * DAY
"""Start of the recording."""
SCOPES = f"{SCOPE} https://tedee.onmicrosoft.com/api/DeviceActivity.Read"
RENAMED = END - 11 * HOUR
"""When room 106 is renamed."""
FAILING = (END - 9 * HOUR, END - 7 * HOUR)
"""When Tedee returns errors to the hotel."""
DOWN = (END - 5 * HOUR, END - 5 * HOUR + 600)
"""When Prometheus cannot scrape the exporter."""

ANNEX_BRIDGE = 23
"""Id of the bridge of the hotel's annex, which is offline at the end."""
WRONG_PINS = 5
"""Wrong PINs at room 101."""
TARGET = {"job": "tedee", "instance": "127.0.0.1:10333"}
ODD_NAME = 'quotes " backslash \\ \\n newline\nemoji 🏰 Łódź'

Labels = Mapping[str, str]


class Recording:
    """OpenMetrics file with the samples that Prometheus would store. promtool converts it to storage blocks."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("w", encoding="utf-8")
        self._start: float | None = None

    def add_scrape(self, exposition: Exposition, at: float, target: Labels = TARGET) -> None:
        """Add all samples of a scrape."""
        body = exposition.scrape("application/openmetrics-text", "").body.decode()
        samples = [line for line in body.splitlines() if not line.startswith("#")]
        labels = ",".join(f'{name}="{value}"' for name, value in target.items())
        self._start = self._start or at
        for sample in samples:
            series, _, value = sample.rpartition(" ")
            name, _, rest = series.partition("{")
            if name == "process_start_time_seconds":
                # This process started at the real time, which may be later than the recording.
                value = f"{self._start}"
            self._file.write(f"{name}{{{labels}{',' if rest else ''}{rest or '}'} {value} {at:.3f}\n")
        self.add_target_samples(at, target, up=1, scrape_duration_seconds=0.004, scrape_samples_scraped=len(samples))

    def add_target_samples(self, at: float, target: Labels = TARGET, **values: float) -> None:
        """Add series that Prometheus itself creates for a target."""
        for name, value in values.items():
            self.add_sample(name, target, value, at)

    def add_sample(self, name: str, labels: Labels, value: float, at: float) -> None:
        """Add one sample."""
        text = ",".join(f'{label}="{value}"' for label, value in labels.items())
        self._file.write(f"{name}{{{text}}} {value} {at:.3f}\n")

    def add_alert(self, labels: Labels, start: float, at: float) -> None:
        """Add the samples of an alert that fires at a time since it started."""
        self.add_sample("ALERTS", {**labels, "alertstate": "firing"}, 1, at)
        self.add_sample("ALERTS_FOR_STATE", labels, start, at)

    def close(self) -> None:
        """Write the end marker of OpenMetrics and close the file."""
        self._file.write("# EOF\n")
        self._file.close()


def demo_world(clock: FakeClock) -> World:
    """Return the home and the hotel of the demo, with batteries that have a trend."""
    demo = World.demo(clock=clock.wall)
    for account in demo.accounts:
        for lock in account.locks:
            # Charged ten days ago, and half discharged.
            lock.battery = Battery(drain=20 * DAY, charge=HOUR, low=10, phase=10 * DAY - END % (20 * DAY + HOUR))
            # The activity log begins here, so that its first page is found fast.
            lock.created = datetime.fromtimestamp(START - DAY, UTC).replace(tzinfo=None).isoformat()
    demo.account("hotel").add(Gate(2301, "Car park"))
    home = demo.account("home")
    home.lock("Shed").rename(ODD_NAME)
    home.lock("Garden door").battery = Battery(drain=3 * DAY, charge=4 * HOUR, low=10)
    return demo


def events(world: World, cloud: FaultyCloud) -> Iterator[float]:
    """Yield the Unix time of each event. The event takes place when the next one is requested."""
    home, hotel = world.account("home"), world.account("hotel")
    yield END - 20 * HOUR  # a response has values that cannot be used
    hotel.lock("Room 101").override(batteryLevel=255)
    yield END - 19 * HOUR  # the values are valid again
    hotel.lock("Room 101").clear_overrides()
    yield END - 15 * HOUR  # several kinds of failures, one after the other
    cloud.faults.script(
        Fault.error(503), Fault.error(429), Fault.reset(), Fault.html(200), account="home", endpoint="sync"
    )
    yield END - 12 * HOUR  # new firmware
    for lock in home.locks:
        lock.software = "2.5.30000"
        lock.revision += 1
    yield RENAMED  # a lock is renamed
    hotel.lock("Room 106").rename("Suite 106")
    yield FAILING[0]  # Tedee returns errors to the hotel; a door at home stays locked
    cloud.faults.script(Fault.error(503), account="hotel", endpoint="sync", forever=True)
    home.lock(1004).override(state=6, doorState=3)
    yield FAILING[1]  # syncs succeed again
    cloud.faults.clear()
    yield END - 3 * HOUR  # someone guesses a PIN, and a door stays open
    for number in range(WRONG_PINS):
        hotel.lock("Room 101").add_event(WRONG_PIN, END - 3 * HOUR + 5 * number)
    hotel.lock("Luggage store").add_event(DOOR_OPEN_TOO_LONG, END - 3 * HOUR)
    yield END - HOUR  # all locks stop moving, some of them with problems
    for lock in (*home.locks, *hotel.locks):
        if lock.bridge:
            lock.override(state=6, doorState=3, stateChangeResult=0)
    for lock, fields in problems(world).items():
        lock.override(**fields)
    hotel.device(ANNEX_BRIDGE).override(isConnected=False)


def problems(world: World) -> dict[Lock, dict[str, object]]:
    """Return the fields of the locks that are not locked, closed, connected or charged at the end of the day."""
    home, hotel = world.account("home"), world.account("hotel")
    return {
        home.lock("Garage"): {"state": 2, "doorState": 2},
        home.lock("Cellar"): {"state": 42, "isCharging": True, "batteryLevel": 8},
        home.lock(ODD_NAME): {"state": 7, "batteryLevel": 12},
        hotel.lock("Pool gate"): {"state": 3, "stateChangeResult": 1},
        hotel.lock("Room 102"): {"state": 9},
        hotel.lock("Annex"): {"isConnected": False, "deviceState": None},
    }


def world_at_end() -> World:
    """Return the accounts of the day after all events."""
    clock = FakeClock(wall=END)
    world = demo_world(clock)
    world.accounts = [world.account("home"), world.account("hotel")]
    for _ in events(world, FaultyCloud(world, clock=clock.monotonic)):
        pass
    return world


ALERTS: list[tuple[float, Labels]] = [
    (
        END - HOUR,
        {
            "alertname": "TedeeLockJammed",
            "severity": "critical",
            "account": "hotel",
            "lock_id": "2004",
            "lock_name": "Pool gate",
        },
    ),
    (
        END - HOUR / 2,
        {
            "alertname": "TedeeBridgeOffline",
            "severity": "warning",
            "account": "hotel",
            "bridge_id": str(ANNEX_BRIDGE),
            "bridge_name": "Annex",
        },
    ),
    (
        END - 2 * HOUR,
        {
            "alertname": "TedeeBatteryLow",
            "severity": "warning",
            "account": "home",
            "lock_id": "1005",
            "lock_name": "Garden door",
        },
    ),
    (FAILING[0] + HOUR, {"alertname": "TedeeDataStale", "severity": "critical", "account": "hotel"}),
    (DOWN[0], {"alertname": "TedeeExporterDown", "severity": "critical", **TARGET}),
]
"""Start time and labels of alerts. Each fires for one hour."""


def record(folder: Path) -> Path:
    """Record the days to a file."""
    clock = FakeClock(wall=START)
    demo = demo_world(clock)
    cloud = FaultyCloud(demo, clock=clock.monotonic)
    registry, scheduler = StatusRegistry(), Scheduler(clock)
    exposition = Exposition(registry, ExporterCollector("1.2.3", lambda: (True, START), lambda: True), clock)
    accounts = Accounts(clock, memory_store(clock), registry, scheduler)
    (folder / "token").write_text("simulated-refresh-hotel")
    recording = Recording(folder / "day.om")
    script = events(demo, cloud)
    due = next(script, None)
    with serve(cloud) as address:
        accounts.apply(_settings(address.url, folder / "token", HOUR / 2))
        while clock.wall() < END:
            if clock.wall() == DAY_START:
                accounts.apply(_settings(address.url, folder / "token", INTERVAL))
            # The queries read the preceding days at full hours only.
            clock.advance(HOUR if clock.wall() < DAY_START else INTERVAL)
            while due is not None and clock.wall() >= due:
                due = next(script, None)
            scheduler.run_due()
            exposition.render()
            exposition.render()
            if DOWN[0] <= clock.wall() < DOWN[1]:
                recording.add_target_samples(clock.wall(), up=0, scrape_duration_seconds=10, scrape_samples_scraped=0)
            else:
                recording.add_scrape(exposition, clock.wall())
            recording.add_sample("tedee:battery_percent:low", {}, 20, clock.wall())
            for start, labels in ALERTS:
                if start <= clock.wall() < start + HOUR:
                    recording.add_alert(labels, start, clock.wall())
    recording.close()
    return recording.path


def _settings(url: str, token: Path, interval: float) -> Settings:
    oauth = {"client_id": "a-client", "refresh_token_file": str(token), "token_url": url + TOKEN_PATH, "scope": SCOPES}
    accounts = [{"name": "home", "personal_key": "simulated-key-home"}, {"name": "hotel", "oauth": oauth}]
    settings = {
        "api": {"url": url},
        "sync": {"interval": f"{interval:g}s"},
        # The fewest requests with which the panels have data.
        "devices": {"interval": "20m"},
        "events": {"enabled": True, "interval": f"{5 * interval:g}s"},
        "accounts": accounts,
    }
    return Source(settings).validated(Settings)


def statuses(world: World, clock: FakeClock, **facts: Any) -> list[AccountStatus]:
    """Return the statuses of a world's accounts after a successful sync and a fetch of all devices."""
    now, version = clock.wall(), Version("v37")
    found = []
    for account in world.accounts:
        lists = device_lists(account, now)
        locks = locks_of(
            [sync_entry(lock, now, version) for lock in account.locks],
            [lock_entry(lock, now, version) for lock in account.locks],
            **lists,
        )
        found.append(status(clock, locks, account.name, **{"other_resources": fetched(lists, now), **facts}))
    return found


DeviceLists = Mapping[str, list[dict[str, Any]]]
"""Rows of devices other than locks, by the name of the list in a response."""


def device_lists(account: Account, now: float) -> DeviceLists:
    """Return the devices other than locks of an account."""
    return {
        "bridges": [bridge_entry(each, now) for each in account.bridges],
        "keypads": [keypad_entry(each, now) for each in account.keypads],
        "doorSensors": [door_sensor_entry(each, now) for each in account.door_sensors],
        "gates": [gate_entry(each, now) for each in account.gates],
        "dryContacts": [dry_contact_entry(each) for each in account.dry_contacts],
    }


def fetched(lists: DeviceLists, at: float) -> tuple[ResourceStatus, ...]:
    """Return the statuses of the resources that returned these devices at a time."""
    by_endpoint: dict[Endpoint, DeviceLists] = {
        DEVICES: {name: rows for name, rows in lists.items() if name != "doorSensors"},
        DOOR_SENSORS: {"doorSensors": lists.get("doorSensors", [])},
    }
    return tuple(
        ResourceStatus(
            f"fetch of {endpoint}",
            endpoint.path,
            at,
            devices=tuple(
                each
                for each in read_devices({name: json_rows(rows) for name, rows in of_endpoint.items()}).rows.values()
                if not isinstance(each, LockDetails)
            ),
        )
        for endpoint, of_endpoint in by_endpoint.items()
    )


def asked_for_events(at: float, *, is_permitted: bool = True) -> ResourceStatus:
    """Return the status of a resource that asked for events at a time."""
    return ResourceStatus("fetch of events", ACTIVITIES.path, at if is_permitted else None, is_permitted=is_permitted)


MANY_LOCKS_END = END - 10 * DAY
"""Time of the recording with many locks."""
ACCOUNTS, LOCKS_PER_ACCOUNT = 50, 100
OFFLINE = 40
"""Number of locks that are offline in that recording."""
MANY_LOCKS_TARGET = {"job": "tedee", "instance": "many-locks:10333"}


def record_many_locks(folder: Path) -> Path:
    """Record two scrapes with 5,000 locks."""
    clock = FakeClock(wall=MANY_LOCKS_END - 600)
    large_world = World.of_size(ACCOUNTS, LOCKS_PER_ACCOUNT, clock=clock.wall)
    for account in large_world.accounts[:OFFLINE]:
        account.locks[-1].override(isConnected=False, deviceState=None)
    recording = Recording(folder / "many-locks.om")
    while clock.wall() < MANY_LOCKS_END:
        clock.advance(300)
        collector = ExporterCollector("1.2.3", lambda: (True, 0.0), lambda: True)
        exposition = Exposition(registry(*statuses(large_world, clock)), collector, clock)
        recording.add_scrape(exposition, clock.wall(), MANY_LOCKS_TARGET)
    recording.close()
    return recording.path


DUPLICATE_LOCK_END = END - 8 * DAY


def record_duplicate_lock(folder: Path) -> Path:
    """Record a lock that one exporter reports as locked and another one as unlocked."""
    clock = FakeClock(wall=DUPLICATE_LOCK_END)
    recording = Recording(folder / "duplicate-lock.om")
    for name, state in (("one", 6), ("other", 2)):
        account = status(clock, locks_of([synced(1, state=state)], [detailed(1, "Twice")]))
        collector = ExporterCollector("1.2.3", lambda: (True, 0.0), lambda: True)
        recording.add_scrape(
            Exposition(registry(account), collector, clock), clock.wall(), {"job": "tedee", "instance": name}
        )
    recording.close()
    return recording.path
