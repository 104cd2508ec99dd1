"""Scenarios of pictures and tests: recordings that show the dashboards with many locks, with few, and without data."""

import contextlib
import functools
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from exporter.metrics.collector import ExporterCollector
from exporter.metrics.exposition import Exposition
from exporter.simulator import Account, Battery, Outages, World
from exporter.sync.event_log import PRESET
from exporter.sync.snapshot import AccountStatus, Durations
from exporter.sync.state_changes import StateChanges
from exporter.tedee.events import EventKind
from testing.clock import FakeClock
from testing.factories import registry
from tests.end_to_end.prometheus import Prometheus, prometheus

from . import rare_cases, scripted_day
from .recordings import NO_TARGET, copy_recording
from .scripted_day import DAY, END, HOUR, INTERVAL, Labels, Recording, asked_for_events, statuses


@dataclass(frozen=True)
class Scenario:
    """What Prometheus has stored at END."""

    record: Callable[[Path], Path] | None
    """Writes the recording to a folder. None if there are no data."""
    scrape_interval: float | None
    """Scrape interval in the settings of the data source, in seconds. None if it is not set."""


def record_home(folder: Path) -> Path:
    """Record a home with one lock for four days."""
    clock = FakeClock(wall=END - 4 * DAY)
    return _record(folder / "home.om", clock, [(scripted_day.TARGET, home_world(clock))], INTERVAL)


def home_world(clock: FakeClock) -> World:
    """Return a home with one lock."""
    world = World.demo(clock=clock.wall)
    world.accounts = [world.account("home")]
    (account,) = world.accounts
    for lock in account.locks[1:]:
        account.remove(lock.id)
    # Charged ten days ago, and half discharged.
    account.locks[0].battery = Battery(drain=20 * DAY, charge=HOUR, low=10, phase=10 * DAY - END % (20 * DAY + HOUR))
    return world


def record_many(folder: Path, hours: float = 25) -> Path:
    """Record five accounts with 100 locks each. Some locks are offline, and some have a low battery and an alert."""
    clock = FakeClock(wall=END - hours * HOUR)
    world = many_world(clock)
    alerts = [
        {
            "alertname": "TedeeBatteryLow",
            "severity": "warning",
            "account": account.name,
            "lock_id": str(lock.id),
            "lock_name": lock.name,
        }
        for account in world.accounts
        for lock in account.locks
        if "batteryLevel" in lock.overrides
    ]
    return _record(folder / "many.om", clock, [(scripted_day.TARGET, world)], 300, alerts)


def many_world(clock: FakeClock) -> World:
    """Return five accounts with 100 locks each."""
    world = World.of_size(5, 100, clock=clock.wall)
    for account in world.accounts:
        for lock in account.locks[19::20]:
            lock.override(isConnected=False, deviceState=None)
        for lock in account.locks[7::25]:
            lock.override(batteryLevel=12)
        account.keypads[3].override(batteryLevel=9, batteryLevelModifiedTime="2026-09-01T08:00:00")
        account.bridges[4].outages = Outages(DAY, HOUR / 2, END - HOUR)
    world.accounts[0].bridges[7].outages = Outages(period=END, length=END)
    return world


def record_two(folder: Path) -> Path:
    """Record two exporters in Kubernetes, with other jobs and instances, and a lock with a long name."""
    clock = FakeClock(wall=END - 25 * HOUR)
    home, hotel = two_worlds(clock)
    job = "monitoring/smart-locks"
    name = "tedee-exporter-7c9f6d5b8-x2x9q.monitoring.svc.cluster.local:10333"
    targets = [({"job": job, "instance": name}, home), ({"job": job, "instance": "10.244.3.17:10333"}, hotel)]
    return _record(folder / "two.om", clock, targets, INTERVAL)


def two_worlds(clock: FakeClock) -> tuple[World, World]:
    """Return a home, and a hotel, each with its own exporter."""
    home, hotel = World.demo(clock=clock.wall), World.demo(clock=clock.wall)
    home.accounts, hotel.accounts = [home.account("home")], [hotel.account("hotel")]
    home.accounts[0].locks[0].rename("Front door of the main building, second floor, left wing (staff only)")
    return home, hotel


def _record(
    path: Path,
    clock: FakeClock,
    targets: Sequence[tuple[Labels, World]],
    interval: float,
    alerts: Iterable[Mapping[str, str]] = (),
) -> Path:
    """Record exporters until END: in every interval during the last 25 hours, and hourly before.

    The alerts fire all the time. `tedee:battery_percent:low` is the result of a rule.
    """
    start = clock.wall()
    collector = ExporterCollector("1.2.3", lambda: (True, start), lambda: True)
    recording = Recording(path)
    syncs, durations = 0, Durations()
    changes: defaultdict[str, StateChanges] = defaultdict(StateChanges)
    events = RecordedEvents([account for _, world in targets for account in world.accounts], start)
    while clock.wall() < END:
        step = interval if clock.wall() >= END - 25 * HOUR else HOUR
        clock.advance(step)
        syncs += int(step / 20)
        durations = durations.observe(0.2 if clock.wall() / interval % 3 else 0.4)
        facts = {
            "credentials_expire_at": None,
            "durations": durations,
            "rejection_counts": {},
            "requests": {("my/lock/sync", "200"): syncs, ("my/device/details", "200"): syncs // 30},
        }
        for target, world in targets:
            synced = [
                events.added_to(_counted(status, changes[status.account]), clock.wall())
                for status in statuses(world, clock, **facts)
            ]
            exposition = Exposition(registry(*synced), collector, clock)
            recording.add_scrape(exposition, clock.wall(), target)
        for labels in alerts:
            recording.add_alert(labels, start, clock.wall())
        recording.add_sample("tedee:battery_percent:low", {}, 20, clock.wall())
    recording.close()
    return recording.path


def _counted(status: AccountStatus, changes: StateChanges) -> AccountStatus:
    """Return a status with the state changes since the first one of its account."""
    assert status.snapshot
    changes.update([lock.synced for lock in status.snapshot.locks])
    locks = tuple(replace(lock, state_changes=changes.counts.get(lock.id)) for lock in status.snapshot.locks)
    return replace(status, snapshot=replace(status.snapshot, locks=locks))


EVENTS_REFUSED, EVENTS_NOT_ENABLED = {"account-0005"}, {"hotel"}
"""Accounts of the scenarios whose key may not read events, and those whose events are not enabled."""


class RecordedEvents:
    """The numbers of events of the locks of accounts since the start of a recording."""

    def __init__(self, accounts: Iterable[Account], start: float) -> None:
        self._events = {
            lock.id: [
                (lock.delivered_at(event), EventKind.of(event.number)) for event in lock.events_between(start, END)
            ]
            for account in accounts
            if account.name not in EVENTS_REFUSED | EVENTS_NOT_ENABLED
            for lock in account.locks
        }

    def counts(self, lock_id: int, at: float) -> Mapping[tuple[str, ...], int]:
        """Return the number of events of a lock that were delivered up to a time."""
        counts: Counter[tuple[str, ...]] = Counter(dict.fromkeys(PRESET, 0))
        counts.update(kind for delivered, kind in self._events[lock_id] if delivered <= at)
        return counts

    def added_to(self, status: AccountStatus, at: float) -> AccountStatus:
        """Return a status with the events that were delivered up to a time."""
        if status.account in EVENTS_NOT_ENABLED:
            return status
        is_permitted = status.account not in EVENTS_REFUSED
        others = (*status.other_resources, asked_for_events(at, is_permitted=is_permitted))
        status = replace(status, other_resources=others)
        if not is_permitted:
            return status
        assert status.snapshot
        locks = tuple(replace(lock, events=self.counts(lock.id, at)) for lock in status.snapshot.locks)
        return replace(status, snapshot=replace(status.snapshot, locks=locks))


SCENARIOS = {
    "day": Scenario(scripted_day.record, INTERVAL),
    "home": Scenario(record_home, INTERVAL),
    "many": Scenario(record_many, 300),
    "two": Scenario(record_two, INTERVAL),
    "rare": Scenario(rare_cases.record, 20),
    "empty": Scenario(None, None),
}
TESTED = {
    **{name: scenario for name, scenario in SCENARIOS.items() if name != "many"},
    # An hour of many locks is enough: only the graphs differ from those of a day.
    "many-locks-for-an-hour": Scenario(functools.partial(record_many, hours=1), 300),
}
"""Scenarios of the tests."""


@contextlib.contextmanager
def running(name: str, scenario: Scenario) -> Iterator[Prometheus]:
    """Run Prometheus with a scenario."""
    with tempfile.TemporaryDirectory() as work:
        copy_recording(name, scenario.record, Path(work) / "data")
        with prometheus(Path(work), NO_TARGET) as server:
            yield server
