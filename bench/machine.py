"""The machine that measures, and processes on it."""

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
"""What runs the exporter: with nothing installed that it does not need, where `make bench` runs this."""
TIMEOUT = 120.0
"""Seconds after which something that should have happened has not."""


class Process:
    """A program under measurement, with all its children."""

    def __init__(self, popen: subprocess.Popen[str]) -> None:
        self.popen = popen
        self._process = psutil.Process(popen.pid)

    def _all(self) -> list[psutil.Process]:
        return [self._process, *self._process.children(recursive=True)]

    def processor_time(self) -> float:
        """Seconds of processor time used so far."""
        return sum(sum(each.cpu_times()[:2]) for each in self._all())

    def memory(self) -> float:
        """KiB that are resident."""
        return sum(each.memory_info().rss for each in self._all()) / 1024

    def threads(self) -> int:
        """How many threads there are."""
        return sum(each.num_threads() for each in self._all())


@contextlib.contextmanager
def started(*command: str, core: int = MEASURED_CORE, **variables: str) -> Iterator[Process]:
    """A program that runs on one core until the context ends; what it says is thrown away."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | variables
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # who installs the exporter has it compiled
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
    """The machine and the versions of what is measured, as a list in Markdown."""
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
