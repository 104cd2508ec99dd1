"""The report of the benchmark, and the metrics of its peers."""

import pytest
from prometheus_client import generate_latest

from bench import peers, report
from bench.lateness import Lateness
from bench.refreshes import Latencies
from bench.scrapes import CONNECTIONS, ENCODINGS, GUNICORN, NGINX, OURS, PROMETHEUS_CLIENT, SIZES, Load, Measurement
from bench.starts import Start
from bench.syncs import CHANGED, Cost, Costs
from testing.clock import FakeClock
from testing.factories import registry, status
from testing.soak import Resources, Week
from tests.correctness.test_exposition import expose


def test_peer_exposes_the_same_lock_metrics(clock: FakeClock) -> None:
    ours = expose(registry(status(clock)), clock).scrape("", "").body.decode().splitlines()
    theirs = generate_latest(peers.registry([status(clock)])).decode().splitlines()
    of_locks = {line for line in ours if line.startswith(("lock_", "# HELP lock_", "# TYPE lock_"))}
    assert len(of_locks) > 20
    assert set(theirs) == of_locks


def figures(p50: float = 1.0) -> report.Figures:
    """Return results that reach all goals, except for the given p50 of the exporter's scrapes."""
    servers = {name: Measurement(1.0, 1.0, 1.0, 1.0) for name in (NGINX, GUNICORN)}
    servers |= {OURS: Measurement(p50, 1.0, 1.0, 1.0), PROMETHEUS_CLIENT: Measurement(2000.0, 1.0, 1.0, 1.0)}
    return report.Figures(
        {
            Load(size, connections, "text", encoding): servers
            for size in SIZES
            for connections in CONNECTIONS
            for encoding in ENCODINGS
        },
        Latencies(1.0, 2.0, 3, 0.3),
        Costs({part: Cost(0.1, 0.05) for part in CHANGED}, 1.0),
        Start(0.5, 0.6),
        {10: 50_000.0, 10_000: 80_000.0},
        Lateness(0.0, 0.5, 0.6, 1_000, 0, 0.5, 20, 100_000.0),
        Week([Resources(80_000, 10, 5), Resources(80_100, 10, 5)], 0),
    )


def test_reached_goal_is_not_reported_as_missed() -> None:
    assert "missed" not in report.goals(figures())


@pytest.mark.parametrize(("p50", "missed"), [(1.5, 1), (2.5, 2), (3.5, 3)])
def test_missed_goal_is_reported(p50: float, missed: int) -> None:
    assert report.goals(figures(p50)).count("**missed**") == missed


def test_every_load_has_a_row() -> None:
    everything = figures()
    assert report.scrapes(everything).count("\n") == 2 + len(everything.scrapes)
