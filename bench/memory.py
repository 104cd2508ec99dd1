"""The resident memory of the exporter, compared with that of a minimal exporter."""

import contextlib
import time
from collections.abc import Iterable
from dataclasses import dataclass

import requests

from testing.program import free_port

from .cloud import MINIMAL, OURS, run, simulated, wait_for_data
from .machine import TIMEOUT, Options
from .report import Goal, Part
from .rounds import Comparison

SYNCS = 3
SIZES = (10, 10_000)
SETTLING_TIME = 20.0 * SYNCS
"""Seconds after which memory is measured."""


@dataclass(frozen=True)
class Memory(Part):
    """Resident memory in KiB by number of locks."""

    sizes: dict[int, Comparison[float]]

    def goals(self) -> Iterable[Goal]:
        """Yield the goals for a few locks and for each additional lock."""
        few, many = sorted(self.sizes)
        small, large = (self.sizes[size].median(OURS) for size in (few, many))
        each = (large - small) / (many - few)
        yield Goal(f"resident memory, {few} locks", "at most 42 MiB", f"{small / 1024:.1f} MiB", small <= 42 * 1024)
        yield Goal("resident memory, each additional lock", "at most 6 KiB", f"{each:.1f} KiB", each <= 6)

    def results(self) -> Iterable[tuple[str, str]]:
        """Yield the memory of both exporters."""
        for locks, memory in sorted(self.sizes.items()):
            of_both = (f"{memory.median(program) / 1024:.0f} MiB of the {program}" for program in memory.programs)
            yield f"resident memory, {locks:,} locks", ", ".join(of_both)
            yield f"the same, relative to the {MINIMAL}", str(memory.ratio(OURS, MINIMAL))


def measure(options: Options) -> Memory:
    """Measure after some syncs and scrapes.

    The programs of a round run at the same time, because that does not affect their memory. A round takes more than a
    minute, and results differ little: two rounds can be enough.
    """
    sizes: dict[int, Comparison[float]] = {
        locks: Comparison((OURS, MINIMAL), float, options.rounds, least=2) for locks in SIZES
    }
    while not all(memory.is_complete() for memory in sizes.values()):
        measured = _measure([(locks, program) for locks in SIZES for program in sizes[locks].order()], options)
        for locks, memory in sizes.items():
            memory.add({program: measured[locks, program] for program in memory.programs})
    return Memory(sizes)


def _measure(programs: list[tuple[int, str]], options: Options) -> dict[tuple[int, str], float]:
    """Return the memory of programs that run at the same time, each with a simulated cloud of that many locks."""
    with contextlib.ExitStack() as stack:
        processes, ports = {}, []
        for locks, program in programs:
            cloud = stack.enter_context(simulated(1, locks))
            ports.append(free_port())
            processes[locks, program] = stack.enter_context(run(program, cloud, ports[-1], options))
        for (locks, program), port in zip(programs, ports, strict=True):
            wait_for_data(port, locks, "lock_info" if program == OURS else "lock_connected")
        end = time.monotonic() + SETTLING_TIME
        while time.monotonic() < end:
            for port in ports:
                requests.get(f"http://127.0.0.1:{port}/metrics", timeout=TIMEOUT)
            time.sleep(2)
        return {program: process.memory() for program, process in processes.items()}
