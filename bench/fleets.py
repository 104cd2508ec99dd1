"""A thousand accounts in one process: how punctual each is."""

import time
from itertools import pairwise
from statistics import median, quantiles
from typing import NamedTuple

from tests.program import free_port

from .cloud import exporter, simulated, wait_for_data

ACCOUNTS, LOCKS = 1_000, 10
SPACING = 20.0
"""Seconds from the answer of one sync to the next: then it is due."""


class Punctuality(NamedTuple):
    """How late syncs went out, and what that cost."""

    median: float
    p99: float
    latest: float
    syncs: int
    violations: int
    cores: float
    """Processor time for each second."""
    threads: int
    memory: float
    """KiB."""


def measure(seconds: float) -> Punctuality:
    """Watch all accounts for a while, once each has its locks."""
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
    for account, endpoint, arrived, answered in calls:
        if endpoint == "sync" and answered and arrived >= began:
            by_account.setdefault(account, []).append((arrived, answered))
    late = [
        after[0] - before[1] - SPACING for syncs in by_account.values() for before, after in pairwise(sorted(syncs))
    ]
    return Punctuality(
        median(late), quantiles(late, n=100)[-1], max(late), len(late), violations, cores, threads, memory
    )
