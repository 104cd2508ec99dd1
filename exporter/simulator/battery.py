"""The battery of a lock. It drains for weeks, then charges for hours, in a cycle."""

from dataclasses import dataclass
from typing import NamedTuple


class BatteryState(NamedTuple):
    """The battery as a lock reports it: its level in percent, and whether a charger is plugged in."""

    level: int
    charging: bool


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
