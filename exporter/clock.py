"""What time it is, as a parameter: everything that waits or compares times is given a clock."""

import time
from typing import Protocol


class Clock(Protocol):
    """Two readings of time, both in seconds."""

    def wall(self) -> float:
        """Unix time: for people and for metrics. It may jump."""
        ...

    def monotonic(self) -> float:
        """Time since an arbitrary start: for ages and waits. It never goes back."""
        ...


class SystemClock:
    """The machine's own clocks.

    Ages count the time a machine was suspended, since doors move while a laptop sleeps: CLOCK_BOOTTIME
    does that where there is one (Linux), CLOCK_MONOTONIC does not.
    """

    _boottime = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

    def wall(self) -> float:
        """Unix time in seconds."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds since the machine was started."""
        return time.clock_gettime(self._boottime)
