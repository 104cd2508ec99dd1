"""The growth of memory in a simulated week."""

import logging
import multiprocessing
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import structlog

from testing.soak import Week, simulate_week


def measure() -> Week:
    """Simulate a week in a separate process, which also contains the simulated cloud."""
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(1, spawn, _disable_logging) as pool:
        return pool.submit(simulate_week, Path(folder)).result()


def _disable_logging() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
