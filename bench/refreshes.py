"""Latency of scrapes while the exporter processes a sync of many locks, compared with scrapes between syncs."""

import http.client
import os
import time
import zlib
from statistics import quantiles
from typing import NamedTuple

from testing.program import free_port

from .cloud import exporter, simulated, wait_for_data
from .machine import MEASURING_CORE, TIMEOUT

LOCKS = 10_000
PROCESS_METRICS = 8 * 1024
"""Bytes at the end of a compressed scrape for the process metrics, which change each second."""


class Scrape(NamedTuple):
    """One scrape; times in seconds."""

    sent: float
    took: float
    content: int
    """A checksum of the lock metrics."""


class Latencies(NamedTuple):
    """99th percentiles of scrapes in seconds, and the refreshes during which they were measured."""

    between_refreshes: float
    during_refresh: float
    refreshes: int
    longest_refresh: float
    """Seconds from the last byte of Tedee's response to the first scrape with new data."""


def measure(seconds: float) -> Latencies:
    """Scrape on one connection as fast as possible, during several syncs."""
    os.sched_setaffinity(0, {MEASURING_CORE})
    port = free_port()
    with simulated(1, LOCKS) as cloud, exporter(cloud, port):
        wait_for_data(port, LOCKS)
        scrapes = _scrape(port, seconds)
        finished = [call[3] for call in cloud.calls() if call[1] == "sync"]
    refreshes = []
    for at in finished:
        after = [scrape for scrape in scrapes if at and scrape.sent >= at]
        before = [scrape for scrape in scrapes if at and scrape.sent + scrape.took < at]
        new = next((scrape for scrape in after if before and scrape.content != before[-1].content), None)
        if at and new:
            refreshes.append((at, new.sent + new.took))
    during = [s.took for s in scrapes if any(s.sent < end and s.sent + s.took > begin for begin, end in refreshes)]
    # Scrapes within a second of a refresh are in neither group, because the sync takes about the second before it.
    between = [s.took for s in scrapes if not any(begin - 1 < s.sent < end + 1 for begin, end in refreshes)]
    return Latencies(_p99(between), _p99(during), len(refreshes), max(end - begin for begin, end in refreshes))


def _scrape(port: int, seconds: float) -> list[Scrape]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    scrapes = []
    end = time.monotonic() + seconds
    while (sent := time.monotonic()) < end:
        connection.request("GET", "/metrics", headers={"Accept-Encoding": "gzip"})
        body = connection.getresponse().read()
        scrapes.append(Scrape(sent, time.monotonic() - sent, zlib.crc32(body[:-PROCESS_METRICS])))
    return scrapes


def _p99(latencies: list[float]) -> float:
    return quantiles(latencies, n=100)[-1]
