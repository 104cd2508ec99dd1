"""The time from a start to the first data, and the memory of the exporter."""

import time
from functools import partial
from statistics import median
from typing import NamedTuple

import requests

from testing.program import eventually, free_port

from .cloud import exporter, simulated, wait_for_data
from .machine import TIMEOUT

STARTS = 7
SYNCS = 3
SIZES = (10, 10_000)
SETTLING_TIME = 20.0 * SYNCS
"""Seconds after which memory is measured."""


class Start(NamedTuple):
    """Seconds from the start of the process to the first scrape with data."""

    processor_time: float
    elapsed: float


def measure() -> Start:
    """Return the median of several starts with ten locks."""
    with simulated(1, 10) as cloud:
        starts = []
        for _ in range(STARTS):
            port = free_port()
            began = time.monotonic()
            with exporter(cloud, port) as process:
                eventually(partial(_has_data, port), "data")
                starts.append(Start(process.processor_time(), time.monotonic() - began))
    return Start(median(start.processor_time for start in starts), median(start.elapsed for start in starts))


def _has_data(port: int) -> bool:
    try:
        return "lock_state{" in requests.get(f"http://127.0.0.1:{port}/metrics", timeout=TIMEOUT).text
    except requests.ConnectionError:
        return False


def memory() -> dict[int, float]:
    """Return the resident memory in KiB after some syncs and scrapes, by number of locks."""
    found = {}
    for locks in SIZES:
        port = free_port()
        with simulated(1, locks) as cloud, exporter(cloud, port) as process:
            wait_for_data(port, locks)
            end = time.monotonic() + SETTLING_TIME
            while time.monotonic() < end:
                requests.get(f"http://127.0.0.1:{port}/metrics", timeout=TIMEOUT)
                time.sleep(2)
            found[locks] = process.memory()
    return found
