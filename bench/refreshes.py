"""Latency of scrapes while the exporter processes a sync of many locks, compared with scrapes between syncs."""

import http.client
import time
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import quantiles
from typing import NamedTuple

from testing.program import free_port

from .cloud import exporter, simulated, wait_for_data
from .machine import TIMEOUT, Options
from .report import Goal, Part
from .rounds import Ratio

LOCKS = 10_000
PROCESS_METRICS = 8 * 1024
"""Bytes at the end of a compressed scrape for the process metrics, which change each second."""
MARGIN = 1.0
"""Seconds around a refresh whose scrapes are in neither group, because the sync takes about the second before it."""


class Scrape(NamedTuple):
    """One scrape; times in seconds."""

    sent: float
    took: float
    content: int
    """A checksum of the lock metrics."""


@dataclass(frozen=True)
class Latencies(Part):
    """99th percentiles of scrapes in seconds, and the refreshes during which they were measured."""

    ratio: Ratio
    """During each refresh, relative to the time since the refresh before."""
    between_refreshes: float
    during_refresh: float
    longest_refresh: float
    """Seconds from the last byte of Tedee's response to the first scrape with new data."""

    def goals(self) -> Iterable[Goal]:
        """Yield the goal of scrapes during a refresh."""
        yield Goal(
            "scrape p99 during a refresh of 10,000 locks, relative to the p99 since the refresh before",
            "at most 5",
            str(self.ratio),
            self.ratio.median <= 5,
        )

    def results(self) -> Iterable[tuple[str, str]]:
        """Yield the latencies."""
        yield (
            "scrape p99, 10,000 locks gzip, one connection, between refreshes",
            f"{1000 * self.between_refreshes:.1f} ms",
        )
        yield "the same during refreshes", f"{1000 * self.during_refresh:.1f} ms"
        yield (
            "longest refresh, from Tedee's response to the first scrape with new data",
            f"{self.longest_refresh:.2f} s",
        )


def measure(options: Options) -> Latencies:
    """Scrape on one connection as fast as possible, during several syncs."""
    port = free_port()
    with simulated(1, LOCKS) as cloud, exporter(cloud, port, options):
        wait_for_data(port, LOCKS)
        scrapes = _scrape(port, options.watch)
        finished = [call[3] for call in cloud.calls() if call[1] == "sync"]
    return latencies(scrapes, [at for at in finished if at])


def latencies(scrapes: list[Scrape], finished: list[float]) -> Latencies:
    """Return the latencies of scrapes. Each refresh is a round.

    Args:
        scrapes: all scrapes, in order.
        finished: monotonic seconds of the last byte of each sync's response.
    """
    during: list[list[float]] = []
    between: list[list[float]] = []
    longest, last = 0.0, 0.0
    for at in finished:
        before = [scrape for scrape in scrapes if scrape.sent + scrape.took < at]
        if not before:
            continue
        new = next((each for each in scrapes if each.sent >= at and each.content != before[-1].content), None)
        if new is None:
            continue
        end = new.sent + new.took
        since = [each.took for each in before if last + MARGIN < each.sent < at - MARGIN]
        within = [each.took for each in scrapes if each.sent < end and each.sent + each.took > at]
        if len(since) > 1 and len(within) > 1:
            during.append(within)
            between.append(since)
        longest, last = max(longest, end - at), end
    return Latencies(
        Ratio([_p99(one) / _p99(other) for one, other in zip(during, between, strict=True)]),
        _p99([took for each in between for took in each]),
        _p99([took for each in during for took in each]),
        longest,
    )


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
    return quantiles(latencies, n=100, method="inclusive")[-1]
