"""The growth of memory in a simulated week."""

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from testing.soak import Week, simulate_week

from .machine import Options, in_new_process
from .report import Part


@dataclass(frozen=True)
class Growth(Part):
    """The resources at the end of each day."""

    week: Week

    def results(self) -> Iterable[tuple[str, str]]:
        """Yield the growth."""
        first, last = self.week.days[0].memory, self.week.days[-1].memory
        yield "memory growth from the end of day 1 to the end of day 7", f"{last - first:+,} KiB of {first:,}"


def measure(_options: Options) -> Growth:
    """Simulate a week in a separate process, which also contains the simulated cloud."""
    with tempfile.TemporaryDirectory() as folder:
        return Growth(in_new_process(simulate_week, Path(folder)))
