"""The lateness of syncs with a thousand accounts in one process."""

import time
from itertools import pairwise
from statistics import median, quantiles
from typing import NamedTuple

from testing.program import free_port

from .cloud import exporter, simulated, wait_for_data

ACCOUNTS, LOCKS = 1_000, 10
SPACING = 20.0
"""Seconds from the response of a sync until the next sync is due."""


class Lateness(NamedTuple):
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


def measure(seconds: float) -> Lateness:
    """Observe all accounts for that long, after each has its locks."""
    port = free_port()
    with simulated(ACCOUNTS, LOCKS) as cloud, exporter(cloud, port) as process:
        wait_for_data(port, ACCOUNTS * LOCKS)
        began, used = time.monotonic(), process.processor_time()
        time.sleep(seconds)
        used = process.processor_time() - used
        cores = used / (time.monotonic() - began)
        threads, memory = process.threads(), process.memory()
        calls, violations = cloud.calls(), cloud.violations()
    by_account: dict[str, list[tuple[float, float]]] = {}
    for account, endpoint, arrived, finished in calls:
        if endpoint == "sync" and finished and arrived >= began:
            by_account.setdefault(account, []).append((arrived, finished))
    late = [
        after[0] - before[1] - SPACING for syncs in by_account.values() for before, after in pairwise(sorted(syncs))
    ]
    return Lateness(median(late), quantiles(late, n=100)[-1], max(late), len(late), violations, cores, threads, memory)
