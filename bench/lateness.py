"""The lateness of syncs with a thousand accounts in one process."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median, quantiles

from testing.program import free_port

from .cloud import Call, exporter, simulated, wait_for_data
from .machine import Options
from .report import Goal, Part

ACCOUNTS, LOCKS = 1_000, 10
SPACING = 20.0
"""Seconds from the response of a sync until the next sync is due."""


@dataclass(frozen=True)
class Lateness(Part):
    """Seconds by which syncs were late, and the resources that the exporter used."""

    median: float
    p99: float
    worst: float
    syncs: int
    violations: int
    cores: float
    """Seconds of processor time per second."""
    threads: int
    memory: float
    """KiB."""

    def goals(self) -> Iterable[Goal]:
        """Yield the goals of many accounts."""
        yield Goal(
            "1,000 accounts of 10 locks, p99 lateness of a sync",
            "at most 1 s, on one core",
            f"{self.p99:.2f} s",
            self.p99 <= 1,
        )
        yield Goal(
            "calls to Tedee less than 20 s apart",
            "none",
            f"{self.violations} of {self.syncs:,}",
            self.violations == 0,
        )

    def results(self) -> Iterable[tuple[str, str]]:
        """Yield the lateness and the resources."""
        yield (
            f"1,000 accounts of 10 locks: lateness of {self.syncs:,} syncs, median, p99, worst",
            f"{self.median:.2f} s, {self.p99:.2f} s, {self.worst:.2f} s",
        )
        yield (
            "resources of these syncs",
            f"{self.cores:.2f} cores, {self.threads} threads, {self.memory / 1024:.0f} MiB",
        )


def measure(options: Options) -> Lateness:
    """Observe all accounts for some time, after each has its locks."""
    port = free_port()
    with simulated(ACCOUNTS, LOCKS) as cloud, exporter(cloud, port, options) as process:
        wait_for_data(port, ACCOUNTS * LOCKS)
        began, used = time.monotonic(), process.processor_time()
        time.sleep(options.watch)
        used = process.processor_time() - used
        cores = used / (time.monotonic() - began)
        threads, memory = process.threads(), process.memory()
        calls, violations = cloud.calls(), cloud.violations()
    late = delays(calls, began)
    return Lateness(median(late), quantiles(late, n=100)[-1], max(late), len(late), violations, cores, threads, memory)


def delays(calls: Sequence[Call], began: float) -> list[float]:
    """Return the seconds by which syncs were late, for those after the first of each account since a monotonic time."""
    by_account: dict[str, list[tuple[float, float]]] = {}
    for account, endpoint, arrived, finished in calls:
        if endpoint == "sync" and finished and arrived >= began:
            by_account.setdefault(account, []).append((arrived, finished))
    return [
        after[0] - before[1] - SPACING for syncs in by_account.values() for before, after in pairwise(sorted(syncs))
    ]
