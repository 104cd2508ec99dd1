"""Lost if this fails: an exporter that can be left alone for years."""

import gc
import os
import threading
from pathlib import Path

import pytest

from exporter.config.settings import Settings
from exporter.fleet import Fleet
from exporter.metrics.collector import ExporterCollector
from exporter.metrics.exposition import Exposition
from exporter.simulator import Cloud, Fault, World, serve
from exporter.sync.scheduler import Scheduler
from exporter.sync.snapshot import Board
from exporter.sync.state import StateFile
from tests.clock import FakeClock

HOUR = 3600.0


def resources() -> dict[str, int]:
    """Memory in KiB, file descriptors and threads of this process."""
    gc.collect()
    memory = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") // 1024
    return {"KiB": memory, "files": len(os.listdir("/proc/self/fd")), "threads": threading.active_count()}  # noqa: PTH208


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_week_leaves_nothing_behind(tmp_path: Path) -> None:
    clock = FakeClock()
    cloud = Cloud(World.demo(clock=clock.wall), clock=clock.monotonic)
    board, scheduler = Board(), Scheduler(clock)
    exposition = Exposition(board, ExporterCollector("1", lambda: (True, 0.0), lambda: True), clock)
    board.on_change(exposition.refresh)
    fleet = Fleet(clock, StateFile(tmp_path / "state.db", clock), board, scheduler)
    measured: list[dict[str, int]] = []
    with serve(cloud) as address:
        accounts = [{"name": name, "personal_key": f"simulated-key-{name}"} for name in ("home", "hotel")]
        settings = Settings.model_validate(
            {"api": {"url": address.url}, "sync": {"interval": "60s"}, "accounts": accounts}
        )
        for hour in range(7 * 24):
            fleet.apply(settings)
            # Something is the matter every hour.
            cloud.faults.script(Fault.error(503), Fault.html(), Fault.reset(), None, Fault.malformed())
            end = clock.monotonic() + HOUR
            while (due := scheduler.next_due()) is not None and due <= end:
                clock.advance(max(0.0, due - clock.monotonic()))
                scheduler.run_due()
                exposition.scrape("application/openmetrics-text", "gzip")
            # Which the simulated cloud remembers, and the exporter does not.
            cloud.calls.clear()
            if hour % 24 == 23:
                measured.append(resources())
    print("\n" + "\n".join(f"day {day}: {each}" for day, each in enumerate(measured, 1)))
    assert cloud.violations == []
    assert measured[-1]["files"] == measured[0]["files"]
    assert measured[-1]["threads"] == measured[0]["threads"]
    assert measured[-1]["KiB"] <= measured[0]["KiB"] + 4 * 1024
