"""Simulated days with events: all are counted once, within the share of requests, and no sync is later.

Requests reach the simulated cloud without a connection, which would take most of the time.
"""

import asyncio
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import requests
import responses

from exporter.accounts import Accounts
from exporter.config.settings import Settings
from exporter.config.source import Source
from exporter.simulator import Account, Bridge, Call, Keypad, Lock, Outages, PersonalKey, World
from exporter.simulator.usage_profile import FAMILY, FREQUENT
from exporter.state.rate_limits import HOUR
from exporter.sync.scheduler import Scheduler
from exporter.sync.snapshot import StatusRegistry
from exporter.tedee.events import EventKind
from testing.clock import FakeClock
from testing.faults import Fault, FaultyCloud
from testing.program import LONG_TEST
from testing.stores import open_store

DAY = 24 * HOUR
START = 1_795_431_600.0
"""Monday 2026-11-23, 12:00 in Warsaw."""
SHARE = 350
Counts = Mapping[int, Mapping[tuple[str, ...], int]]
"""Numbers of events by lock, event and source."""


URL = "https://tedee.test"
TIMEOUT = 10.0
"""Seconds until the exporter gives up a request for events."""


class SlowCloud(FaultyCloud):
    """A cloud whose responses to requests for events take up to 9 seconds of the fake clock."""

    def __init__(self, world: World, clock: FakeClock) -> None:
        super().__init__(world, strict=True, clock=clock.monotonic)
        self._fake_clock = clock
        self._delays = cycle([0.1, 0.3, 9.0, 0.2, 2.0, 5.0, 0.1])

    async def respond(self, call: Call, *args: Any) -> Any:
        if call.endpoint == "activity":
            self._fake_clock.advance(next(self._delays))
        return await super().respond(call, *args)

    def transfer(self, request: requests.PreparedRequest) -> tuple[int, dict[str, str], bytes]:
        """Respond to a request of the library `requests`. Without a response, the request times out."""
        path, _, query = (request.url or "").removeprefix(URL).partition("?")
        headers = [(name.lower().encode(), str(value).encode()) for name, value in request.headers.items()]
        scope = {"type": "http", "method": "GET", "path": path, "query_string": query.encode(), "headers": headers}
        received = iter([{"type": "http.request", "body": b""}, {"type": "http.disconnect"}])
        sent: list[Any] = []

        async def receive() -> Any:
            return next(received)

        async def send(message: Any) -> None:
            sent.append(message)

        asyncio.run(self(scope, receive, send))
        if not sent:
            self._fake_clock.advance(TIMEOUT)
            raise requests.exceptions.ReadTimeout
        given = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return sent[0]["status"], given, sent[1]["body"]


@dataclass
class Process:
    """A run of the exporter with one account."""

    clock: FakeClock
    path: Path
    settings: Settings
    registry: StatusRegistry = field(default_factory=StatusRegistry)

    def __post_init__(self) -> None:
        self.scheduler = Scheduler(self.clock)
        self.store = open_store(self.path, self.clock)
        self.accounts = Accounts(self.clock, self.store, self.registry, self.scheduler)
        self.accounts.apply(self.settings)

    def due(self) -> float:
        due = self.scheduler.next_due()
        assert due is not None
        return due

    def counts(self) -> dict[int, dict[tuple[str, ...], int]]:
        snapshot = self.registry.statuses()[0].snapshot
        return {lock.id: {**lock.events} for lock in snapshot.locks} if snapshot else {}


def world(clock: FakeClock, end: float) -> World:
    """Return six locks, of which one is offline for 7 hours a day. Nothing happens after the end (Unix seconds)."""
    near, far = Bridge(11, "Hallway", "100011-00011"), Bridge(12, "Annex", "100011-00012")
    far.outages = Outages(DAY, 7 * HOUR, START + 3 * HOUR)
    lock = partial(Lock, created="2026-11-20T00:00:00")
    locks = [
        lock(1, "Front door", bridge=near, profile=FAMILY, accessories=[Keypad(21, "Keypad", wrong_pins=3.0)]),
        lock(2, "Garden door", bridge=near, profile=FREQUENT),
        lock(3, "Cellar", bridge=near, profile=FAMILY),
        lock(4, "Annex", bridge=far, profile=FREQUENT, accessories=[Keypad(22, "Annex keypad", wrong_pins=2.0)]),
        lock(5, "Shed", profile=FAMILY),
        lock(6, "Attic", bridge=near, profile=None),
    ]
    for hours in range(13, int((end - START) / HOUR), 13):
        # A batch that arrives half a day later, newest events first.
        for number, date in enumerate(range(0, 600, 20)):
            locks[5].add_event(95, START + hours * HOUR - 11 * HOUR - date, delivered_at=START + hours * HOUR + number)
    accounts = [Account("home", locks, keys=[PersonalKey("key")])]
    return World(accounts, lambda: min(clock.wall(), end))


def expected(cloud: FaultyCloud, since: float, end: float) -> Counts:
    """Return what was delivered until the end of those events that happened since the start."""
    counts: dict[int, Counter[tuple[str, ...]]] = {}
    for lock in cloud.world.account("home").devices:
        if isinstance(lock, Lock):
            events = [each for each in lock.events_between(since, end) if lock.delivered_at(each) <= end]
            counts[lock.id] = Counter(tuple(EventKind.of(each.number)) for each in events)
    return counts


@dataclass
class Run:
    """What happened in simulated days."""

    calls: list[Call]
    violations: int
    counts: Counts
    expected: Counts

    def times(self, endpoint: str) -> list[float]:
        return [each.arrived for each in self.calls if each.endpoint == endpoint]

    def most_requests_in_an_hour(self) -> int:
        times = [each.arrived for each in self.calls]
        first = most = 0
        for last, at in enumerate(times):
            while times[first] <= at - HOUR:
                first += 1
            most = max(most, last - first + 1)
        return most


def simulate(folder: Path, hours: int, **sections: Mapping[str, object]) -> Run:
    """Run an exporter for some hours, and restart it now and then.

    Nothing happens in the last five hours, in which all locks are asked.
    """
    clock = FakeClock(START)
    end = START + (hours - 5) * HOUR
    cloud = SlowCloud(world(clock, end), clock)
    with responses.RequestsMock() as mock:
        mock.add_callback(responses.GET, re.compile(f"{URL}/.*"), cloud.transfer)
        config = {
            "api": {"url": URL},
            **sections,
            "accounts": [{"name": "home", "personal_key": "key"}],
        }
        settings = Source(config).validated(Settings)
        start: Callable[[], Process] = lambda: Process(clock, folder / "state.db", settings)  # noqa: E731
        processes = [start()]

        def run_until(at: float) -> None:
            while (due := min(each.due() for each in processes)) <= at:
                clock.advance(max(0.0, due - clock.monotonic()))
                min(processes, key=lambda each: each.due()).scheduler.run_due()
            clock.advance(max(0.0, at - clock.monotonic()))

        began = clock.monotonic()
        for hour in range(hours):
            cloud.faults.clear()
            for endpoint in ("activity", "activity", "details"):
                cloud.faults.script(*_faults(hour), endpoint=endpoint)
            cloud.faults.script(None, None, Fault.error(503) if hour % 3 == 1 else None, endpoint="sync")
            run_until(began + hour * HOUR + HOUR / 2)
            match hour % 4:
                case 1:
                    # Without a clean end.
                    processes = [start()]
                case 2:
                    processes[0].store.close()
                    processes = [start()]
                case 3:
                    # Another process takes over.
                    processes.append(start())
                    run_until(clock.monotonic() + 120.0)
                    processes[0].store.close()
                    del processes[0]
            run_until(began + (hour + 1) * HOUR)
    first = next((each.at for each in cloud.calls if each.endpoint == "activity"), end)
    return Run(cloud.calls, len(cloud.violations), processes[0].counts(), expected(cloud, first, end))


def _faults(hour: int) -> Iterator[Fault | None]:
    faults = [Fault.error(500), Fault.too_many_requests(90), Fault.silence(), Fault.malformed(), Fault.error(401)]
    yield from [None] * (hour % 3 + 1)
    yield faults[hour % len(faults)]
    yield None
    yield faults[(hour + 2) % len(faults)]


@pytest.fixture(autouse=True)
def same_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs are only comparable with the same waits after failures."""
    monkeypatch.setattr(random, "uniform", lambda _low, _high: 1.1)


def check(run: Run) -> None:
    assert run.counts.keys() == run.expected.keys() == {1, 2, 3, 4, 5, 6}
    for lock_id, counts in run.counts.items():
        assert {kind: count for kind, count in counts.items() if count} == run.expected[lock_id]
    assert run.most_requests_in_an_hour() <= SHARE
    assert run.violations == 0


@pytest.mark.timeout(LONG_TEST)
def test_events_are_counted_once_and_delay_no_sync(tmp_path: Path) -> None:
    runs = []
    for name, enabled in {"with": True, "without": False}.items():
        (tmp_path / name).mkdir()
        runs.append(simulate(tmp_path / name, 5, events={"enabled": enabled}))
    with_events, without = runs
    check(with_events)
    assert len(with_events.times("activity")) > 5 * 50
    assert not without.times("activity")
    assert with_events.times("sync") == without.times("sync")


@pytest.mark.timeout(LONG_TEST)
def test_week_of_events_at_long_intervals(tmp_path: Path) -> None:
    sync = {"interval": "1h", "stale_after": "3h"}
    check(simulate(tmp_path, 7 * 24, sync=sync, devices={"interval": "2h"}, events={"enabled": True, "interval": "1h"}))


@pytest.mark.soak
@pytest.mark.timeout(LONG_TEST)
def test_day_of_events_at_default_intervals(tmp_path: Path) -> None:
    check(simulate(tmp_path, 26, events={"enabled": True}))
