"""A scripted day, as Prometheus would hold it: a real exporter against the simulated cloud, on a clock that is turned.

Three days of usual life go before it, without which nobody could tell a battery's trend.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from exporter.accounts import Accounts
from exporter.config.settings import Settings
from exporter.metrics.collector import ExporterCollector
from exporter.metrics.exposition import Exposition
from exporter.simulator import TOKEN_PATH, Battery, Cloud, Fault, Lock, World, serve
from exporter.simulator.wire import Version, lock_entry, sync_entry
from exporter.sync.scheduler import Scheduler
from exporter.sync.snapshot import StatusRegistry
from exporter.sync.store import MemoryStateStore
from tests.clock import FakeClock
from tests.cloud import detailed, synced
from tests.factories import locks_of, registry, status

HOUR, DAY = 3600.0, 86_400.0
EVERY = 240.0
"""Seconds between two syncs, and between two scrapes, of the day: as few as show what is to be seen."""
EVENING = 1_789_999_200.0
"""When the day is over, at a full hour, in Unix seconds."""
MORNING = EVENING - 26 * HOUR
BEGIN = EVENING - 4 * DAY
RENAMED = EVENING - 11 * HOUR
"""When room 106 got another name."""
SILENT = (EVENING - 9 * HOUR, EVENING - 7 * HOUR)
"""When Tedee did not answer for the hotel."""
DOWN = (EVENING - 5 * HOUR, EVENING - 5 * HOUR + 600)
"""When Prometheus could not scrape."""

TARGET = {"job": "tedee", "instance": "127.0.0.1:10333"}
ODD_NAME = 'quotes " backslash \\ \\n newline\nemoji 🏰 Łódź'

Labels = Mapping[str, str]


class Recording:
    """A file of OpenMetrics, of what Prometheus gets and adds, from which promtool makes Prometheus' own blocks."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("w", encoding="utf-8")

    def scrape(self, exposition: Exposition, at: float, target: Labels = TARGET) -> None:
        """Hold all samples of a scrape."""
        body = exposition.scrape("application/openmetrics-text", "").body.decode()
        samples = [line for line in body.splitlines() if not line.startswith("#")]
        labels = ",".join(f'{name}="{value}"' for name, value in target.items())
        for sample in samples:
            series, _, value = sample.rpartition(" ")
            name, _, rest = series.partition("{")
            self._file.write(f"{name}{{{labels}{',' if rest else ''}{rest or '}'} {value} {at:.3f}\n")
        self.meta(at, target, up=1, scrape_duration_seconds=0.004, scrape_samples_scraped=len(samples))

    def meta(self, at: float, target: Labels = TARGET, **values: float) -> None:
        """Hold what Prometheus itself says of a target."""
        for name, value in values.items():
            self.sample(name, target, value, at)

    def sample(self, name: str, labels: Labels, value: float, at: float) -> None:
        """Hold one sample."""
        text = ",".join(f'{label}="{value}"' for label, value in labels.items())
        self._file.write(f"{name}{{{text}}} {value} {at:.3f}\n")

    def close(self) -> None:
        """End the file, as OpenMetrics wants it."""
        self._file.write("# EOF\n")
        self._file.close()


def world(clock: FakeClock) -> World:
    """The demonstration's house and hotel, whose batteries have a trend for whoever looks for one."""
    everything = World.demo(clock=clock.wall)
    for account in everything.accounts:
        for lock in account.locks:
            # None was charged lately: half used up since ten days ago, and days to go.
            lock.battery = Battery(drain=20 * DAY, charge=HOUR, low=10, phase=10 * DAY - EVENING % (20 * DAY + HOUR))
    home = everything.account("home")
    home.lock("Shed").rename(ODD_NAME)
    home.lock("Garden door").battery = Battery(drain=3 * DAY, charge=4 * HOUR, low=10)
    return everything


def events(everything: World, cloud: Cloud) -> Iterator[float]:
    """What happens: it yields when (Unix seconds), and does it once that has come."""
    home, hotel = everything.account("home"), everything.account("hotel")
    yield EVENING - 20 * HOUR  # an answer has values that cannot be used
    hotel.lock("Room 101").override(batteryLevel=255)
    yield EVENING - 19 * HOUR  # they can be used again
    hotel.lock("Room 101").clear_overrides()
    yield EVENING - 15 * HOUR  # Tedee has problems of every kind, one after the other
    cloud.faults.script(
        Fault.error(503), Fault.error(429), Fault.reset(), Fault.html(200), account="home", endpoint="sync"
    )
    yield EVENING - 12 * HOUR  # new firmware comes
    for lock in home.locks:
        lock.software = "2.5.30000"
        lock.revision += 1
    yield RENAMED  # a room becomes a suite
    hotel.lock("Room 106").rename("Suite 106")
    yield SILENT[0]  # Tedee does not answer for the hotel; a door at home stays shut
    cloud.faults.script(Fault.error(503), account="hotel", endpoint="sync", forever=True)
    home.lock(1004).override(state=6, doorState=3)
    yield SILENT[1]  # and answers again
    cloud.faults.clear()
    yield EVENING - HOUR  # everything comes to rest, and some of it not well
    for lock in (*home.locks, *hotel.locks):
        if lock.bridge:
            lock.override(state=6, doorState=3, stateChangeResult=0)
    for lock, fields in trouble(everything).items():
        lock.override(**fields)


def trouble(everything: World) -> dict[Lock, dict[str, object]]:
    """How the evening is: what is not locked, closed, connected, charged and well."""
    home, hotel = everything.account("home"), everything.account("hotel")
    return {
        home.lock("Garage"): {"state": 2, "doorState": 2},
        home.lock("Cellar"): {"state": 42, "isCharging": True, "batteryLevel": 8},
        home.lock(ODD_NAME): {"state": 7, "batteryLevel": 12},
        hotel.lock("Pool gate"): {"state": 3, "stateChangeResult": 1},
        hotel.lock("Room 102"): {"state": 9},
        hotel.lock("Annex"): {"isConnected": False, "deviceState": None},
    }


ALERTS: list[tuple[float, Labels]] = [
    (
        EVENING - HOUR,
        {
            "alertname": "TedeeLockJammed",
            "severity": "critical",
            "account": "hotel",
            "lock_id": "2004",
            "lock_name": "Pool gate",
        },
    ),
    (
        EVENING - 2 * HOUR,
        {
            "alertname": "TedeeBatteryLow",
            "severity": "warning",
            "account": "home",
            "lock_id": "1005",
            "lock_name": "Garden door",
        },
    ),
    (SILENT[0] + HOUR, {"alertname": "TedeeDataStale", "severity": "critical", "account": "hotel"}),
    (DOWN[0], {"alertname": "TedeeExporterDown", "severity": "critical", **TARGET}),
]
"""Alerts that fire from then on, an hour long."""


def record(folder: Path) -> Path:
    """Live through the days, and hold them in a file."""
    clock = FakeClock(wall=BEGIN)
    everything = world(clock)
    cloud = Cloud(everything, clock=clock.monotonic)
    registry, scheduler = StatusRegistry(), Scheduler(clock)
    exposition = Exposition(registry, ExporterCollector("1.2.3", lambda: (True, BEGIN), lambda: True), clock)
    accounts = Accounts(clock, MemoryStateStore(clock), registry, scheduler)
    (folder / "token").write_text("simulated-refresh-hotel")
    recording = Recording(folder / "day.om")
    script = events(everything, cloud)
    due = next(script, None)
    with serve(cloud) as address:
        accounts.apply(_settings(address.url, folder / "token", HOUR / 2))
        while clock.wall() < EVENING:
            if clock.wall() == MORNING:
                accounts.apply(_settings(address.url, folder / "token", EVERY))
            # What is asked of the days before is asked of full hours.
            clock.advance(HOUR if clock.wall() < MORNING else EVERY)
            while due is not None and clock.wall() >= due:
                due = next(script, None)
            scheduler.run_due()
            exposition.refresh()
            exposition.refresh()
            if DOWN[0] <= clock.wall() < DOWN[1]:
                recording.meta(clock.wall(), up=0, scrape_duration_seconds=10, scrape_samples_scraped=0)
            else:
                recording.scrape(exposition, clock.wall())
            for begin, labels in ALERTS:
                if begin <= clock.wall() < begin + HOUR:
                    recording.sample("ALERTS", {**labels, "alertstate": "firing"}, 1, clock.wall())
    recording.close()
    return recording.path


def _settings(url: str, token: Path, interval: float) -> Settings:
    oauth = {"client_id": "a-client", "refresh_token_file": str(token), "token_url": url + TOKEN_PATH}
    accounts = [{"name": "home", "personal_key": "simulated-key-home"}, {"name": "hotel", "oauth": oauth}]
    return Settings.model_validate({"api": {"url": url}, "sync": {"interval": f"{interval:g}s"}, "accounts": accounts})


FLEET_EVENING = EVENING - 10 * DAY
"""When the large fleet was, which is another one."""
FLEET_ACCOUNTS, FLEET_LOCKS = 50, 100
OFFLINE = 40
"""Of the fleet's locks."""
FLEET_TARGET = {"job": "tedee", "instance": "fleet:10333"}


def record_fleet(folder: Path) -> Path:
    """Two scrapes of 5,000 locks."""
    clock = FakeClock(wall=FLEET_EVENING - 600)
    everything = World.of_size(FLEET_ACCOUNTS, FLEET_LOCKS, clock=clock.wall)
    for account in everything.accounts[:OFFLINE]:
        account.locks[-1].override(isConnected=False, deviceState=None)
    recording = Recording(folder / "fleet.om")
    version = Version("v37")
    while clock.wall() < FLEET_EVENING:
        clock.advance(300)
        now = clock.wall()
        statuses = [
            status(
                clock,
                locks_of(
                    [sync_entry(lock, now, version) for lock in account.locks],
                    [lock_entry(lock, now, version) for lock in account.locks],
                ),
                account.name,
            )
            for account in everything.accounts
        ]
        collector = ExporterCollector("1.2.3", lambda: (True, 0.0), lambda: True)
        recording.scrape(Exposition(registry(*statuses), collector, clock), now, FLEET_TARGET)
    recording.close()
    return recording.path


TWINS_EVENING = EVENING - 8 * DAY


def record_twins(folder: Path) -> Path:
    """One lock, of which two exporters tell: by one of them it is locked still, by the other no longer."""
    clock = FakeClock(wall=TWINS_EVENING)
    recording = Recording(folder / "twins.om")
    for name, state in (("one", 6), ("other", 2)):
        known = status(clock, locks_of([synced(1, state=state)], [detailed(1, "Twice")]))
        collector = ExporterCollector("1.2.3", lambda: (True, 0.0), lambda: True)
        recording.scrape(
            Exposition(registry(known), collector, clock), clock.wall(), {"job": "tedee", "instance": name}
        )
    recording.close()
    return recording.path
