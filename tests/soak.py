"""A simulated week of an exporter in this process."""

import gc
import os
import threading
from pathlib import Path
from typing import NamedTuple

from exporter.accounts import Accounts
from exporter.config.settings import Settings
from exporter.metrics.collector import ExporterCollector
from exporter.metrics.exposition import Exposition
from exporter.simulator import Cloud, Fault, World, serve
from exporter.sync.scheduler import Scheduler
from exporter.sync.snapshot import StatusRegistry
from tests.stores import open_store

from .clock import FakeClock

HOUR = 3600.0


class Resources(NamedTuple):
    """What this process has taken."""

    memory: int
    """KiB that are resident."""
    files: int
    threads: int

    @classmethod
    def now(cls) -> "Resources":
        """Once the garbage is gone."""
        gc.collect()
        memory = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") // 1024
        return cls(memory, len(os.listdir("/proc/self/fd")), threading.active_count())  # noqa: PTH208


class Week(NamedTuple):
    """What came of it."""

    days: list[Resources]
    """At the end of each."""
    violations: int
    """How often Tedee's limits were broken."""


def live_through_a_week(folder: Path) -> Week:
    """Sync the demo's two accounts each minute, scrape after each sync, and have something break every hour."""
    clock = FakeClock()
    cloud = Cloud(World.demo(clock=clock.wall), clock=clock.monotonic)
    registry, scheduler = StatusRegistry(), Scheduler(clock)
    exposition = Exposition(registry, ExporterCollector("1", lambda: (True, 0.0), lambda: True), clock)
    registry.on_change(exposition.refresh)
    configured = Accounts(clock, open_store(folder / "state.db", clock), registry, scheduler)
    days: list[Resources] = []
    with serve(cloud) as address:
        accounts = [{"name": name, "personal_key": f"simulated-key-{name}"} for name in ("home", "hotel")]
        settings = Settings.model_validate(
            {"api": {"url": address.url}, "sync": {"interval": "60s"}, "accounts": accounts}
        )
        for hour in range(7 * 24):
            configured.apply(settings)
            cloud.faults.script(Fault.error(503), Fault.html(), Fault.reset(), None, Fault.malformed())
            end = clock.monotonic() + HOUR
            while (due := scheduler.next_due()) is not None and due <= end:
                clock.advance(max(0.0, due - clock.monotonic()))
                scheduler.run_due()
                exposition.scrape("application/openmetrics-text", "gzip")
            # Which the simulated cloud remembers, and the exporter does not.
            cloud.calls.clear()
            if hour % 24 == 23:
                days.append(Resources.now())
    return Week(days, len(cloud.violations))
