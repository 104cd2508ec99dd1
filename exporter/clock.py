"""What time it is, as a parameter: everything that waits or compares times is given a clock."""

import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Protocol


class Clock(Protocol):
    """Two readings of time, both in seconds."""

    def wall(self) -> float:
        """Unix time: for people and for metrics. It may jump."""
        ...

    def monotonic(self) -> float:
        """Time since the machine was booted: for ages and waits. It never goes back."""
        ...

    def boot(self) -> str:
        """Which boot of which machine it is: monotonic times of the same boot can be compared between processes."""
        ...


_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def boottime() -> float:
    """Return the seconds since the machine was started.

    They include the time for which it was suspended, since doors move while a laptop sleeps: CLOCK_BOOTTIME does that
    on Linux, CLOCK_MONOTONIC does not.
    """
    return time.clock_gettime(_BOOTTIME)


class SystemClock:
    """The machine's own clocks."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        try:
            self._boot = (proc / "sys/kernel/random/boot_id").read_text("ascii").strip()
        except (OSError, ValueError):
            # Unknown: the monotonic time of no other process is comparable.
            self._boot = str(uuid.uuid4())
        with suppress(OSError, ValueError):
            # A container may have clocks of its own (a time namespace), in the same boot.
            offsets = (proc / "self/timens_offsets").read_text("ascii").split()
            if {*offsets} - {"monotonic", "boottime", "0"}:
                self._boot += " " + " ".join(offsets)

    def wall(self) -> float:
        """Unix time in seconds."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds since the machine was started."""
        return boottime()

    def boot(self) -> str:
        """The kernel's boot id; where there is none, a new one for each process."""
        return self._boot
