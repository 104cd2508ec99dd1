"""The report of the benchmark, and the choice of its parts."""

import argparse
from collections.abc import Callable
from operator import attrgetter
from typing import Any

import pytest

from bench import __main__ as program
from bench import memory, starts
from bench.cloud import MINIMAL, OURS
from bench.lateness import Lateness
from bench.memory_growth import Growth
from bench.refreshes import Latencies, Scrape, latencies
from bench.replicas import Database, Observation, Replicas
from bench.report import Part, report
from bench.rounds import LEAST, Comparison, Ratio
from bench.scrapes import GUNICORN, NGINX, PROMETHEUS_CLIENT, SERVERS, SIZES, Load, Measurement, Scrapes
from bench.syncs import CHANGED, GENERATE_LATEST, Cost, Syncs
from testing.soak import Resources, Week


def rounds(measured: dict[str, Any], figure: Callable[[Any], float]) -> Comparison[Any]:
    """Return equal rounds of measurements."""
    return Comparison(list(measured), figure, rounds=[measured] * LEAST)


def scrapes(p50: float = 1.0) -> Scrapes:
    """Return results that reach all goals, except for the given p50 of the exporter."""
    servers = {OURS: Measurement(p50, 1.0, 1.0, 1.0), PROMETHEUS_CLIENT: Measurement(2000.0, 1.0, 1.0, 1.0)}
    servers |= {name: Measurement(1.0, 1.0, 1.0, 1.0) for name in (GUNICORN, NGINX)}
    loads = [Load(locks, 1, "text", encoding) for locks in SIZES for encoding in ("plain", "gzip")]
    return Scrapes({load: rounds(servers, attrgetter("p50")) for load in loads})


def replicas(late: float = 0.5, violations: int = 0) -> Replicas:
    """Return results of replicas that reach all goals by default."""
    one = Observation([0.0, 0.25], 0, [0.4], [100 * 1024.0])
    database = Database(400.0, 200 * 1024.0, 0.2, 20 * 1024.0**2)
    return Replicas(one, Observation([0.0, late], violations, [0.5, 0.4, 0.3], [110 * 1024.0] * 3, database))


def parts(p50: float = 1.0) -> list[Part]:
    """Return results of all parts that reach all goals, except for the given p50 of the exporter's scrapes."""
    used = attrgetter("processor_time")
    costs = {GENERATE_LATEST: Cost(1.0, 1.0), **dict.fromkeys(CHANGED, Cost(0.1, 0.05))}
    small, large = ({OURS: mebibytes * 1024.0, MINIMAL: 32 * 1024.0} for mebibytes in (40, 70))
    return [
        starts.Starts(rounds({OURS: starts.Start(0.3, 0.4), MINIMAL: starts.Start(0.15, 0.2)}, used)),
        memory.Memory({10: rounds(small, float), 10_000: rounds(large, float)}),
        Syncs(rounds(costs, used)),
        Latencies(Ratio([2.0] * 8), 1.0, 2.0, 0.3),
        Lateness(0.0, 0.5, 0.6, 1_000, 0, 0.5, 20, 100_000.0),
        Growth(Week([Resources(80_000, 10, 5), Resources(80_100, 10, 5)], 0)),
        scrapes(p50),
        replicas(),
    ]


def test_reached_goal_is_not_reported_as_missed() -> None:
    assert "missed" not in report(parts())


@pytest.mark.parametrize(("p50", "missed"), [(1.5, 1), (2.5, 2), (3.5, 3)])
def test_missed_goal_is_reported(p50: float, missed: int) -> None:
    assert report(parts(p50)).count("**missed**") == missed


def test_exporter_is_compared_with_the_minimal_exporter() -> None:
    text = report(parts())
    assert "| processor time of a start, relative to the minimal exporter | 2.00 (2.00 to 2.00) in 4 rounds |" in text
    assert "| the same, relative to the minimal exporter | 1.25 (1.25 to 1.25) in 4 rounds |" in text


def test_every_load_has_a_row_with_its_peers() -> None:
    everything = scrapes()
    load = Load(10, 64, "text", "plain")
    servers = {OURS: Measurement(1.0, 1.0, 1.0, 2.0), NGINX: Measurement(0.5, 1.0, 1.0, 1.0)}
    everything.loads[load] = rounds(servers, attrgetter("p50"))
    rows = [line for line in everything.details().splitlines() if line.startswith("| 1")]
    assert len(rows) == len(everything.loads)
    assert rows[-1].endswith(" | 4 | - | - | 0.50 (0.50 to 0.50) / 0.50 |")
    assert all(row.count("|") == 8 + len(SERVERS) for row in rows)


def test_replicas_are_compared_with_one_process() -> None:
    rows = replicas().details().splitlines()
    assert "| lateness of a sync, worst | 0.25 s | 0.50 s | 2.00 |" in rows
    assert "| cores of all replicas | 0.40 | 1.20 | 3.00 |" in rows
    assert "| cores of the database | - | 0.20 | - |" in rows
    assert "| cores in total | 0.40 | 1.40 | 3.50 |" in rows
    assert "| write-ahead log | - | 200 KiB per second | - |" in rows


def test_late_or_early_syncs_of_replicas_are_missed_goals() -> None:
    assert report([replicas(late=1.5)]).count("**missed**") == 1
    assert report([replicas(late=1.5, violations=1)]).count("**missed**") == 2


def test_star_marks_rounds_that_differ() -> None:
    everything = scrapes()
    peer = everything.loads[Load(10, 1, "text", "plain")]
    peer.rounds[-2:] = [peer.rounds[0] | {NGINX: Measurement(3.0, 1.0, 1.0, 1.0)}] * 2
    assert everything.details().count("* / ") == 1


def test_report_of_one_part_has_no_empty_table() -> None:
    for part in parts():
        assert "| --- |\n\n" not in report([part])
    assert report(parts()[5:6]).startswith("| measurement | result |")


def test_parts_are_measured_in_their_order() -> None:
    assert program.names("memory,start") == ["start", "memory"]
    with pytest.raises(argparse.ArgumentTypeError, match=r"unknown part scrape; known are start, memory, "):
        program.names("start,scrape")


def test_each_refresh_is_compared_with_the_time_before() -> None:
    def scraped(begin: float, end: float, took: float, content: int) -> list[Scrape]:
        count = round((end - begin) / 0.25)
        return [Scrape(begin + 0.25 * number, took, content) for number in range(count)]

    # New data after a second. The scrapes around a refresh, which are slow as well, belong to neither group.
    everything = [
        *scraped(100, 110, 0.01, 1), *scraped(110, 111, 0.1, 1), *scraped(111, 112, 0.2, 1),
        *scraped(112, 113, 0.1, 2), *scraped(113, 120, 0.02, 2), *scraped(120, 121, 0.1, 2),
        *scraped(121, 122, 0.2, 2), *scraped(122, 123, 0.1, 3),
    ]  # fmt: skip
    found = latencies(everything, [111.0, 121.0])
    assert found.ratio.rounds == pytest.approx([20, 10])
    assert found.during_refresh == pytest.approx(0.2)
    assert found.between_refreshes == pytest.approx(0.02)
    assert found.longest_refresh == pytest.approx(1.1)
