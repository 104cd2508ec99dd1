"""The machine, and the processes that are measured on it."""

import contextlib
import logging
import multiprocessing
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple, TypeVar

import psutil
import structlog

from .rounds import MOST

ROOT = Path(__file__).parent.parent
MEASURED_CORE, MEASURING_CORE = 0, 1
TIMEOUT = 120.0
"""Seconds to wait for an expected event."""

T = TypeVar("T")


class Options(NamedTuple):
    """What is measured, and for how long."""

    exporter: tuple[str, ...] = (sys.executable, "-m", "exporter")
    """The command that runs the exporter."""
    python: str = sys.executable
    """The Python interpreter of the environment with the exporter."""
    rounds: int = MOST
    """The highest number of rounds."""
    watch: float = 180.0
    """Seconds for lateness, refreshes and replicas."""


class Process:
    """A measured program with all its child processes."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)

    def _all(self) -> list[psutil.Process]:
        return [self._process, *self._process.children(recursive=True)]

    def processor_time(self) -> float:
        """Return the seconds of processor time used so far, also by child processes that have ended."""
        return sum(sum(each.cpu_times()[:4]) for each in self._all())

    def memory(self) -> float:
        """Return the resident memory in KiB."""
        return sum(each.memory_info().rss for each in self._all()) / 1024

    def threads(self) -> int:
        """Return the number of threads."""
        return sum(each.num_threads() for each in self._all())


@contextlib.contextmanager
def started(
    *command: str, cores: Sequence[int] = (MEASURED_CORE,), variables: Mapping[str, str] | None = None
) -> Iterator[Process]:
    """Run a program on some processor cores until the context ends. Its output is discarded.

    `python -m` finds the modules of this repository, because they are in the working folder. Installed programs use
    only what is installed.
    """
    environment = os.environ | (variables or {})
    environment.pop("PYTHONPATH", None)
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # installing the exporter compiles it
    popen = subprocess.Popen(
        ["taskset", "--cpu-list", ",".join(map(str, cores)), *command],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield Process(popen.pid)
    finally:
        popen.terminate()
        try:
            popen.wait(10)
        except subprocess.TimeoutExpired:
            popen.kill()
            popen.wait()


def in_new_process(function: Callable[..., T], *arguments: object) -> T:
    """Run a function in a new process on the measured core, without its log lines, and return its result."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, _prepare) as pool:
        return pool.submit(function, *arguments).result()


def _prepare() -> None:
    os.sched_setaffinity(0, {MEASURED_CORE})
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def description() -> str:
    """Return the machine and the versions of the measured programs as a Markdown list."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    packages = ("prometheus-client", "requests", "gunicorn", "uvicorn", "httptools", "uvloop", "starlette")
    nginx = subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=True).stderr.partition("/")[2].strip()
    return "\n".join(
        [
            f"- {time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores of {model}, load {os.getloadavg()[0]:.1f} before",
            f"- Linux {platform.release()}, Python {sys.version.split()[0]}, nginx {nginx}",
            "- " + ", ".join(f"{package} {version(package)}" for package in packages),
        ]
    )
