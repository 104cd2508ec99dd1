"""The battery of a device. It drains for weeks, then charges for hours, in a cycle."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple


class BatteryState(NamedTuple):
    """The battery as a lock reports it: its level in percent, and whether a charger is plugged in."""

    level: int
    charging: bool


class BatteryReading(NamedTuple):
    """A level in percent, and the time of the last change of the level in Unix seconds."""

    level: int
    changed_at: float


@dataclass(frozen=True)
class Battery:
    """A battery that drains from `full` to `low` percent in `drain` seconds, then charges again in `charge` seconds.

    With `charge=0` the battery is replaced instead of charged. With `drain=0` the lock is always on its charger. Unix
    time 0 is `phase` seconds after the start of a cycle, so that the batteries of a house differ.
    """

    drain: float
    charge: float
    low: int = 15
    full: int = 100
    phase: float = 0.0

    def at(self, t: float) -> BatteryState:
        """Return the state of the battery at `t` Unix seconds."""
        since_full = (t + self.phase) % (self.drain + self.charge)
        charging = since_full >= self.drain
        drained = 1 - (since_full - self.drain) / self.charge if charging else since_full / self.drain
        return BatteryState(self.full - round((self.full - self.low) * drained), charging)

    def reading(self, t: float) -> BatteryReading:
        """Return the level at `t` of a battery that is replaced instead of charged, and the time of its last change."""
        level = self.at(t).level
        lost, span = self.full - level, self.full - self.low
        # The level is rounded, so it falls in the middle between two percents.
        since_full = self.drain * (lost - 0.5) / span if lost else 0.0
        return BatteryReading(level, t - (t + self.phase) % self.drain + since_full)

    def charges(self, start: float, end: float) -> Iterator[tuple[float, bool]]:
        """Yield each time in [start, end) at which charging starts (True) or ends (False), in order."""
        if not (self.drain and self.charge):
            return
        period = self.drain + self.charge
        for number in range(math.floor((start + self.phase) / period), math.floor((end + self.phase) / period) + 1):
            began = number * period - self.phase
            yield from ((at, on) for at, on in ((began, False), (began + self.drain, True)) if start <= at < end)
