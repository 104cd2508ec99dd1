"""The machine, and the processes that are measured on it."""

import contextlib
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import psutil

ROOT = Path(__file__).parent.parent
MEASURED_CORE, MEASURING_CORE = 0, 1
EXPORTER_PYTHON = os.environ.get("EXPORTER_PYTHON", sys.executable)
"""The Python interpreter of the exporter. `make bench` sets one that has only the runtime dependencies."""
TIMEOUT = 120.0
"""Seconds to wait for an expected event."""


class Process:
    """A measured program with all its child processes."""

    def __init__(self, popen: subprocess.Popen[str]) -> None:
        self.popen = popen
        self._process = psutil.Process(popen.pid)

    def _all(self) -> list[psutil.Process]:
        return [self._process, *self._process.children(recursive=True)]

    def processor_time(self) -> float:
        """Return the seconds of processor time used so far."""
        return sum(sum(each.cpu_times()[:2]) for each in self._all())

    def memory(self) -> float:
        """Return the resident memory in KiB."""
        return sum(each.memory_info().rss for each in self._all()) / 1024

    def threads(self) -> int:
        """Return the number of threads."""
        return sum(each.num_threads() for each in self._all())


@contextlib.contextmanager
def started(*command: str, core: int = MEASURED_CORE, **variables: str) -> Iterator[Process]:
    """Run a program on one core until the context ends. Its output is discarded."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | variables
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # installing the exporter compiles it
    popen = subprocess.Popen(
        ["taskset", "--cpu-list", str(core), *command],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield Process(popen)
    finally:
        popen.terminate()
        try:
            popen.wait(10)
        except subprocess.TimeoutExpired:
            popen.kill()
            popen.wait()


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
    packages = ("prometheus-client", "gunicorn", "uvicorn", "httptools", "uvloop", "starlette")
    nginx = subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=True).stderr.partition("/")[2].strip()
    return "\n".join(
        [
            f"- {time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores of {model}, load {os.getloadavg()[0]:.1f} before",
            f"- Linux {platform.release()}, Python {sys.version.split()[0]}, nginx {nginx}",
            "- " + ", ".join(f"{package} {version(package)}" for package in packages),
        ]
    )
