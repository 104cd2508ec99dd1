"""The time from a start to the first data, compared with that of a minimal exporter."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import NamedTuple

import requests

from testing.program import eventually, free_port

from .cloud import MINIMAL, OURS, SimulatedCloud, run, simulated
from .machine import TIMEOUT, Options
from .report import Goal, Part
from .rounds import Comparison


class Start(NamedTuple):
    """Seconds from the start of the process to the first scrape with data."""

    processor_time: float
    elapsed: float


@dataclass(frozen=True)
class Starts(Part):
    """The starts of both exporters, with ten locks."""

    starts: Comparison[Start]

    def goals(self) -> Iterable[Goal]:
        """Yield the goal of the exporter."""
        used = self.starts.median(OURS)
        yield Goal("start to first data, processor time", "less than 0.35 s", f"{used:.2f} s", used < 0.35)

    def results(self) -> Iterable[tuple[str, str]]:
        """Yield the starts of both."""
        for program in self.starts.programs:
            used, elapsed = (self.starts.median(program, attrgetter(name)) for name in Start._fields)
            yield (
                f"start to first data of the {program}",
                f"{used:.2f} s of processor time, {elapsed:.2f} s in total",
            )
        yield (
            f"processor time of a start, relative to the {MINIMAL}",
            str(self.starts.ratio(OURS, MINIMAL)),
        )


def measure(options: Options) -> Starts:
    """Start both exporters with ten locks, in as many rounds as allowed, because a round takes about a second."""
    starts = Comparison((OURS, MINIMAL), attrgetter("processor_time"), options.rounds, least=options.rounds)
    with simulated(1, 10) as cloud:
        while not starts.is_complete():
            starts.add({program: _start(program, cloud, options) for program in starts.order()})
    return Starts(starts)


def _start(program: str, cloud: SimulatedCloud, options: Options) -> Start:
    port = free_port()
    began = time.monotonic()
    with run(program, cloud, port, options) as process:
        eventually(partial(_has_data, port), "data")
        return Start(process.processor_time(), time.monotonic() - began)


def _has_data(port: int) -> bool:
    try:
        return "lock_state{" in requests.get(f"http://127.0.0.1:{port}/metrics", timeout=TIMEOUT).text
    except requests.ConnectionError:
        return False
