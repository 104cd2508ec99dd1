"""Whether memory grows over a simulated week."""

import logging
import multiprocessing
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import structlog

from tests.soak import Week, simulate_week


def measure() -> Week:
    """A week, in a process of its own, which holds the simulated cloud too."""
    spawning = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(1, spawning, _be_quiet) as pool:
        return pool.submit(simulate_week, Path(folder)).result()


def _be_quiet() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
