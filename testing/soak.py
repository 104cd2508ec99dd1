"""A simulated week of an exporter that runs in this process."""

import gc
import os
import threading
from pathlib import Path
from typing import NamedTuple

from exporter.accounts import Accounts
from exporter.config.settings import Settings
from exporter.config.source import Source
from exporter.metrics.collector import ExporterCollector
from exporter.metrics.exposition import Exposition
from exporter.simulator import World, serve
from exporter.sync.scheduler import Scheduler
from exporter.sync.snapshot import StatusRegistry

from .clock import FakeClock
from .faults import Fault, FaultyCloud
from .stores import open_store

HOUR = 3600.0


class Resources(NamedTuple):
    """Resources that this process uses."""

    memory: int
    """Resident KiB."""
    files: int
    threads: int

    @classmethod
    def now(cls) -> "Resources":
        """Collect garbage, and return the present use."""
        gc.collect()
        memory = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") // 1024
        return cls(memory, len(os.listdir("/proc/self/fd")), threading.active_count())  # noqa: PTH208


class Week(NamedTuple):
    """Results of a simulated week."""

    days: list[Resources]
    """Resources at the end of each day."""
    violations: int
    """Number of calls that broke a limit of Tedee."""


def simulate_week(folder: Path) -> Week:
    """Sync the two accounts of the demo each minute with events, scrape after each run, inject faults every hour."""
    clock = FakeClock()
    cloud = FaultyCloud(World.demo(clock=clock.wall), clock=clock.monotonic)
    registry, scheduler = StatusRegistry(), Scheduler(clock)
    exposition = Exposition(registry, ExporterCollector("1", lambda: (True, 0.0), lambda: True), clock)
    registry.on_change(exposition.render)
    accounts = Accounts(clock, open_store(folder / "state.db", clock), registry, scheduler)
    days: list[Resources] = []
    with serve(cloud) as address:
        configured = [{"name": name, "personal_key": f"simulated-key-{name}"} for name in ("home", "hotel")]
        sections = {"sync": {"interval": "60s"}, "events": {"enabled": True, "interval": "1h"}}
        settings = Source({"api": {"url": address.url}, **sections, "accounts": configured}).validated(Settings)
        for hour in range(7 * 24):
            accounts.apply(settings)
            cloud.faults.script(Fault.error(503), Fault.html(), Fault.reset(), None, Fault.malformed())
            end = clock.monotonic() + HOUR
            while (due := scheduler.next_due()) is not None and due <= end:
                clock.advance(max(0.0, due - clock.monotonic()))
                scheduler.run_due()
                exposition.scrape("application/openmetrics-text", "gzip")
            # They are the memory of the simulated cloud, not of the exporter.
            cloud.calls.clear()
            if hour % 24 == 23:
                days.append(Resources.now())
    return Week(days, len(cloud.violations))
