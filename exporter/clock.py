"""Clocks, and durations as text.

Everything that waits or compares times gets a clock as a parameter, so that tests can control the time.
"""

import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class Clock(Protocol):
    """Source of wall-clock time and monotonic time, both in seconds."""

    def wall(self) -> float:
        """Return the Unix time, for display and metrics. It may jump."""
        ...

    def monotonic(self) -> float:
        """Return the time since the machine was booted, for ages and waits. It never decreases."""
        ...

    def boot(self) -> str:
        """Return an id of the boot. Processes with the same boot id can compare their monotonic times."""
        ...


_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def boottime() -> float:
    """Return the seconds since the machine was booted, including the time for which it was suspended.

    Doors move while a laptop is suspended. On Linux CLOCK_BOOTTIME counts that time, CLOCK_MONOTONIC does not.
    """
    return time.clock_gettime(_BOOTTIME)


def format_duration(seconds: float) -> str:
    """Return a duration for log lines, such as `0.21s`, `20s`, `5m3s` or `2h0m`."""
    if seconds < 9.995:  # noqa: PLR2004  (below, two decimals are of interest)
        return f"{round(max(0.0, seconds), 2):g}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


class SystemClock:
    """Clock of the machine."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        try:
            self._boot = (proc / "sys/kernel/random/boot_id").read_text("ascii").strip()
        except (OSError, ValueError):
            # With a random id, no other process compares its monotonic times with those of this one.
            self._boot = str(uuid.uuid4())
        with suppress(OSError, ValueError):
            # A container may be in a time namespace, with other clocks in the same boot.
            offsets = (proc / "self/timens_offsets").read_text("ascii").split()
            if {*offsets} - {"monotonic", "boottime", "0"}:
                self._boot += " " + " ".join(offsets)

    def wall(self) -> float:
        """Return the Unix time in seconds."""
        return time.time()

    def monotonic(self) -> float:
        """Return the seconds since the machine was booted."""
        return boottime()

    def boot(self) -> str:
        """Return the kernel's boot id, or a random id of this process if the kernel has none."""
        return self._boot


@dataclass(frozen=True, slots=True)
class Instant:
    """A point in time on both clocks. Monotonic times are comparable within one boot of one machine."""

    boot: str
    monotonic: float
    wall: float

    @classmethod
    def now(cls, clock: Clock) -> "Instant":
        """Return the present time."""
        return cls(clock.boot(), clock.monotonic(), clock.wall())

    def age(self, now: "Instant") -> float | None:
        """Return the seconds since this time; None if they are unknown.

        Two boots have only the wall clock in common. It may have jumped or, on a machine without a battery for it,
        stopped while the machine was off.
        """
        age = now.monotonic - self.monotonic
        return age if self.boot == now.boot and age >= 0 else None
