"""What seldom is, each case in a job of its own, so that one evening of one Prometheus holds them all."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from exporter.metrics.collector import ExporterCollector
from exporter.metrics.exposition import Exposition
from exporter.sync.snapshot import Lock
from tests.clock import FakeClock
from tests.cloud import detailed, synced
from tests.factories import locks_of, registry, status

from .day import DAY, HOUR, Recording

EVENING = 1_789_999_200.0
"""A full hour, in Unix seconds."""
LAST_DAYS = 3
"""Days of the batteries' histories at whose hours one may look."""

Row = Mapping[str, Any]
"""A lock as `tests.cloud.synced` makes it."""

WORSE_STATES = (0, 1, 2, 3, 4, 5, 7, 8, 9, 18, 42, 255)
WORSE_DOORS = (1, 2, 4, 42)
"""All but closed and without a sensor; 42 is a code that nobody knows."""

NEEDY = {
    "on its way": synced(1, state=5),
    "pulled": synced(2, state=7),
    "door's sensor gone": synced(3, doorState=1),
    "door uncalibrated": synced(4, doorState=4),
    "door of a new code": synced(5, doorState=42),
    "silent": {**synced(6), "deviceState": None},
    "offline": {**synced(7, connected=False), "deviceState": None},
    "failed": synced(8, stateChangeResult=2),
}
"""Locks that need attention, beside two that do not."""
FINE = {"well": synced(9), "without a sensor": synced(10, doorState=0, isCharging=True, batteryLevel=10)}

DRAINS = {"0.25": 0.25, "0.4": 0.4, "0.6": 0.6, "0.8": 0.8, "2": 2.0}
"""Percent a day, by the job that has a battery of it."""
LEFT = 25
"""Percent of those in the evening, nearly."""


def record(folder: Path) -> Path:
    """Hold all of it in a file."""
    recording = Recording(folder / "corners.om")
    for state in WORSE_STATES:
        _twins(recording, f"states 6 and {state}", synced(1, state=6), synced(1, state=state))
    for door in WORSE_DOORS:
        _twins(recording, f"doors 3 and {door}", synced(1, doorState=3), synced(1, doorState=door))
        _twins(recording, f"doors 0 and {door}", synced(1, doorState=0), synced(1, doorState=door))
        _scrape(recording, f"door {door}", EVENING, {"home": {"Front door": synced(1, doorState=door)}})
    _scrape(recording, "without sensors", EVENING, {"home": {"Front door": synced(1, doorState=0)}})
    _scrape(recording, "failed", EVENING, {"home": {"Front door": synced(1, stateChangeResult=2)}})
    _scrape(recording, "needy", EVENING, {"home": NEEDY | FINE})
    pair = {"Front door": synced(1), "Back door": {**synced(2, connected=False), "deviceState": None}}
    _scrape(recording, "one offline", EVENING, {"home": pair})
    _scrape(recording, "one name", EVENING, {"home": {"Front door": synced(1)}, "hotel": {"Front door": synced(2)}})
    _exporters_down(recording)
    _scrape(recording, "removed", EVENING - HOUR, {"home": {"Front door": synced(1)}, "hotel": {"Gate": synced(2)}})
    _scrape(recording, "removed", EVENING, {"home": {"Front door": synced(1)}})
    for instance, name, firmware in (("one", "Old", "2.4"), ("other", "New", "2.5")):
        versions = [{"softwareType": 0, "version": firmware, "updateAvailable": False}]
        locks = locks_of([synced(1)], [detailed(1, name, softwareVersions=versions)])
        _hold(recording, {"job": "renamed", "instance": instance}, EVENING, {"home": locks})
    _batteries(recording)
    for number in range(int(HOUR / 20) + 1):
        at = EVENING - HOUR + number * 20
        labels = {"job": "failures", "instance": "one", "account": "home", "reason": "timeout"}
        recording.sample("tedee_sync_failures_total", labels, sum(number > each for each in (40, 41, 120)), at)
    recording.close()
    return recording.path


def _exporters_down(recording: Recording) -> None:
    """Two exporters, one of which is down or gone; `covered`: the other one has its account, too.

    `stale`: one exporter, of whose accounts one has had no answer for long.
    """
    home, hotel = {"home": {"Front door": synced(1)}}, {"hotel": {"Gate": synced(2)}}
    for job, hours in (("down for 5 h", 5), ("down for 30 h", 30)):
        _scrape(recording, job, EVENING - hours * HOUR, hotel, "down")
        _scrape(recording, job, EVENING, home, "up")
        recording.meta(EVENING, {"job": job, "instance": "down"}, up=0)
    _scrape(recording, "gone for 5 h", EVENING - 5 * HOUR, hotel, "gone")
    _scrape(recording, "gone for 5 h", EVENING, home, "up")
    _hold(recording, {"job": "stale", "instance": "one"}, EVENING, {"home": locks_of([synced(1)], []), "hotel": None})
    _scrape(recording, "covered", EVENING - 30 * HOUR, home, "down")
    _scrape(recording, "covered", EVENING, home, "up")
    recording.meta(EVENING, {"job": "covered", "instance": "down"}, up=0)


def _batteries(recording: Recording) -> None:
    """Batteries that empty evenly, in whole percents, as locks tell of them."""
    for job, drain in DRAINS.items():
        for name, days in ((f"battery {job}", 14 + LAST_DAYS), (f"battery {job} of late", 3)):
            _battery(recording, name, days, partial(_emptying, drain))
    _battery(recording, "battery full", 14, lambda _: 90.0)
    _battery(recording, "battery for a day", 1, lambda days: LEFT + 5 * days)
    _battery(recording, "battery charged", 14, lambda days: 30 + days + (60 if days <= 2 else 0))
    _battery(recording, "battery charged a week ago", 14, lambda days: 15 + 2 * days + (30 if days <= 7 else 0))


def _battery(recording: Recording, job: str, days: int, level: Callable[[float], float]) -> None:
    labels = {"job": job, "instance": "one", "account": "home", "lock_id": "1", "lock_name": "Front door"}
    for hour in range(days * 24 + 1):
        at = EVENING - days * DAY + hour * HOUR
        recording.sample("lock_battery_level", labels, int(level((EVENING - at) / DAY)), at)
        recording.sample("lock_revision", labels, 1, at)


def _emptying(drain: float, days: float) -> float:
    return LEFT + 0.5 + drain * days


def _twins(recording: Recording, job: str, one: Row, other: Row) -> None:
    """One lock, as two exporters tell of it."""
    for instance, row in (("one", one), ("other", other)):
        _scrape(recording, job, EVENING, {"home": {"Front door": row}}, instance)


def _scrape(
    recording: Recording, job: str, at: float, accounts: Mapping[str, Mapping[str, Row]], instance: str = "one"
) -> None:
    """One scrape of an exporter that knows the locks of some accounts, by name."""
    known = {
        account: locks_of(
            [dict(row) for row in locks.values()], [detailed(row["id"], name) for name, row in locks.items()]
        )
        for account, locks in accounts.items()
    }
    _hold(recording, {"job": job, "instance": instance}, at, known)


def _hold(
    recording: Recording, target: Mapping[str, str], at: float, known: Mapping[str, tuple[Lock, ...] | None]
) -> None:
    """One scrape; an account whose locks are None has heard nothing from Tedee."""
    clock = FakeClock(wall=at)
    statuses = [
        status(clock, locks, account, **({} if locks is not None else {"up": False, "snapshot": None}))
        for account, locks in known.items()
    ]
    collector = ExporterCollector("1.2.3", lambda: (True, 0.0), lambda: True)
    recording.scrape(Exposition(registry(*statuses), collector, clock), at, target)
