"""Recording of rare cases at one point of time. Each case has its own Prometheus job."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from exporter.metrics.collector import ExporterCollector
from exporter.metrics.exposition import Exposition
from exporter.sync.snapshot import AccountStatus, Durations, Lock
from testing.clock import FakeClock
from testing.factories import locks_of, registry, status
from tests.cloud import accessory, bridge, detailed, synced

from .scripted_day import DAY, END, HOUR, DeviceLists, Recording, fetched

FORECAST_DAYS = 3
"""Days before END in which the forecast for the batteries can be tested."""

Entry = Mapping[str, Any]
"""A lock in a response, as `tests.cloud.synced` returns it."""

WORSE_STATES = (0, 1, 2, 3, 4, 5, 7, 8, 9, 18, 42, 255)
WORSE_DOORS = (1, 2, 4, 42)
"""All but closed and without a sensor. 42 is not a code of Tedee."""

NEED_ATTENTION = {
    "locking": synced(1, state=5),
    "pulled": synced(2, state=7),
    "door sensor disconnected": synced(3, doorState=1),
    "door uncalibrated": synced(4, doorState=4),
    "door with unknown code": synced(5, doorState=42),
    "without state": {**synced(6), "deviceState": None},
    "offline": {**synced(7, connected=False), "deviceState": None},
    "failed": synced(8, stateChangeResult=2),
}
"""Locks that need attention."""
SECURED = {"locked": synced(9), "without a sensor": synced(10, doorState=0, isCharging=True, batteryLevel=10)}

DRAINS = {"0.25": 0.25, "0.4": 0.4, "0.6": 0.6, "0.8": 0.8, "2": 2.0}
"""Battery percent per day that each battery discharges, by the name in its job."""
SCRAPE_INTERVALS = (15, 20, 60)
WRONG_PINS = 6
"""Wrong PINs in each recording of them."""
LAST_LEVEL = 25
"""Level of these batteries at END, rounded down."""


def record(folder: Path) -> Path:
    """Record all cases to a file."""
    recording = Recording(folder / "rare-cases.om")
    for state in WORSE_STATES:
        _record_lock_of_two_exporters(recording, f"states 6 and {state}", synced(1, state=6), synced(1, state=state))
    for door in WORSE_DOORS:
        _record_lock_of_two_exporters(
            recording, f"doors 3 and {door}", synced(1, doorState=3), synced(1, doorState=door)
        )
        _record_lock_of_two_exporters(
            recording, f"doors 0 and {door}", synced(1, doorState=0), synced(1, doorState=door)
        )
        _record_scrape(recording, f"door {door}", END, {"home": {"Front door": synced(1, doorState=door)}})
    _record_scrape(recording, "without sensors", END, {"home": {"Front door": synced(1, doorState=0)}})
    _record_scrape(recording, "failed", END, {"home": {"Front door": synced(1, stateChangeResult=2)}})
    without_bridge = {key: value for key, value in synced(1).items() if key != "isConnected"}
    _record_scrape(recording, "without a bridge", END, {"home": {"Shed": {**without_bridge, "deviceState": None}}})
    _record_scrape(recording, "attention", END, {"home": NEED_ATTENTION | SECURED})
    pair = {"Front door": synced(1), "Back door": {**synced(2, connected=False), "deviceState": None}}
    _record_scrape(recording, "one offline", END, {"home": pair})
    _record_scrape(recording, "one name", END, {"home": {"Front door": synced(1)}, "hotel": {"Front door": synced(2)}})
    _record_down_exporters(recording)
    _record_scrape(recording, "removed", END - HOUR, {"home": {"Front door": synced(1)}, "hotel": {"Gate": synced(2)}})
    _record_scrape(recording, "removed", END, {"home": {"Front door": synced(1)}})
    for instance, name, firmware in (("one", "Old", "2.4"), ("other", "New", "2.5")):
        versions = [{"softwareType": 0, "version": firmware, "updateAvailable": False}]
        locks = locks_of([synced(1)], [detailed(1, name, softwareVersions=versions)])
        _record_accounts(recording, {"job": "renamed", "instance": instance}, END, {"home": locks})
    _record_batteries(recording)
    for number in range(int(HOUR / 20) + 1):
        at = END - HOUR + number * 20
        labels = {"job": "failures", "instance": "one", "account": "home", "reason": "timeout"}
        recording.add_sample("tedee_sync_failures_total", labels, sum(number > each for each in (40, 41, 120)), at)
    for interval in SCRAPE_INTERVALS:
        target = {"job": f"scraped every {interval} s", "instance": "one"}
        for number in range(int(HOUR / interval) + 1):
            at = END - HOUR + number * interval
            recording.add_sample("process_cpu_seconds_total", target, number * interval / 100, at)
            recording.add_sample("tedee_exporter_build_info", target, 1, at)
    _record_disagreement(recording)
    _record_other_alerts(recording)
    _record_devices(recording)
    for interval in SCRAPE_INTERVALS:
        _record_wrong_pins(recording, f"wrong PINs, scraped every {interval} s", interval)
    refused = {"job": "events refused", "instance": "one", "account": "home"}
    for metric, value in (("tedee_up", 1), ("tedee_events_permitted", 0)):
        recording.add_sample(metric, refused, value, END)
    recording.close()
    return recording.path


def _record_down_exporters(recording: Recording) -> None:
    """Record pairs of exporters of which one is down or was removed.

    In `covered` the other exporter reports the same account. `stale` is a single exporter with a stale account.
    """
    home, hotel = {"home": {"Front door": synced(1)}}, {"hotel": {"Gate": synced(2)}}
    for job, hours in (("down for 5 h", 5), ("down for 30 h", 30)):
        _record_scrape(recording, job, END - hours * HOUR, hotel, "down")
        _record_scrape(recording, job, END, home, "up")
        recording.add_target_samples(END, {"job": job, "instance": "down"}, up=0)
    _record_scrape(recording, "gone for 5 h", END - 5 * HOUR, hotel, "gone")
    _record_scrape(recording, "gone for 5 h", END, home, "up")
    _record_accounts(
        recording, {"job": "stale", "instance": "one"}, END, {"home": locks_of([synced(1)], []), "hotel": None}
    )
    _record_scrape(recording, "covered", END - 30 * HOUR, home, "down")
    _record_scrape(recording, "covered", END, home, "up")
    recording.add_target_samples(END, {"job": "covered", "instance": "down"}, up=0)


def _record_disagreement(recording: Recording) -> None:
    """Record an hour of two exporters that report different values of an account and its locks.

    One of them restarts after 30 minutes, and reports accounts whose syncs fail.
    """
    for number in range(13):
        clock = FakeClock(wall=END - HOUR + number * 300)
        jammed: dict[str, Any] = {"doorState": 2, "stateChangeResult": 1}
        home = locks_of(
            [synced(1, doorState=0), synced(2, **jammed), synced(3, **jammed)],
            [detailed(1, "Front door"), detailed(2, "Back door"), detailed(3, "Cellar")],
        )
        old = locks_of(
            [
                synced(1, 2, doorState=3, batteryLevel=18, lastStateChangedDate="2021-04-26T05:00:00Z"),
                synced(2, isCharging=True, stateChangeResult=2),
                synced(3, connected=False),
            ],
            [
                detailed(1, "Front door", softwareVersions=[]),
                detailed(2, "Back door"),
                detailed(3, "Cellar"),
            ],
        )
        up = _counted_status(clock, home, "home", number // 4)
        down = replace(
            _counted_status(clock, old, "home", 1 + number % 7),
            api_version="v36",
            up=False,
            next_sync=clock.wall() + 60,
            requests_remaining=12,
            version_supported=False,
            credentials_expire_at=END + DAY,
        )
        assert down.snapshot
        down = replace(down, snapshot=replace(down.snapshot, at=clock.wall() - 100))
        others = [
            _counted_status(clock, locks_of([synced(9)], []), "failing", 2 * number, up=False, requests_remaining=5),
            _counted_status(clock, (), "stale", number, up=False, snapshot=None),
            _counted_status(clock, (), "also stale", number, up=False, snapshot=None),
        ]
        for instance, statuses, collector in (
            ("one", [up], ExporterCollector("1.2.3", lambda: (True, END - DAY), lambda: True)),
            ("other", [down, *others], ExporterCollector("1.2.3", lambda: (False, END - HOUR), lambda: False)),
        ):
            exposition = Exposition(registry(*statuses), collector, clock)
            recording.add_scrape(exposition, clock.wall(), {"job": "disagreement", "instance": instance})


def _counted_status(clock: FakeClock, locks: tuple[Lock, ...], account: str, count: int, **facts: Any) -> AccountStatus:
    """Return a status whose counters have this value."""
    durations = Durations()
    for number in range(count):
        durations = durations.observe((0.02, 0.2, 0.4, 3)[number % 4])
    return status(
        clock,
        tuple(replace(lock, state_changes=count) for lock in locks),
        account,
        **{
            "failures": {"timeout": count, "server_error": count // 2},
            "requests": {("my/lock/sync", "200"): count, ("my/lock/sync", "503"): count // 2, ("my/lock", "200"): 0},
            "rejection_counts": {"battery_level": count, "door_state": 0},
            "durations": durations,
            **facts,
        },
    )


def _record_other_alerts(recording: Recording) -> None:
    """Record an alert that is pending, one of other rules, and two of locks with the same name."""
    labels = {"severity": "critical", "job": "alerts", "account": "home"}
    for at in (END - HOUR, END):
        pending = {**labels, "alertname": "TedeeAccountDown"}
        recording.add_sample("ALERTS", {**pending, "alertstate": "pending"}, 1, at)
        recording.add_sample("ALERTS_FOR_STATE", pending, at - 60, at)
        recording.add_alert({**labels, "alertname": "DiskFull"}, at - DAY, at)
        for lock_id in (1, 2):
            lock = {"lock_id": str(lock_id), "lock_name": "Front door"}
            recording.add_alert({**labels, **lock, "alertname": "TedeeLockJammed"}, at - lock_id * HOUR, at)


def _record_devices(recording: Recording) -> None:
    """Record devices of which two exporters report different values, as before and after a rename."""
    clock = FakeClock(wall=END)
    for instance, name, connected, level in (("one", "Old", True, 30), ("other", "New", False, 14)):
        lists: DeviceLists = {
            "bridges": [bridge(2, name, isConnected=connected, isUpdating=connected)],
            "keypads": [
                accessory(11, 51, level, name=name),
                accessory(12, 52, deviceState={}),
                accessory(13, None, deviceState=None),
            ],
            "doorSensors": [accessory(21, 51, level + 2, name=name), accessory(22, 52, None)],
            "gates": [{"id": 31, "name": name, "type": 5, "isConnected": connected}],
            "dryContacts": [{"id": 41, "name": name, "type": 6}],
        }
        locks = locks_of(
            [synced(51), {**synced(52, connected=connected), "deviceState": None}],
            [detailed(51, "Front door"), detailed(52, "Back door", connectedToId=5)],
            **lists,
        )
        current = status(clock, locks, other_resources=fetched(lists, END - 60))
        collector = ExporterCollector("1.2.3", lambda: (True, 0.0), lambda: True)
        target = {"job": "devices", "instance": instance}
        recording.add_scrape(Exposition(registry(current), collector, clock), END, target)


def _record_wrong_pins(recording: Recording, job: str, interval: int) -> None:
    """Record an hour of two exporters that count wrong PINs: one 40 minutes ago, and a burst of 5, 20 minutes ago.

    The lock is renamed between them.
    """
    for number, instance in itertools.product(range(int(HOUR / interval) + 1), ("one", "other")):
        at = END - HOUR + number * interval
        lock = {"account": "home", "lock_id": "1", "lock_name": "Old" if at < END - HOUR / 2 else "New"}
        labels = {"job": job, "instance": instance, **lock}
        counted = (at >= END - 2400) + (WRONG_PINS - 1) * (at >= END - 1200)
        recording.add_sample("lock_events_total", {**labels, "event": "wrong_pin", "source": "pin"}, counted, at)
        recording.add_sample("lock_revision", labels, 1, at)


def _record_batteries(recording: Recording) -> None:
    """Record batteries that discharge evenly. Levels are whole percents, as locks report them."""
    for job, drain in DRAINS.items():
        for name, days in ((f"battery {job}", 14 + FORECAST_DAYS), (f"battery {job} recent", 3)):
            _record_battery(recording, name, days, partial(_level_of_steady_discharge, drain))
    _record_battery(recording, "battery full", 14, lambda _: 90.0)
    _record_battery(recording, "battery charged a little", 14, lambda days: 30 + 2 * days + (8 if days <= 2 else 0))
    _record_battery(recording, "battery for 8 days", 8, partial(_level_of_steady_discharge, 0.45))
    _record_battery(recording, "battery of two exporters", 14, lambda days: LAST_LEVEL + 2 * days)
    _record_battery(recording, "battery of two exporters", 14, lambda days: LAST_LEVEL - 7 + days, "other")
    _record_battery(recording, "battery for a day", 1, lambda days: LAST_LEVEL + 5 * days)
    for name, history in (("battery drained", 14), ("battery drained recent", 1)):
        _record_battery(recording, name, history, lambda days: 30.5 + 30 * min(days, 1))
    _record_battery(recording, "battery charged", 14, lambda days: 30 + days + (60 if days <= 2 else 0))
    _record_battery(recording, "battery charged a week ago", 14, lambda days: 15 + 2 * days + (30 if days <= 7 else 0))


def _record_battery(
    recording: Recording, job: str, days: int, level: Callable[[float], float], instance: str = "one"
) -> None:
    labels = {"job": job, "instance": instance, "account": "home", "lock_id": "1", "lock_name": "Front door"}
    for hour in range(days * 24 + 1):
        at = END - days * DAY + hour * HOUR
        recording.add_sample("lock_battery_level", labels, int(level((END - at) / DAY)), at)
        recording.add_sample("lock_revision", labels, 1, at)


def _level_of_steady_discharge(drain: float, days: float) -> float:
    return LAST_LEVEL + 0.5 + drain * days


def _record_lock_of_two_exporters(recording: Recording, job: str, one: Entry, other: Entry) -> None:
    """Record one lock as two exporters report it."""
    for instance, entry in (("one", one), ("other", other)):
        _record_scrape(recording, job, END, {"home": {"Front door": entry}}, instance)


def _record_scrape(
    recording: Recording, job: str, at: float, accounts: Mapping[str, Mapping[str, Entry]], instance: str = "one"
) -> None:
    """Record a scrape of an exporter, with the locks of each account by name."""
    locks_by_account = {
        account: locks_of(
            [dict(entry) for entry in locks.values()], [detailed(entry["id"], name) for name, entry in locks.items()]
        )
        for account, locks in accounts.items()
    }
    _record_accounts(recording, {"job": job, "instance": instance}, at, locks_by_account)


def _record_accounts(
    recording: Recording, target: Mapping[str, str], at: float, locks_by_account: Mapping[str, tuple[Lock, ...] | None]
) -> None:
    """Record a scrape. An account whose locks are None has no data."""
    clock = FakeClock(wall=at)
    statuses = [
        status(clock, locks, account, **({} if locks is not None else {"up": False, "snapshot": None}))
        for account, locks in locks_by_account.items()
    ]
    collector = ExporterCollector("1.2.3", lambda: (True, 0.0), lambda: True)
    recording.add_scrape(Exposition(registry(*statuses), collector, clock), at, target)
